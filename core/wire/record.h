/* record.h -- the shared segment between one agent and the runtime: a header, the agent's counters,
 * the allocator's figures, and the ring (ring.h).
 * Owner: the agent creates it as a sealed memfd (no shrinking, so that the runtime cannot fault on
 * it) and passes it with its HELLO. Everything the runtime reads here is untrusted. */
#ifndef LUPE_WIRE_RECORD_H
#define LUPE_WIRE_RECORD_H

#include <stdatomic.h>
#include <stdint.h>

enum {
  LUPE_WIRE_VERSION = 1,
  LUPE_MAX_FRAMES = 128,       /* jemalloc's PROF_BT_MAX */
  LUPE_RING_BYTES = 1 << 20,   /* of payload; a power of two */
  LUPE_SIZE_CLASSES_MAX = 256, /* 36 small and 196 large in jemalloc 5.3 with 4 KiB pages */
};
#define LUPE_SEGMENT_MAGIC UINT64_C(0x314745534550554c) /* "LUPESEG1" */

/* What the agent counts about itself. Writers: any thread of the program, relaxed; reader: runtime. */
typedef struct lupe_counters {
  _Atomic uint64_t heap_samples;     /* sampled allocations seen by the hook */
  _Atomic uint64_t dropped_records;  /* the ring was full */
  _Atomic uint64_t truncated_stacks; /* the walk ended before the thread's first frame */
  _Atomic uint64_t hook_ns;          /* time spent inside the allocation hook */
  _Atomic uint64_t thread_cpu_ns;    /* CPU time of the agent's own threads */
  _Atomic uint64_t profiles;         /* heap profiles taken */
  _Atomic uint64_t profile_ns;       /* wall time spent in prof.dump */
} lupe_counters;

typedef struct lupe_size_class {
  uint64_t size_bytes;
  uint64_t live_count;
} lupe_size_class;

/* jemalloc's own figures, read by the agent's thread about once a second.
 * `sequence` is a seqlock: odd while the agent writes; a reader copies and retries when it moved. */
typedef struct lupe_allocator_figures {
  _Atomic uint64_t sequence;
  int64_t time_ms; /* Unix time of the reading; 0 = not read yet */
  uint64_t allocated_bytes, active_bytes, metadata_bytes, resident_bytes, mapped_bytes, retained_bytes;
  uint64_t dirty_bytes, muzzy_bytes;      /* summed over the arenas */
  uint64_t cached_bytes;                  /* free, in the thread caches: jemalloc counts them as allocated */
  int64_t dirty_decay_ms, muzzy_decay_ms; /* -1 = never */
  uint32_t arena_count;
  uint32_t background_thread; /* 0 or 1 */
  uint32_t thread_cache;      /* 0 or 1 */
  uint32_t class_count;       /* of `classes` */
  lupe_size_class classes[LUPE_SIZE_CLASSES_MAX];
} lupe_allocator_figures;

typedef struct lupe_segment {
  uint64_t magic;
  uint32_t version;
  uint32_t segment_bytes;             /* the whole, ring included */
  uint32_t ring_offset;               /* from the start of the segment, 64-byte aligned */
  uint32_t ring_bytes;                /* LUPE_RING_BYTES */
  _Alignas(64) _Atomic uint64_t head; /* bytes ever reserved; producers */
  _Alignas(64) _Atomic uint64_t tail; /* bytes ever consumed; runtime */
  _Alignas(64) lupe_counters counters;
  _Alignas(64) lupe_allocator_figures allocator;
} lupe_segment;

enum lupe_record_kind {
  LUPE_RECORD_PADDING = 1, /* fills the ring's end */
  LUPE_RECORD_HEAP = 2,    /* one sampled allocation */
};

enum lupe_record_flags {
  LUPE_RECORD_TRUNCATED = 1, /* the stack is longer than what was walked */
};

/* One record: this header, then `depth` return addresses, leaf first, 8 bytes each.
 * `commit` is written last (release); 0 means reserved but not yet written. */
typedef struct lupe_record {
  _Atomic uint32_t commit; /* size in bytes with this header, a multiple of 8 */
  uint8_t kind;
  uint8_t flags;
  uint16_t depth;
  uint32_t tid;
  uint32_t weight;  /* samples that this record stands for */
  uint64_t time_ns; /* CLOCK_MONOTONIC */
  uint64_t frames[];
} lupe_record;

#endif

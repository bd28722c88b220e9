/* record.h -- the shared segment between one agent and the runtime: a header, the agent's counters,
 * the allocator's figures, and the ring (ring.h).
 * Owner: the agent creates it as a sealed memfd (no shrinking, so that the runtime cannot fault on
 * it) and passes it with its HELLO. Everything the runtime reads here is untrusted. */
#ifndef LUPE_WIRE_RECORD_H
#define LUPE_WIRE_RECORD_H

#include <stdatomic.h>
#include <stdint.h>

enum {
  LUPE_WIRE_VERSION = 5,
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
  _Atomic uint64_t proof_cpu_ns;     /* CPU time of the children that leak proofs forked */
  _Atomic uint64_t profiles;         /* heap profiles taken */
  _Atomic uint64_t profile_ns;       /* wall time spent in prof.dump */
  _Atomic uint64_t cpu_samples;      /* expirations of CPU timers, overruns included */
  _Atomic uint64_t handler_ns;       /* time spent inside the signal handler */
  _Atomic uint64_t wall_looks;       /* at threads, by the agent's thread */
  _Atomic uint64_t wall_moved; /* of these: the thread ran on while its stack was read, so there is none */
  _Atomic uint32_t cpu_state;  /* lupe_sampling_state */
  _Atomic uint32_t wall_state; /* lupe_sampling_state */
  _Atomic uint32_t threads;    /* that the agent knows of, its own left out */
  _Atomic uint32_t
      threads_untimed; /* of these: without a CPU timer, since they block SIGPROF or none was to be had */
  _Atomic uint32_t threads_unread; /* of these: their system call cannot be read */
} lupe_counters;

typedef enum lupe_sampling_state {
  LUPE_SAMPLING_OFF = 0, /* not asked for, or not yet */
  LUPE_SAMPLING_ON = 1,
  LUPE_SAMPLING_FOREIGN = 2, /* CPU: the program has a SIGPROF handler of its own */
  LUPE_SAMPLING_REFUSED = 3, /* CPU: no timer could be made for any thread */
  LUPE_SAMPLING_UNREADABLE =
      4, /* wall: /proc/self/task/TID/syscall cannot be read (not dumpable, or sandboxed) */
  LUPE_SAMPLING_UNSUPPORTED = 5, /* this glibc or kernel lacks what stacks are made with */
} lupe_sampling_state;

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
  uint64_t dirty_bytes, muzzy_bytes; /* summed over the arenas */
  uint64_t cached_bytes;             /* free, in the thread caches: jemalloc counts them as allocated */
  /* Of lupe's own threads. All other figures are without what belongs to them. */
  uint64_t own_allocated_bytes, own_active_bytes, own_resident_bytes;
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
  LUPE_RECORD_CPU = 3,     /* a CPU timer expired */
  LUPE_RECORD_WALL = 4,    /* what a thread was seen doing by the clock on the wall */
};

enum lupe_record_flags {
  LUPE_RECORD_TRUNCATED = 1, /* the stack is longer than what was walked */
};

/* What a thread did: `state` of CPU and wall records, and sample_state of snapshots.
 * Bits 0-7 hold one of these; of LUPE_THREAD_WAITING bits 16-31 hold the number of the system call
 * (LUPE_NO_SYSCALL: none, so a page fault), and bits 8-15 the command of a futex call. */
enum lupe_thread_state {
  LUPE_THREAD_USER = 0,    /* CPU: in the program's own code */
  LUPE_THREAD_KERNEL = 1,  /* CPU: in a system call */
  LUPE_THREAD_RUNNING = 2, /* wall: on a core or waiting for one; the record has no stack */
  LUPE_THREAD_WAITING = 3, /* wall: in the system call that `state` names */
};
enum { LUPE_NO_SYSCALL = 0xffff };

/* One record: this header, then `depth` return addresses, leaf first, 8 bytes each. (The first address of a
 * CPU or wall record was interrupted: it is the address itself, not that behind a call.)
 * `commit` is written last (release); 0 means reserved but not yet written. */
typedef struct lupe_record {
  _Atomic uint32_t commit; /* size in bytes with this header, a multiple of 8 */
  uint8_t kind;
  uint8_t flags;
  uint16_t depth;
  uint32_t tid;
  uint32_t weight; /* heap, CPU: samples that this record stands for; wall: microseconds */
  uint32_t state;  /* CPU, wall: enum lupe_thread_state and what belongs to it */
  union {
    uint32_t switches;  /* wall: how often the thread was put on a core since its last record */
    uint32_t period_ns; /* CPU: of its timer; the rate may change while samples are under way */
  };
  uint64_t time_ns; /* CLOCK_MONOTONIC */
  uint64_t frames[];
} lupe_record;

#endif

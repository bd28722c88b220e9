/* snapshot_layout.h -- the layout of a snapshot: one read-only block of columns, by offset.
 * The same block is what routes read, what the worker process maps, and what a recording holds.
 * lua/lupe/ffi.lua hands this very file to ffi.cdef, so it holds plain C declarations only: no
 * macros but the guard, no includes but stdint. All offsets count from the start of the header and
 * are multiples of 8. Strings are NUL-terminated in the string block; offset 0 there is "".
 * Times are Unix milliseconds (double); byte and object figures are already corrected for sampling. */
#ifndef LUPE_STORE_SNAPSHOT_LAYOUT_H
#define LUPE_STORE_SNAPSHOT_LAYOUT_H
#include <stdint.h>

/* One reading of a process's memory and CPU; also one row of the memory series.
 * Allocator fields are 0 and has_allocator 0 where jemalloc's figures are unknown. */
typedef struct lupe_memory_figures {
  double time_ms;
  uint64_t rss_bytes, virtual_bytes, shared_bytes; /* shared: file + shmem */
  uint64_t allocated_bytes, active_bytes, metadata_bytes, resident_bytes, mapped_bytes, retained_bytes;
  uint64_t cached_bytes;   /* of the allocated ones: free, in the thread caches */
  uint64_t sampling_bytes; /* of the allocated ones: what 16 KiB extents add to the small objects sampled */
  uint64_t user_ns, system_ns; /* CPU time since the process started */
  uint64_t minor_faults, major_faults;
  uint32_t threads;
  uint32_t has_allocator;
} lupe_memory_figures;

typedef struct lupe_snapshot_target {
  int32_t pid, ppid;
  uint32_t live;       /* 1 while the process runs */
  uint32_t heap_state; /* lupe_heap_state of message.h */
  uint64_t sample_period_bytes;
  double first_ms, last_ms;       /* when it connected, last profile */
  uint32_t name;                  /* string: the program's file name */
  uint32_t allocator;             /* string */
  uint32_t cpu_state, wall_state; /* lupe_sampling_state of record.h */
  uint32_t threads_untimed;       /* threads without a CPU timer */
  uint32_t threads_unread;        /* threads that the wall profile does not see */
  lupe_memory_figures memory;     /* the newest reading */
} lupe_snapshot_target;

typedef struct lupe_snapshot_module {
  uint32_t path;     /* string */
  uint32_t build_id; /* string, hex, "" where there is none */
} lupe_snapshot_module;

typedef struct lupe_snapshot_function {
  uint32_t name;    /* string, demangled; `module+0xOFFSET` of its start where there is no symbol */
  uint32_t module;  /* index into modules */
  uint32_t named;   /* 1: from a symbol table */
  uint32_t wrapper; /* 1: an allocator, libc or runtime wrapper, never a site */
  uint64_t start;   /* address in the file's own address space */
  uint32_t file;    /* string: where it is defined, "" unknown */
  uint32_t line;    /* of its definition, 0 unknown */
} lupe_snapshot_function;

typedef struct lupe_snapshot_frame {
  uint32_t function; /* index into functions */
  uint32_t file;     /* string, "" unknown: of the function's own code, so where it calls what is inlined */
  uint32_t line;     /* 0 unknown */
  uint32_t module;
  uint32_t inline_first; /* index into inlines: the calls inlined here, innermost first */
  uint32_t inline_count;
  uint64_t address; /* inside the calling instruction, in the module's own address space */
} lupe_snapshot_frame;

/* A function that was inlined, and the line of it that runs (or calls what is inlined into it). */
typedef struct lupe_snapshot_inline {
  uint32_t name; /* string, demangled */
  uint32_t file; /* string, "" unknown */
  uint32_t line; /* 0 unknown */
} lupe_snapshot_inline;

/* A thread that has samples in the snapshot's window. */
typedef struct lupe_snapshot_thread {
  uint32_t target; /* index into targets */
  int32_t tid;
  uint32_t name; /* string, "" unknown */
  uint32_t unused;
  double switches; /* how often it was put on a core, in the window; known where wall profiling is on */
} lupe_snapshot_thread;

/* What one process did under one span's name (a piece of work that the program marks), in the spans' window.
 * Durations are counted in buckets, four to each doubling: 0, 1, 2 and 3 ns have one each; from 4 ns
 * on bucket b begins at (4 + b % 4) << (b / 4 - 1) ns and ends where the next begins; the last, from 32 min
 * on, has no end. */
enum { LUPE_SNAPSHOT_SPAN_BUCKETS = 160 };
typedef struct lupe_snapshot_span {
  uint32_t name;     /* string */
  uint32_t target;   /* index into targets */
  uint32_t function; /* index into functions: the one that begins them; UINT32_MAX: not known */
  uint32_t unused;
  double count; /* ended in the window */
  double total_ns, max_ns;
} lupe_snapshot_span;

/* All spans of one name since the run began, whatever process they were of. */
enum { LUPE_SNAPSHOT_SPAN_TOTALS_MAX = 1024 };
typedef struct lupe_snapshot_span_total {
  uint32_t name; /* string */
  uint32_t unused;
  double count, total_ns;
} lupe_snapshot_span_total;

/* The leak proofs of a process that was asked for one: how the newest ended, and what the newest complete one
 * found. A later one that was refused, or given up on, takes nothing away from that. */
typedef struct lupe_snapshot_proof {
  uint32_t target;  /* index into targets */
  uint32_t outcome; /* of the newest: lupe_proof_outcome of proof.h */
  int32_t error;    /* of the newest, see there */
  uint32_t hidden;  /* of the newest complete one, see there: why less than a proof */
  double time_ms;   /* from here on of the newest: when it ended */
  double elapsed_ns, pause_ns;
  double anonymous_bytes, read_bytes;
  /* From here on of the newest complete one, its rows too. */
  double scanned_ms; /* when its second scan was made; 0: there is none, and all that follows is 0 */
  double interval_ms;
  double scan_ns, table_bytes;
  uint32_t threads, registers;
  double sample_period_bytes;
  double heap_objects, heap_bytes;               /* exact */
  double unreachable_objects, unreachable_bytes; /* exact, of the second scan */
} lupe_snapshot_proof;

/* What the newest complete proof of a process says of one stack: of the objects allocated there that are
 * sampled, and scaled from them. */
typedef struct lupe_snapshot_proof_row {
  uint32_t proof; /* index into proofs */
  uint32_t stack; /* index into stacks; it has a site */
  uint32_t
      holder_stack; /* of the reachable ones' nearest sampled holders, the most frequent; UINT32_MAX: none */
  uint32_t held;    /* sampled objects that have that one */
  uint32_t reachable, interior, stack_only, unreachable, unsettled; /* sampled objects, by lupe_proof_state */
  uint32_t groups;         /* that the unreachable ones hang together in, with others or alone */
  uint32_t largest_behind; /* sampled objects behind the head of the largest group that has its head here */
  uint32_t head_stack;   /* the stack of most heads of the groups of its unreachable ones; UINT32_MAX: none */
  double objects, bytes; /* all of its live ones */
  double unreachable_objects, unreachable_bytes; /* those proven as far as memory goes */
  double objects_variance, bytes_variance;       /* of the two, from sampling */
} lupe_snapshot_proof_row;

typedef struct lupe_snapshot_size_class {
  uint64_t size_bytes;
  uint64_t live_count;
} lupe_snapshot_size_class;

/* `offset` of `count` elements; the element's type stands beside each field below. */
typedef struct lupe_snapshot_column {
  uint64_t offset;
  uint64_t count;
} lupe_snapshot_column;

typedef struct lupe_snapshot_header {
  uint64_t magic;   /* "LUPESNP1" little endian: 0x31504e534550554c */
  uint32_t version; /* LUPE_SNAPSHOT_VERSION of snapshot.h */
  uint32_t header_bytes;
  uint64_t total_bytes;
  double time_ms;               /* when it was built */
  double started_ms;            /* when the run began */
  uint64_t generation;          /* counts heap profile rounds */
  uint32_t tick_count;          /* columns of the history, oldest first, at most 60 */
  uint32_t heap_interval_ms;    /* between two kept profiles now */
  uint64_t sample_period_bytes; /* of the first target with a heap profile; 0 none */
  uint64_t dropped_records, truncated_stacks, stack_overflows;
  double profile_from_ms, profile_to_ms; /* the window of the CPU and wall samples below; equal: none */
  uint32_t cpu_hz, wall_hz;              /* as asked for; 0: off */
  double span_from_ms, span_to_ms;       /* the window of the spans, in whole seconds */
  uint64_t mark_names_lost, spans_lost;  /* since the run began: what was not counted, for want of room */

  lupe_snapshot_column strings;   /* char */
  lupe_snapshot_column targets;   /* lupe_snapshot_target */
  lupe_snapshot_column modules;   /* lupe_snapshot_module */
  lupe_snapshot_column functions; /* lupe_snapshot_function */
  lupe_snapshot_column frames;    /* lupe_snapshot_frame: each distinct one once */
  lupe_snapshot_column classes;   /* lupe_snapshot_size_class, summed over the targets */
  lupe_snapshot_column memory;    /* lupe_memory_figures: the series, summed over the targets, oldest first */

  lupe_snapshot_column tick_time_ms;     /* double */
  lupe_snapshot_column tick_inuse_space; /* double: sum of the profile */
  lupe_snapshot_column tick_allocated;   /* double: allocated then, less cached and sampling; 0 unknown */

  lupe_snapshot_column stack_first;  /* uint32_t, stacks + 1: where a stack's frames begin in stack_frames */
  lupe_snapshot_column stack_frames; /* uint32_t: index into frames, leaf first */
  lupe_snapshot_column stack_site;   /* uint32_t: index into sites; UINT32_MAX: of CPU or wall samples only */
  lupe_snapshot_column stack_inuse_space, stack_inuse_objects; /* double: live */
  lupe_snapshot_column stack_alloc_space, stack_alloc_objects; /* double: since the start */

  lupe_snapshot_column site_function;                        /* uint32_t: index into functions */
  lupe_snapshot_column site_inuse_space, site_inuse_objects; /* double */
  lupe_snapshot_column site_alloc_space, site_alloc_objects; /* double */
  lupe_snapshot_column site_first_seen_ms;                   /* double: first profile with it live, 0 never */
  lupe_snapshot_column site_last_grown_ms;   /* double: last profile in which its bytes grew, 0 never */
  lupe_snapshot_column site_history_space;   /* float, sites x tick_count, one site after the other */
  lupe_snapshot_column site_history_objects; /* float, likewise */
  lupe_snapshot_column site_history_alloc;   /* float, likewise: bytes allocated since the start; 0 unknown */
  lupe_snapshot_column site_top_stack;       /* uint32_t: its stack with most inuse_space */

  lupe_snapshot_column inlines; /* lupe_snapshot_inline */
  lupe_snapshot_column threads; /* lupe_snapshot_thread */

  /* The samples of the window, summed by stack, thread and state. */
  lupe_snapshot_column sample_stack; /* uint32_t: index into stacks; UINT32_MAX: none (LUPE_THREAD_RUNNING) */
  lupe_snapshot_column sample_thread; /* uint32_t: index into threads */
  lupe_snapshot_column sample_state;  /* uint32_t: lupe_thread_state of record.h, with what belongs to it */
  lupe_snapshot_column sample_count;  /* double: how many were taken */
  lupe_snapshot_column sample_ns;     /* double: CPU or wall time that they stand for */

  lupe_snapshot_column spans;        /* lupe_snapshot_span: each name once per target */
  lupe_snapshot_column span_buckets; /* double: counts, LUPE_SNAPSHOT_SPAN_BUCKETS for each span, in order */
  lupe_snapshot_column span_totals;  /* lupe_snapshot_span_total: the first names to come, in that order */

  lupe_snapshot_column proofs;     /* lupe_snapshot_proof: at most one per target, in their order */
  lupe_snapshot_column proof_rows; /* lupe_snapshot_proof_row, by proof and stack ascending */
} lupe_snapshot_header;

#endif

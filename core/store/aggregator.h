/* aggregator.h -- all that is known of one run: its processes ("targets"), their heap profiles on one
 * shared timeline, their CPU and wall samples of the last ten minutes, their memory figures; and the
 * snapshots made of that.
 *
 * Threads. "Loop" functions are short (they take `lock`, held for microseconds). "Pool" functions may
 * take long; they take `work`, so that one of them runs at a time, whoever calls. Order: work, lock.
 * A round: begin_round (loop), one ingest per target as its dump comes (pool), end_round (pool).
 * Never below NaN or infinity: what is unknown is 0. */
#ifndef LUPE_STORE_AGGREGATOR_H
#define LUPE_STORE_AGGREGATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/snapshot.h"
#include "core/store/snapshot_layout.h"
#include "core/wire/message.h"

enum {
  LUPE_TARGETS_LIVE_MAX = 4096, /* further ones are refused */
  LUPE_TARGETS_DEAD_MAX = 64,   /* of which the last profile is kept; the oldest goes first */
  LUPE_TARGET_ALL_LIVE = 0,     /* in place of a pid: all live targets, merged */
  LUPE_TARGET_ALL = -1,         /* ... and the dead ones: for the report at exit */
  LUPE_TARGET_TREE = 1 << 30,   /* added to a program's `root_pid`: its live processes, or if it has none any
                                   more those that it had; only lupe_aggregator_snapshot takes it */
  LUPE_WINDOW_MS = 60000,       /* of CPU and wall samples, where nothing else is asked for */
  LUPE_WINDOW_MAX_MS = 600000,  /* how long they are kept */
};

typedef struct lupe_aggregator lupe_aggregator;
typedef struct lupe_target lupe_target;

typedef struct lupe_aggregator_options {
  uint32_t heap_interval_ms; /* between two rounds at first; 0 = 1000 */
  uint32_t series_capacity;  /* rows of memory figures kept; 0 = 1000 */
  size_t stack_bytes;        /* bound of the stack table; 0 = 24 MiB */
  double started_ms;         /* Unix time at which the run began */
  uint32_t cpu_hz, wall_hz;  /* what the agents are asked for at first; 0: off */
  bool endless; /* a daemon's: programs that have nothing to do with each other, for as long as the machine
                   runs. The interval is then doubled no further than 64 s, the older profiles go */
} lupe_aggregator_options;

typedef struct lupe_target_info {
  int32_t pid, ppid;
  uint64_t start_ticks; /* tells a reused pid apart */
  uint32_t heap_state;  /* lupe_heap_state */
  uint32_t forked;      /* of lupe_hello: a fork without exec of a target */
  uint64_t sample_period_bytes;
  double time_ms;                   /* when it connected */
  const char *name;                 /* the program's file name; copied, cut at 63 bytes */
  const char *allocator;            /* copied, cut at 31 bytes */
  const uint64_t *memory_functions; /* of lupe_hello: LUPE_MEMORY_FUNCTIONS addresses, copied; NULL: none */
} lupe_target_info;

/* How the sampling of a process goes, from its agent's counters. */
typedef struct lupe_target_sampling {
  uint32_t cpu_state, wall_state;           /* lupe_sampling_state */
  uint32_t threads_untimed, threads_unread; /* threads without CPU samples; without wall samples */
} lupe_target_sampling;

/* One CPU or wall sample: the fields of lupe_record, and when. */
typedef struct lupe_thread_sample {
  uint32_t kind; /* LUPE_RECORD_CPU or LUPE_RECORD_WALL */
  int32_t tid;
  uint32_t weight, state;
  union {
    uint32_t switches, period_ns;
  };
  double time_ms; /* Unix */
} lupe_thread_sample;

typedef struct lupe_target_status {
  int32_t pid, ppid;
  uint32_t heap_state;
  uint32_t live; /* 0 or 1 */
  uint32_t left; /* 1: its agent said that it exits */
  uint64_t start_ticks, sample_period_bytes;
  /* The program that it belongs to: the first of its ancestors that connected, or itself. */
  int32_t root_pid;
  uint64_t root_ticks;      /* when that started */
  double first_ms, last_ms; /* connected; last heap profile, or when it was last seen */
  uint64_t pending_drops;   /* samples that found no room between two profiles */
  uint64_t bad_profiles;    /* dumps that were refused */
  uint64_t sample_drops;    /* CPU and wall samples that found no room */
  lupe_target_sampling sampling;
  char name[64];
  char allocator[32];
} lupe_target_status;

typedef enum lupe_wrapper_kind {
  LUPE_WRAPPER_NAME = 0,   /* the function's whole name */
  LUPE_WRAPPER_PREFIX = 1, /* how the function's name begins */
  LUPE_WRAPPER_MODULE = 2, /* how the module's file name (without its folder) begins */
} lupe_wrapper_kind;

typedef struct lupe_wrapper {
  uint32_t kind; /* lupe_wrapper_kind */
  const char *text;
} lupe_wrapper;

/* Loop. LUPE_ENOMEM. NULL options: all defaults. */
lupe_status lupe_aggregator_create(lupe_aggregator **out, const lupe_aggregator_options *options);
/* No other call may be running or follow. Targets and what they hold go with it, snapshots do not. */
void lupe_aggregator_free(lupe_aggregator *a);

/* Which functions are never a site: a stack's site is the first function, from the leaf, that is not a
 * wrapper, else its outermost one; but the innermost tag, where it has tags. Pool (may wait for a running
 * job). Copied; at most 4096 of 255 bytes each, LUPE_EINVAL beyond or for an unknown kind. Replaces the
 * former list. */
lupe_status lupe_aggregator_set_wrappers(lupe_aggregator *a, const lupe_wrapper *wrappers, size_t count);

/* -- targets (loop) --------------------------------------------------------------------------- */

/* A process connected. A dead target with the same pid, start_ticks and name is revived: a program that
 * lost its socket and came back. LUPE_ENOMEM past LUPE_TARGETS_LIVE_MAX; LUPE_EINVAL for pid <= 0.
 * The target belongs to the aggregator; the caller uses it until lupe_target_died. */
lupe_status lupe_aggregator_add(lupe_aggregator *a, const lupe_target_info *info, lupe_target **out);
/* It ended or disconnected. Its last profile stays for the report at exit, until LUPE_TARGETS_DEAD_MAX
 * later ones died. `t` is not to be used afterwards, except by a pool job that retained it before. */
void lupe_target_died(lupe_target *t, double time_ms);
/* It exits, as its agent said; its death follows. */
void lupe_target_leaves(lupe_target *t);
/* Any thread. A job that is queued to the pool holds a reference meanwhile. */
lupe_target *lupe_target_retain(lupe_target *t);
void lupe_target_release(lupe_target *t);

/* One sampled allocation from the ring: return addresses, leaf first. Cheap: it is translated and
 * interned by the next ingest. `weight`: samples it stands for. Bounded; drops are counted. */
void lupe_target_sample(lupe_target *t, const uint64_t *addresses, size_t depth, uint32_t weight);
/* One CPU or wall sample: its first address was interrupted, the others are return addresses. Cheap: it is
 * translated and summed by the next absorb, and only then seen by snapshots. Bounded; drops are counted. */
void lupe_target_thread_sample(lupe_target *t, const lupe_thread_sample *s, const uint64_t *addresses,
                               size_t depth);
/* An unknown state is taken as LUPE_SAMPLING_OFF. */
void lupe_target_set_sampling(lupe_target *t, const lupe_target_sampling *sampling);
/* Takes `fd` over: its /proc/PID/maps, or a copy of that, from which the next absorbs tell addresses.
 * LUPE_EINVAL: it is something else (and closed). */
lupe_status lupe_target_set_maps(lupe_target *t, int fd);
/* Takes `fd` over: the segment in which it marks its work (marks.h), which the next absorbs read. The one
 * that it has already may come again. LUPE_ECORRUPT, LUPE_EVERSION: it is no such thing (and closed);
 * LUPE_ENOMEM, LUPE_EIO. */
lupe_status lupe_target_set_marks(lupe_target *t, int fd);
/* The newest reading of its memory and CPU (copied). */
void lupe_target_figures(lupe_target *t, const lupe_memory_figures *figures);
/* Live counts per size class (copied; at most LUPE_SIZE_CLASSES_MAX, more are cut). */
void lupe_target_classes(lupe_target *t, const lupe_snapshot_size_class *classes, size_t count);
/* Every memory interval: appends each live target's newest figures to its series, and the sum to the
 * run's. In the sums, CPU time and faults of targets that died stay, so that they never go back. */
void lupe_aggregator_record_memory(lupe_aggregator *a, double time_ms);
/* What the agents are asked for from now on; 0: off. Snapshots hold no samples of what is off, and none from
 * before a kind was switched on: they would not be of the same time as the others. */
void lupe_aggregator_set_rates(lupe_aggregator *a, uint32_t cpu_hz, uint32_t wall_hz, double time_ms);
/* The agents' losses, summed by the caller; they go into each snapshot. */
void lupe_aggregator_set_losses(lupe_aggregator *a, uint64_t dropped_records, uint64_t truncated_stacks);

/* -- questions (any thread, short; `pid`: one target, live or dead, or LUPE_TARGET_ALL_LIVE) ---- */

/* Fills at most `capacity` rows, live ones first, each group oldest first; returns how many there are. */
size_t lupe_aggregator_targets(lupe_aggregator *a, lupe_target_status *rows, size_t capacity);
/* Newest figures, summed over live targets where pid is 0. LUPE_ENOENT: no such target or no figures. */
lupe_status lupe_aggregator_memory(lupe_aggregator *a, int32_t pid, lupe_memory_figures *out);
/* The newest `capacity` rows of the series, oldest first. LUPE_ENOENT: no such target. */
lupe_status lupe_aggregator_series(lupe_aggregator *a, int32_t pid, lupe_memory_figures *rows,
                                   size_t capacity, size_t *out_count);
uint32_t lupe_aggregator_heap_interval_ms(lupe_aggregator *a); /* between two rounds, now */
uint64_t lupe_aggregator_stack_overflows(lupe_aggregator *a);

/* -- CPU and wall samples ---------------------------------------------------------------------- */

/* Loop. Whether there is something for absorb to do. */
bool lupe_aggregator_unabsorbed(lupe_aggregator *a);
/* Pool. Takes in what came: translates and sums the samples of all targets, and reads the names of their
 * threads. Snapshots do so too. */
void lupe_aggregator_absorb(lupe_aggregator *a);
/* Pool. Names a thread of a target that has samples, as absorb does from /proc. Cut at 15 bytes. */
void lupe_target_name_thread(lupe_target *t, int32_t tid, const char *name);

/* -- heap profiles ---------------------------------------------------------------------------- */

/* Loop. Opens a round at `time_ms` (must be later than the last one's; else it is moved 1 ms past it);
 * *out_tick names it. LUPE_EAGAIN while one is open. */
lupe_status lupe_aggregator_begin_round(lupe_aggregator *a, double time_ms, uint64_t *out_tick);

/* Pool. Reads a heap_v2 dump from `fd` (borrowed; by pread, from 0 to its end), and takes it as the
 * target's profile of `tick`. A tick that is not open any more (a late dump, or the one at exit, where
 * 0 is fine): the target's newest profile is replaced. All or nothing: on an error the target keeps what it
 * had. LUPE_ECORRUPT: not a dump (counted); *why (may be NULL) then says where and what was expected: the
 * target's text, until its next ingest or last release. LUPE_ENOMEM; LUPE_EIO (errno). */
lupe_status lupe_target_ingest(lupe_target *t, int fd, uint64_t tick, const char **why);

/* Pool. Closes the round: targets without a dump in it keep their last values. When 60 ticks are kept,
 * every second one is dropped and the interval doubles. No-op where none is open. */
void lupe_aggregator_end_round(lupe_aggregator *a);

/* Pool. Absorbs and symbolizes what is new, and builds a snapshot of one target, of all live ones, of all
 * (LUPE_TARGET_ALL: without forked children that ended long before the others), or of one program
 * (LUPE_TARGET_TREE: its time line then begins with it). The caller releases it.
 * CPU and wall samples are those of the last `window_ms` (0: LUPE_WINDOW_MS), as far back as they are kept.
 * LUPE_ENOENT: no such target; LUPE_ENOMEM; LUPE_EIO (errno). No heap profile yet is no error: the heap
 * columns are empty then. `time_ms` is when it is built. */
lupe_status lupe_aggregator_snapshot(lupe_aggregator *a, int32_t pid, double time_ms, uint32_t window_ms,
                                     lupe_snapshot **out);

/* -- leak proofs ------------------------------------------------------------------------------ */

/* Pool. Takes in what came of one: its outcome, which replaces that of the last one, and where it is complete
 * the block in `fd` (borrowed; -1: none), whose stacks the target's mappings translate. One that is not
 * complete leaves the findings of an earlier one as they are. All targets together keep a bounded number of
 * rows; beyond, the oldest proof is forgotten, outcome and all. All or nothing. LUPE_ECORRUPT: the reply or
 * its block is malformed, and `why` (always terminated) says how; LUPE_ENOMEM, LUPE_EIO. */
lupe_status lupe_target_take_proof(lupe_target *t, const lupe_proof_reply *reply, int fd, char *why,
                                   size_t why_bytes);

/* -- lines ------------------------------------------------------------------------------------ */

typedef enum lupe_lines_sought {
  LUPE_LINES_WANTED, /* some thousand, if there are frames among them that matter */
  LUPE_LINES_SOME,   /* some thousand */
  LUPE_LINES_ALL,    /* as many as there is time for */
} lupe_lines_sought;

/* Pool, beside all other calls: files are read without `work`. Looks for files, lines and inlined calls of
 * the frames that have none yet, until `deadline_ns` (CLOCK_MONOTONIC): first for those that matter, which
 * have a share of a snapshot's samples, or belong to its largest sites. The next snapshots have them.
 * LUPE_ENOENT: there was nothing to look for; LUPE_ENOMEM. */
lupe_status lupe_aggregator_find_lines(lupe_aggregator *a, lupe_lines_sought sought, int64_t deadline_ns);

/* How far that is. Pool (may wait for a running job). */
typedef struct lupe_line_figures {
  uint64_t located;   /* frames with a line */
  uint64_t open;      /* frames that were not looked for yet */
  uint64_t too_large; /* files with more debug information than is read */
  uint64_t damaged;   /* files whose debug information could not be read */
  uint64_t too_slow;  /* files that were given up, for the time that they take */
} lupe_line_figures;
void lupe_aggregator_line_figures(lupe_aggregator *a, lupe_line_figures *out);

#endif

/* run.h -- the insides of lupe_aggregator and lupe_target, for the files that make up the aggregator:
 * aggregator.c (targets and figures), eviction.c, heap_rounds.c (profiles), absorb.c (CPU and wall samples),
 * target_proof.c, target_marks.c, sweep.c and snapshot_builder.c. Nobody else includes it.
 *
 * `lock` is held for moments; `work` by one pool job at a time, for as long as it takes, and taken first.
 * Targets are in a list: added at its end under `lock`, removed under `work` and `lock`; so whoever
 * holds either may walk it, reading `next` under `lock`. */
#ifndef LUPE_STORE_RUN_H
#define LUPE_STORE_RUN_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/store/address_map.h"
#include "core/store/aggregator.h"
#include "core/store/frame_names.h"
#include "core/store/heap_profile.h"
#include "core/store/marks.h"
#include "core/store/module_table.h"
#include "core/store/pending_samples.h"
#include "core/store/proof.h"
#include "core/store/record_queue.h"
#include "core/store/sample_log.h"
#include "core/store/series.h"
#include "core/store/span_log.h"
#include "core/store/stack_table.h"
#include "core/store/text_store.h"
#include "core/wire/message.h"

enum { LUPE__WHY_BYTES = 192 };

/* The leak proofs of one target. */
typedef struct lupe__target_proof {
  bool answered; /* there is a `newest` */
  bool proven;   /* there is a `complete` */
  lupe_proof_reply newest;
  lupe_proof complete; /* the newest one that is, whatever came of later ones */
} lupe__target_proof;

/* All spans of one name since the run began. */
typedef struct lupe__span_total {
  double count, total_ns;
} lupe__span_total;

struct lupe_target {
  lupe_aggregator *aggregator;
  atomic_uint references; /* the list's, and the jobs' */
  lupe_target *next;      /* lock */

  lupe_target_status status; /* lock */
  uint32_t number;           /* in the sample log; never given out again */
  uint32_t forked;
  double died_ms;                    /* lock */
  bool superseded;                   /* lock; its process runs another program now */
  uint64_t sampling_bytes;           /* lock; of the newest profile */
  bool has_figures;                  /* lock */
  lupe_memory_figures figures;       /* lock */
  lupe_snapshot_size_class *classes; /* lock */
  size_t class_count;                /* lock */
  lupe_series *series;               /* lock */
  lupe_pending_samples pending;      /* lock */
  lupe_record_queue queue;           /* lock */
  int new_maps;                      /* lock; a descriptor that came since the last absorb, or -1 */
  lupe_marks_reader *new_marks;      /* lock; a segment that came since then, or NULL */

  lupe_heap_profile *profile; /* work; NULL before the first dump */
  lupe_address_map *map;      /* work; NULL before the first dump or absorb */
  int maps;                   /* work; where the map is read from as the process goes on, or -1 */
  double maps_read_ms;        /* work; when that was last done */
  double maps_pause_ms;       /* work; how long to wait with the next reading */
  uint64_t memory_functions[LUPE_MEMORY_FUNCTIONS]; /* work; 0: unknown, or passed on */
  uint64_t delivered;                               /* work; the last tick it gave a dump for */
  lupe__target_proof proof;                         /* work */
  lupe_marks_reader *marks;                         /* work; NULL: none came, or all of it is read */
  uint32_t *mark_numbers; /* work; of the run, by the process's; 0: not asked for yet. NULL: of none */
  uint64_t names_lost, spans_lost; /* work; as `marks` had them last */
  bool places_unknown;             /* work; a function that spans were begun in was not found */
  char why[LUPE__WHY_BYTES];       /* work */
};

/* What the agents are asked for. */
typedef struct lupe__rates {
  uint32_t cpu_hz, wall_hz;           /* 0: off */
  double cpu_since_ms, wall_since_ms; /* when each was switched on last */
} lupe__rates;

struct lupe_aggregator {
  pthread_mutex_t work, lock;
  pthread_mutex_t lines; /* held while lines are looked for; taken before `work` */
  lupe_stack_table *stacks;
  lupe_module_table *modules;
  lupe_frame_names *names;              /* work */
  lupe_sample_log *samples;             /* work */
  lupe_span_log *spans;                 /* work */
  lupe_text_store mark_names;           /* work; of all processes; numbers are never given out again */
  lupe__span_total *span_totals;        /* work; by number of the name */
  uint32_t span_total_room;             /* work */
  uint64_t mark_names_lost, spans_lost; /* work; since the run began */
  uint32_t names_left;                  /* work; of threads, to read in this absorb */
  size_t swept_bytes;                   /* work; of the stack table after the last sweep */
  uint64_t swept_overflows;             /* work; of the stack table then */
  int64_t swept_from;                   /* work; how far the sample log reached back then */
  lupe__rates rates;                    /* lock */
  double started_ms;
  bool endless; /* see lupe_aggregator_options */
  uint32_t series_capacity;

  lupe_target *first, *last;                  /* lock */
  size_t live_count, dead_count;              /* lock */
  lupe_series *series;                        /* lock; of the sums */
  size_t series_rows;                         /* lock; that targets have memory for */
  lupe_memory_figures retired;                /* lock; CPU and faults of the dead */
  uint32_t next_number;                       /* lock; of targets */
  size_t queued_bytes;                        /* lock; in the queues of all targets */
  bool new_maps;                              /* lock; some target has some */
  bool marked;                                /* lock; some target has marks, or did when it ended */
  uint64_t dropped_records, truncated_stacks; /* lock */
  uint32_t heap_interval_ms;                  /* lock */
  uint64_t generation, next_tick, open_tick;  /* lock; open_tick 0: none is open */
  double open_ms, last_ms;                    /* lock; of the open round, of the last one begun */

  double tick_ms[LUPE_SNAPSHOT_TICKS_MAX]; /* work; the timeline, oldest first */
  size_t ticks;                            /* work */
  bool round_delivered;                    /* work; some target gave a dump in the open round */
};

/* The next target of the list, the first one after NULL; NULL at its end. Caller holds `work`. */
lupe_target *lupe__target_next(lupe_aggregator *a, lupe_target *t);
/* Forgets the dead that are too many; what samples they left go to the nearest ancestor. Caller holds `work`.
 */
void lupe__targets_evict(lupe_aggregator *a);
/* Likewise, for the loop: some of them, and not while a job runs. Caller holds nothing. */
void lupe__targets_evict_some(lupe_aggregator *a);
/* The one that goes on with what `t` left; NULL. Caller holds `lock`. */
lupe_target *lupe__target_parent(const lupe_aggregator *a, const lupe_target *t);
/* Adds one reading to a sum, whose time becomes the later one. */
void lupe__figures_add(lupe_memory_figures *sum, const lupe_memory_figures *f);
/* Sum of the newest figures over live targets; false where there is none. Caller holds `lock`. */
bool lupe__memory_sum(const lupe_aggregator *a, lupe_memory_figures *out);
/* A copy. Caller holds nothing but `work`. */
lupe__rates lupe__rates_now(lupe_aggregator *a);
/* The target of a pid, live before dead, newest first; NULL. Caller holds `lock`. */
lupe_target *lupe__target_find(const lupe_aggregator *a, int32_t pid);
/* Adds classes into `rows` (sorted by size, *count of them, room for `capacity`). */
void lupe__classes_add(lupe_snapshot_size_class *rows, size_t *count, size_t capacity,
                       const lupe_snapshot_size_class *more, size_t more_count);
/* Moves the pending samples into the profile, if there is one. Caller holds `work`. */
void lupe__target_absorb(lupe_target *t);
/* Translates and sums what is queued, of one target and of all. Caller holds `work`. */
void lupe__target_absorb_records(lupe_target *t);
void lupe__absorb_records(lupe_aggregator *a);
/* Absorbs, and reads the process's mappings anew where they may have changed, so that `map` is there and
 * tells the addresses of this moment. Caller holds `work`. LUPE_ENOMEM. */
lupe_status lupe__target_read_maps(lupe_target *t);
/* Takes over the segment of marks that came, if one did; reads what spans have ended, and where the process
 * is not live lets go of it. Caller holds `work`. */
void lupe__target_take_marks(lupe_target *t);
void lupe__target_read_marks(lupe_target *t, bool live, double now_ms);
/* A lupe_tag_frame_fn; arg is the target. Caller holds `work`. */
lupe_frame lupe__target_tag_frame(void *arg, uint32_t number);
/* Makes `map`, unless it is there. Caller holds `work`. LUPE_ENOMEM. */
lupe_status lupe__target_make_map(lupe_target *t);
/* Sets ids[id] for the stacks that leak proofs refer to; and after the sweep gives them their new ids. Caller
 * holds `work`. */
void lupe__proofs_mark_stacks(lupe_aggregator *a, uint32_t *ids);
void lupe__proofs_renumber_stacks(lupe_aggregator *a, const uint32_t *ids);

/* Removes stacks that nothing refers to any more, where there are many: gives all others new ids, so the
 * caller must keep none across it. Caller holds `work`; some milliseconds, not for the loop. */
void lupe__stacks_sweep(lupe_aggregator *a);

/* The window of a snapshot: seconds of the sample log, and the same in Unix milliseconds; equal ones where no
 * samples are taken at all. */
typedef struct lupe__sample_seconds {
  int64_t from, to; /* `to` is behind the last one */
  double from_ms, to_ms;
} lupe__sample_seconds;
/* The last `window_ms` (0: LUPE_WINDOW_MS) before `time_ms`, in whole seconds but for the last, as far as
 * samples reach, and of all kinds that are on. Caller holds `work`. */
void lupe__sample_window(const lupe_aggregator *a, const lupe__rates *rates, double time_ms,
                         uint32_t window_ms, lupe__sample_seconds *out);

/* Likewise of the spans, which do not depend on what is sampled. Caller holds `work`. */
void lupe__span_window(const lupe_aggregator *a, double time_ms, uint32_t window_ms,
                       lupe__sample_seconds *out);

/* Whose samples belong in a snapshot: the number of a target in the sample log, and the row of the snapshot's
 * targets that they are shown with. */
typedef struct lupe__sample_owner {
  uint32_t number, row;
} lupe__sample_owner;
/* For a snapshot of the targets `rows`, in the order of the list. `merged`: with the samples of all other
 * processes of the run, or with `tree` of the same program, shown with the nearest ancestor that has a row:
 * the time that they used is spent. *out is malloc'd, by number ascending. Caller holds `work`. LUPE_ENOMEM.
 */
lupe_status lupe__sample_owners(lupe_aggregator *a, lupe_target *const *rows, size_t count, bool merged,
                                bool tree, lupe__sample_owner **out, size_t *out_count);

#endif

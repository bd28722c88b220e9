/* run.h -- the insides of lupe_aggregator and lupe_target, for the files that make up the aggregator:
 * aggregator.c (targets and figures), heap_rounds.c (profiles) and snapshot_builder.c. Nobody else includes
 * it.
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
#include "core/store/module_table.h"
#include "core/store/pending_samples.h"
#include "core/store/series.h"
#include "core/store/stack_table.h"

enum { LUPE__WHY_BYTES = 192 };

struct lupe_target {
  lupe_aggregator *aggregator;
  atomic_uint references; /* the list's, and the jobs' */
  lupe_target *next;      /* lock */

  lupe_target_status status; /* lock */
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

  lupe_heap_profile *profile; /* work; NULL before the first dump */
  lupe_address_map *map;      /* work; likewise */
  uint64_t delivered;         /* work; the last tick it gave a dump for */
  char why[LUPE__WHY_BYTES];  /* work */
};

struct lupe_aggregator {
  pthread_mutex_t work, lock;
  lupe_stack_table *stacks;
  lupe_module_table *modules;
  lupe_frame_names *names; /* work */
  double started_ms;
  uint32_t series_capacity;

  lupe_target *first, *last;                  /* lock */
  size_t live_count, dead_count;              /* lock */
  lupe_series *series;                        /* lock; of the sums */
  size_t series_rows;                         /* lock; that targets have memory for */
  lupe_memory_figures retired;                /* lock; CPU and faults of the dead */
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
/* Forgets the dead that are too many. Caller holds `work`. */
void lupe__targets_evict(lupe_aggregator *a);
/* Sum of the newest figures over live targets; false where there is none. Caller holds `lock`. */
bool lupe__memory_sum(const lupe_aggregator *a, lupe_memory_figures *out);
/* The target of a pid, live before dead, newest first; NULL. Caller holds `lock`. */
lupe_target *lupe__target_find(const lupe_aggregator *a, int32_t pid);
/* Adds classes into `rows` (sorted by size, *count of them, room for `capacity`). */
void lupe__classes_add(lupe_snapshot_size_class *rows, size_t *count, size_t capacity,
                       const lupe_snapshot_size_class *more, size_t more_count);
/* Moves the pending samples into the profile, if there is one. Caller holds `work`. */
void lupe__target_absorb(lupe_target *t);

#endif

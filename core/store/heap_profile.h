/* heap_profile.h -- what one process's heap looks like: a row per stack, and the rows' history.
 * Rows are found by stack id and are never removed: a stack that vanished has zeroes from then on. The
 * history is a column of floats per tick of the run's timeline, which the aggregator keeps and
 * thins for all targets alike. A tick in which this process gave no profile shares its last column.
 * Owner: one target. Thread: one at a time (the aggregator's `work`). */
#ifndef LUPE_STORE_HEAP_PROFILE_H
#define LUPE_STORE_HEAP_PROFILE_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/snapshot.h"

#define LUPE_HISTORY_MAX 1e24 /* no sum of these over stacks and processes leaves a float */

typedef struct lupe_heap_profile lupe_heap_profile;

typedef struct lupe_heap_row {
  uint32_t stack;
  double inuse_space, inuse_objects;
  double mean_bytes;    /* of an object, when it was last live; 0 never was */
  double samples;       /* allocations seen by the hook since the start */
  double first_seen_ms; /* first profile with it live; 0 never was */
} lupe_heap_row;

/* What one dump says of one stack. */
typedef struct lupe_heap_entry {
  uint32_t stack;
  double inuse_space, inuse_objects; /* corrected */
} lupe_heap_entry;

/* Values of a row in a column: what lived then, and its samples since the start. */
enum { LUPE_HEAP_SPACE, LUPE_HEAP_OBJECTS, LUPE_HEAP_SAMPLES, LUPE_HEAP_VALUES };

/* One tick: LUPE_HEAP_VALUES of each of the first `rows` rows of the profile. Rows beyond are 0. */
typedef struct lupe_heap_column {
  uint32_t users; /* ticks that share it */
  uint32_t rows;
  double sum_space;
  double allocated_bytes; /* jemalloc's stats.allocated; 0 unknown */
  float values[];
} lupe_heap_column;

lupe_status lupe_heap_profile_create(lupe_heap_profile **out);
void lupe_heap_profile_free(lupe_heap_profile *p); /* NULL is a no-op */

/* Takes a dump's entries (several of one stack add up) as the present state. Another period than before
 * is another epoch: the history is forgotten, since it must not be compared. LUPE_ENOMEM: unchanged. */
lupe_status lupe_heap_profile_update(lupe_heap_profile *p, const lupe_heap_entry *entries, size_t count,
                                     uint64_t period_bytes, double time_ms);
/* Adds sampled allocations of a stack. LUPE_ENOMEM: not added. */
lupe_status lupe_heap_profile_sample(lupe_heap_profile *p, uint32_t stack, double samples);

/* Writes the present state as the column of tick `tick` (the newest one, or one behind it), replacing what
 * was there. LUPE_ENOMEM: the tick repeats the former column. */
lupe_status lupe_heap_profile_record(lupe_heap_profile *p, size_t tick, double allocated_bytes);
/* Tick `tick` has what the tick before it had. */
void lupe_heap_profile_repeat(lupe_heap_profile *p, size_t tick);
/* Keeps ticks 1, 3, 5, ... of `count`. */
void lupe_heap_profile_thin(lupe_heap_profile *p, size_t count);
/* Drops the `gone` oldest of `count` ticks; the others move to their place. */
void lupe_heap_profile_drop_oldest(lupe_heap_profile *p, size_t count, size_t gone);

/* Stack `id` is known as ids[id] from now on; no two have the same new id. */
void lupe_heap_profile_renumber(lupe_heap_profile *p, const uint32_t *ids);

const lupe_heap_row *lupe_heap_profile_rows(const lupe_heap_profile *p, size_t *out_count);
/* NULL: nothing was known of the process then. */
const lupe_heap_column *lupe_heap_profile_column(const lupe_heap_profile *p, size_t tick);
uint64_t lupe_heap_profile_period(const lupe_heap_profile *p); /* 0: no dump yet */

/* Bytes that one sample of a row stands for: as many as corrects it at the row's mean object size, or one
 * period where no object was ever seen live. */
double lupe_heap_row_sample_bytes(const lupe_heap_row *row, uint64_t period_bytes);
/* Bytes and objects allocated at a row since the start, from its samples (objects that were never seen live
 * are unknown: 0). Never less than what is live. */
void lupe_heap_row_allocations(const lupe_heap_row *row, uint64_t period_bytes, double *out_space,
                               double *out_objects);

#endif

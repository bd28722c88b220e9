/* span_log.h -- what spans added up to in the last ten minutes, by second: sparse, as most durations of one
 * name fall into few buckets. Seconds are Unix time; targets are known by the number that the aggregator gave
 * them, names by a number of the caller's.
 * Owner: the aggregator. Thread: one at a time (its `work`). Bounded: LUPE_SPAN_LOG_BYTES; when they are full
 * the oldest seconds go, and lupe_span_log_from tells how far it still reaches. */
#ifndef LUPE_STORE_SPAN_LOG_H
#define LUPE_STORE_SPAN_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/marks.h"
#include "core/store/sample_log.h"
#include "core/store/stack_table.h"

enum {
  LUPE_SPAN_LOG_BYTES = 16 << 20,
  LUPE_SPAN_SUMS_MAX = 8192, /* of one question */
};

typedef struct lupe_span_log lupe_span_log;

typedef struct lupe_span_key {
  uint32_t target, name;
  lupe_frame place; /* in the function that begins them; LUPE_FRAME_UNKNOWN: not known */
} lupe_span_key;

/* Whose spans are asked for, and the row that they are shown with. */
typedef struct lupe_span_owner {
  uint32_t number, row;
} lupe_span_owner;

typedef struct lupe_span_sum {
  uint32_t row, name;
  lupe_frame place; /* the newest that is known */
  double count, total_ns, max_ns;
  double buckets[LUPE_SPAN_BUCKETS];
} lupe_span_sum;

lupe_status lupe_span_log_create(lupe_span_log **out);
void lupe_span_log_free(lupe_span_log *l); /* NULL is a no-op */

/* Adds what ended in that second (change->name is not looked at). What is older than the log reaches is taken
 * as of its oldest second. LUPE_ENOMEM: it is not in the log. */
lupe_status lupe_span_log_add(lupe_span_log *l, int64_t second, const lupe_span_key *key,
                              const lupe_span_change *change);

/* What ended in seconds `from` <= s < `to`, by row and name, of the owners (by number ascending). Past
 * LUPE_SPAN_SUMS_MAX what is further of a name is added to the first row that has it, and left out where none
 * has. *out is malloc'd, NULL where there are none; by row and name ascending. LUPE_ENOMEM. */
lupe_status lupe_span_log_sum(const lupe_span_log *l, int64_t from, int64_t to, const lupe_span_owner *owners,
                              size_t owner_count, lupe_span_sum **out, size_t *out_count);

/* All spans of each target `from` are target `to`'s from now on. */
void lupe_span_log_hand_over(lupe_span_log *l, const lupe_sample_heir *heirs, size_t count);
/* From this second on the log is whole; INT64_MIN before anything had to go. */
int64_t lupe_span_log_from(const lupe_span_log *l);
size_t lupe_span_log_bytes(const lupe_span_log *l);

#endif

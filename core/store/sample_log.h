/* sample_log.h -- CPU and wall samples of the last ten minutes, by second and summed within each.
 * A second is a Unix time (lupe_unix_ms) in whole seconds. Targets are known by the number that the
 * aggregator gave them, threads by numbers of the log's own; stacks by their id in the run's stack table.
 * Owner: the aggregator. Thread: one at a time (its `work`). Bounded: LUPE_SAMPLE_ROWS_MAX rows of 32 bytes;
 * when they are full the oldest seconds go, and lupe_sample_log_from tells how far it still reaches. */
#ifndef LUPE_STORE_SAMPLE_LOG_H
#define LUPE_STORE_SAMPLE_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

enum {
  LUPE_SAMPLE_ROWS_MAX = 1 << 18,
  LUPE_SAMPLE_THREADS_MAX = 1 << 16,
  LUPE_SAMPLE_NAME_BYTES = 16, /* the kernel's own bound of a thread's name */
};
#define LUPE_SAMPLE_NO_STACK UINT32_MAX

typedef struct lupe_sample_log lupe_sample_log;

typedef struct lupe_sample {
  uint32_t stack;    /* id in the stack table; LUPE_SAMPLE_NO_STACK: none */
  uint32_t thread;   /* number of a thread of this log */
  uint32_t state;    /* lupe_thread_state of record.h, with what belongs to it */
  uint32_t count;    /* samples taken; stays at its largest value rather than wrap, as the next two do */
  uint64_t ns;       /* CPU or wall time that they stand for */
  uint32_t switches; /* how often the thread was put on a core meanwhile */
} lupe_sample;

typedef struct lupe_sample_thread {
  uint32_t target;
  int32_t tid;
  char name[LUPE_SAMPLE_NAME_BYTES]; /* "" unknown; stays when the thread ends */
  double name_due_ms;                /* when whoever reads names should look again; 0 at first */
} lupe_sample_thread;

lupe_status lupe_sample_log_create(lupe_sample_log **out);
void lupe_sample_log_free(lupe_sample_log *l); /* NULL is a no-op */

/* The number of a thread, for samples of `second`. Numbers of threads that no row refers to are given out
 * again, so none is to be kept across calls of this function or of add. LUPE_ENOMEM: too many threads. */
lupe_status lupe_sample_log_thread(lupe_sample_log *l, uint32_t target, int32_t tid, int64_t second,
                                   uint32_t *out);
/* The thread of a number. Valid until the next call of lupe_sample_log_thread. */
lupe_sample_thread *lupe_sample_log_thread_at(const lupe_sample_log *l, uint32_t number);
uint32_t lupe_sample_log_threads(const lupe_sample_log *l); /* all numbers are below this */

/* Adds to the row of the same second, stack, thread and state. What is older than the log reaches, or finds
 * no room, is lost and counted. */
void lupe_sample_log_add(lupe_sample_log *l, int64_t second, const lupe_sample *s);

/* Writes 1 to ids[id] for each stack that has rows. */
void lupe_sample_log_mark_stacks(const lupe_sample_log *l, uint32_t *ids);
/* Stack `id` is known as ids[id] from now on; no two have the same new id. */
void lupe_sample_log_renumber_stacks(lupe_sample_log *l, const uint32_t *ids);

/* Rows of seconds `from` <= s < `to`, summed by stack, thread and state, of the targets with these numbers
 * (in any order). *out is malloc'd, NULL where there are none; in the order in which they first came.
 * LUPE_ENOMEM. */
lupe_status lupe_sample_log_sum(const lupe_sample_log *l, int64_t from, int64_t to, const uint32_t *targets,
                                size_t target_count, lupe_sample **out, size_t *out_count);

/* From this second on the log is whole; INT64_MIN before anything had to go. */
int64_t lupe_sample_log_from(const lupe_sample_log *l);
typedef struct lupe_sample_heir {
  uint32_t from, to; /* targets */
} lupe_sample_heir;
/* All samples of each target `from` are target `to`'s from now on, as threads of their own. Sorts `heirs`. */
void lupe_sample_log_hand_over(lupe_sample_log *l, lupe_sample_heir *heirs, size_t count);
size_t lupe_sample_log_rows(const lupe_sample_log *l);
uint64_t lupe_sample_log_lost(const lupe_sample_log *l); /* samples */

#endif

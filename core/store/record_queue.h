/* record_queue.h -- CPU and wall samples of one process as its agent recorded them, until a pool job
 * translates and sums them. Owner: a target, under the aggregator's lock. Bounded: LUPE_RECORD_QUEUE_BYTES.
 */
#ifndef LUPE_STORE_RECORD_QUEUE_H
#define LUPE_STORE_RECORD_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/store/aggregator.h"

enum { LUPE_RECORD_QUEUE_BYTES = 4 << 20 };

/* Embedded in its owner. All zero is an empty one; it owns its bytes. */
typedef struct lupe_record_queue {
  char *bytes;
  size_t used, room;
} lupe_record_queue;

typedef struct lupe_queued_record {
  lupe_thread_sample sample;
  size_t depth;
  uint64_t addresses[]; /* leaf first */
} lupe_queued_record;

/* Appends a copy; `depth` is at most LUPE_MAX_FRAMES. False: no room. */
bool lupe_record_queue_add(lupe_record_queue *q, const lupe_thread_sample *s, const uint64_t *addresses,
                           size_t depth);
/* The record at *at (0 at first), which moves on to the next; NULL at the end. */
const lupe_queued_record *lupe_record_queue_next(const lupe_record_queue *q, size_t *at);
/* Frees its bytes and leaves it empty. */
void lupe_record_queue_clear(lupe_record_queue *q);

#endif

/* pending_samples.h -- sampled allocations of one process between two heap profiles, counted by stack.
 * The loop only counts them here, by raw return addresses; the next ingest translates each distinct
 * stack once. Owner: a target, under the aggregator's lock. Bounded: LUPE_PENDING_STACKS_MAX; the
 * weight of what comes after that is kept as one sum. */
#ifndef LUPE_STORE_PENDING_SAMPLES_H
#define LUPE_STORE_PENDING_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

enum { LUPE_PENDING_STACKS_MAX = 65536 };

/* Embedded in its owner. All zero is an empty one; it owns its arrays. */
typedef struct lupe_pending_samples {
  struct lupe_pending_stack {
    uint64_t hash;
    uint64_t weight;
    uint32_t first; /* in `addresses` */
    uint32_t depth;
  } * stacks;
  uint32_t *slots;     /* stack + 1; twice as many as stacks */
  uint64_t *addresses; /* return addresses, leaf first */
  size_t count, capacity, address_count, address_capacity;
  uint64_t lost_weight; /* samples that found no room */
} lupe_pending_samples;

/* Adds `weight` samples of a stack (1 .. LUPE_MAX_FRAMES addresses, copied). */
void lupe_pending_samples_add(lupe_pending_samples *p, const uint64_t *addresses, size_t depth,
                              uint32_t weight);
/* Frees its arrays and leaves it empty. */
void lupe_pending_samples_clear(lupe_pending_samples *p);

#endif

#include "core/store/pending_samples.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/hash.h"

enum {
  FIRST_STACKS = 64,
  FIRST_ADDRESSES = 1024,
};

static bool grow_stacks(lupe_pending_samples *p) {
  if (p->count == LUPE_PENDING_STACKS_MAX) return false;
  size_t capacity = p->capacity ? 2 * p->capacity : FIRST_STACKS;
  uint32_t *slots = calloc(2 * capacity, sizeof *slots);
  struct lupe_pending_stack *stacks = slots ? realloc(p->stacks, capacity * sizeof *stacks) : NULL;
  if (!stacks) {
    free(slots);
    return false;
  }
  free(p->slots);
  p->stacks = stacks;
  p->slots = slots;
  p->capacity = capacity;
  for (size_t i = 0; i < p->count; i++) {
    size_t at = stacks[i].hash & (2 * capacity - 1);
    while (slots[at]) at = (at + 1) & (2 * capacity - 1);
    slots[at] = (uint32_t)i + 1;
  }
  return true;
}

static bool reserve_addresses(lupe_pending_samples *p, size_t depth) {
  if (p->address_count + depth <= p->address_capacity) return true;
  size_t capacity = p->address_capacity ? 2 * p->address_capacity : FIRST_ADDRESSES;
  uint64_t *addresses = realloc(p->addresses, capacity * sizeof *addresses);
  if (!addresses) return false;
  p->addresses = addresses;
  p->address_capacity = capacity;
  return true;
}

void lupe_pending_samples_add(lupe_pending_samples *p, const uint64_t *addresses, size_t depth,
                              uint32_t weight) {
  uint64_t hash = lupe_hash_words(addresses, depth);
  if (p->capacity) {
    size_t mask = 2 * p->capacity - 1;
    for (size_t at = hash & mask; p->slots[at]; at = (at + 1) & mask) {
      struct lupe_pending_stack *s = &p->stacks[p->slots[at] - 1];
      if (s->hash == hash && s->depth == depth &&
          memcmp(&p->addresses[s->first], addresses, depth * sizeof *addresses) == 0) {
        s->weight += weight;
        return;
      }
    }
  }
  if ((p->count == p->capacity && !grow_stacks(p)) || !reserve_addresses(p, depth)) {
    p->lost_weight += weight;
    return;
  }
  size_t mask = 2 * p->capacity - 1, at = hash & mask;
  while (p->slots[at]) at = (at + 1) & mask;
  p->slots[at] = (uint32_t)p->count + 1;
  p->stacks[p->count++] = (struct lupe_pending_stack){
      .hash = hash, .weight = weight, .first = (uint32_t)p->address_count, .depth = (uint32_t)depth};
  memcpy(&p->addresses[p->address_count], addresses, depth * sizeof *addresses);
  p->address_count += depth;
}

void lupe_pending_samples_clear(lupe_pending_samples *p) {
  free(p->stacks);
  free(p->slots);
  free(p->addresses);
  *p = (lupe_pending_samples){0};
}

/* unwind_rows.h -- rows by address: one cache for all threads, static, 64 KiB at first and 2 MiB at most.
 * One slot is two words: the row, and the row xor its key. They are written and read one by one, without
 * order: a reader that sees halves of two writes finds that they do not make its key, and takes the slot for
 * empty. So there is no lock, no writer to wait for, and an interrupted write does no harm. The key is a mix
 * of the address and the identity of the module that was mapped there, so that rows of an unloaded module are
 * never found again. Thread: any, also inside malloc and signal handlers. */
#ifndef LUPE_AGENT_UNWIND_ROWS_H
#define LUPE_AGENT_UNWIND_ROWS_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/agent/unwind_x86_64.h"

enum {
  LUPE_ROWS_WAYS = 4,           /* slots of one bucket, one cache line */
  LUPE_ROWS_BUCKETS_MIN = 1024, /* 64 KiB to begin with: most programs need no more */
  LUPE_ROWS_GROWTH_MAX = 5,     /* doublings: 2 MiB */
};

typedef struct lupe_rows_slot {
  _Atomic uint64_t row;
  _Atomic uint64_t check;
} lupe_rows_slot;

/* Inlined below, since all of a capture's time is spent with them; nobody else's. */
extern lupe_rows_slot lupe_rows_cache[LUPE_ROWS_BUCKETS_MIN << LUPE_ROWS_GROWTH_MAX][LUPE_ROWS_WAYS]
    __attribute__((visibility("hidden")));
extern _Atomic unsigned lupe_rows_growth __attribute__((visibility("hidden")));

static inline uint64_t lupe_rows_mix(uint64_t x) {
  x *= UINT64_C(0x9e3779b97f4a7c15);
  return x ^ x >> 32;
}

static inline uint64_t lupe_rows_key(uint64_t module_identity, uint64_t address) {
  return lupe_rows_mix(module_identity ^ address);
}

/* Which buckets are in use: the same one for a whole capture will do. */
static inline uint64_t lupe_rows_mask(void) {
  unsigned growth = atomic_load_explicit(&lupe_rows_growth, memory_order_relaxed);
  return ((uint64_t)LUPE_ROWS_BUCKETS_MIN << growth) - 1;
}

/* The bucket comes from the address alone: from one return address to the next all steps wait for one
 * another, and a multiplication is a tenth of them. */
static inline lupe_rows_slot *lupe_rows_bucket(uint64_t address, uint64_t mask) {
  return lupe_rows_cache[(address ^ address >> 13) & mask];
}

/* LUPE_ROW_EMPTY: not there. */
static inline lupe_row lupe_rows_find(uint64_t address, uint64_t key, uint64_t mask) {
  lupe_rows_slot *bucket = lupe_rows_bucket(address, mask);
  for (unsigned i = 0; i < LUPE_ROWS_WAYS; i++) {
    lupe_row row = atomic_load_explicit(&bucket[i].row, memory_order_relaxed);
    uint64_t check = atomic_load_explicit(&bucket[i].check, memory_order_relaxed);
    if ((row ^ check) == key && row != LUPE_ROW_EMPTY) return row;
  }
  return LUPE_ROW_EMPTY;
}

void lupe_rows_put(uint64_t address, uint64_t key, lupe_row row);

#endif

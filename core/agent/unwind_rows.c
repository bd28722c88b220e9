#include "core/agent/unwind_rows.h"

#include <stddef.h>

_Alignas(64) lupe_rows_slot lupe_rows_cache[LUPE_ROWS_BUCKETS_MIN << LUPE_ROWS_GROWTH_MAX][LUPE_ROWS_WAYS];
_Atomic unsigned lupe_rows_growth;
static _Atomic unsigned evictions; /* since the last growth */

/* Doubles the buckets in use when as many rows as an eighth of them had to be given up. Half of the rows
 * are looked for elsewhere from then on, and come back by being read again. */
static void count_eviction(void) {
  unsigned growth = atomic_load_explicit(&lupe_rows_growth, memory_order_relaxed);
  unsigned counted = atomic_fetch_add_explicit(&evictions, 1, memory_order_relaxed) + 1;
  if (growth == LUPE_ROWS_GROWTH_MAX || counted < ((unsigned)LUPE_ROWS_BUCKETS_MIN << growth) / 8) return;
  if (atomic_compare_exchange_strong_explicit(&lupe_rows_growth, &growth, growth + 1, memory_order_relaxed,
                                              memory_order_relaxed)) {
    atomic_store_explicit(&evictions, 0, memory_order_relaxed);
  }
}

void lupe_rows_put(uint64_t address, uint64_t key, lupe_row row) {
  lupe_rows_slot *bucket = lupe_rows_bucket(address, lupe_rows_mask()), *chosen = NULL;
  for (unsigned i = 0; i < LUPE_ROWS_WAYS && chosen == NULL; i++) {
    if (atomic_load_explicit(&bucket[i].row, memory_order_relaxed) == LUPE_ROW_EMPTY) chosen = &bucket[i];
  }
  if (chosen == NULL) {
    chosen = &bucket[key >> 62];
    count_eviction();
  }
  atomic_store_explicit(&chosen->row, row, memory_order_relaxed);
  atomic_store_explicit(&chosen->check, row ^ key, memory_order_relaxed);
}

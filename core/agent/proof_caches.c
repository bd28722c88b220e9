#include "core/agent/proof_caches.h"

#include <string.h>

enum {
  BIN_BYTES = 24,
  NEIGHBOURS = 3,         /* at least, on one side or both */
  BINS_MAX = 256,         /* looked at on each side; jemalloc has 41 of a thread, by default */
  ARRAY_BYTES = 64 << 10, /* at most, of what all bins share: they keep 16 bits of its addresses */
};

typedef struct bin {
  uint64_t head, requests;
  uint16_t low_water, full, empty, unused;
} bin;

static bool load(uint64_t at, lupe_proof_span readable, bin *out) {
  if (at < readable.lo || at + sizeof *out > readable.hi) return false;
  memcpy(out, (const void *)(uintptr_t)at, sizeof *out);
  return true;
}

static uint16_t bytes_between(uint16_t from, uint16_t to) {
  return (uint16_t)(to - from);
}

static uint16_t filled(const bin *b) {
  return bytes_between((uint16_t)b->head, b->empty);
}

/* No bin is without room: parts of nothing would touch wherever there are zeros. */
static bool sound(const bin *b, uint64_t near) {
  if (b->head + ARRAY_BYTES < near || b->head > near + ARRAY_BYTES || b->head % sizeof(uint64_t) != 0)
    return false;
  uint16_t whole = bytes_between(b->full, b->empty);
  return whole > 0 && filled(b) <= whole && whole % sizeof(uint64_t) == 0;
}

static bool touch(const bin *before, const bin *after) {
  return before->empty == after->full;
}

lupe_proof_cache lupe_proof_cache_bin(uint64_t at, lupe_proof_span readable, lupe_proof_span *out) {
  bin its, next;
  if (!load(at, readable, &its) || !sound(&its, its.head)) return LUPE_PROOF_NO_CACHE;
  unsigned found = 0;
  bool holds = filled(&its) > 0;
  for (uint64_t beside = BIN_BYTES, i = 0; i < 2; i++, beside = -beside) {
    bin last = its;
    for (uint64_t step = 1; step <= BINS_MAX; step++) {
      if (!load(at + beside * step, readable, &next) || !sound(&next, its.head)) break;
      if (i == 0 ? !touch(&last, &next) : !touch(&next, &last)) break;
      holds = holds || filled(&next) > 0;
      last = next;
      found++;
    }
  }
  if (found < NEIGHBOURS) return LUPE_PROOF_NO_CACHE;
  if (!holds) return LUPE_PROOF_CACHE_EMPTY;
  *out = (lupe_proof_span){its.head, its.head + filled(&its)};
  return LUPE_PROOF_CACHE_IN_USE;
}

#include "core/agent/proof_caches.h"

#include <string.h>

enum { BIN_BYTES = 24, NEIGHBOURS = 3 };

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

/* No bin is without room: parts of nothing would touch wherever there are zeros. */
static bool sound(const bin *b, lupe_proof_span array) {
  if (b->head < array.lo || b->head > array.hi || b->head % sizeof(uint64_t) != 0) return false;
  uint16_t filled = bytes_between((uint16_t)b->head, b->empty), whole = bytes_between(b->full, b->empty);
  return whole > 0 && filled <= whole && whole % sizeof(uint64_t) == 0;
}

static bool touch(const bin *before, const bin *after) {
  return before->empty == after->full;
}

bool lupe_proof_cache_bin(uint64_t at, lupe_proof_span readable, lupe_proof_span array,
                          lupe_proof_span *out) {
  bin its, next;
  unsigned found = 0;
  if (!load(at, readable, &its) || !sound(&its, array)) return false;
  for (uint64_t beside = BIN_BYTES, i = 0; i < 2; i++, beside = -beside) {
    bin last = its;
    for (uint64_t step = 1; step <= NEIGHBOURS; step++) {
      if (!load(at + beside * step, readable, &next) || !sound(&next, array)) break;
      if (i == 0 ? !touch(&last, &next) : !touch(&next, &last)) break;
      last = next;
      found++;
    }
  }
  if (found < NEIGHBOURS) return false;
  *out = (lupe_proof_span){its.head, its.head + bytes_between((uint16_t)its.head, its.empty)};
  return true;
}

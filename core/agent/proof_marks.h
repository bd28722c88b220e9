/* proof_marks.h -- which objects something leads to: from all roots but stacks, through everything that is
 * found on the way; then from each thread's stack. Objects are read as a whole; a pointer into one's middle
 * counts. Child only. */
#ifndef LUPE_AGENT_PROOF_MARKS_H
#define LUPE_AGENT_PROOF_MARKS_H

#include <stddef.h>
#include <stdint.h>

#include "core/agent/proof_heap.h"
#include "core/agent/proof_words.h"

/* An object to be read: a region of a slab, or a large one from the step `part` on. */
typedef struct lupe_proof_visit {
  uint32_t extent, part;
  uint32_t holder; /* the nearest sample on the way to it */
} lupe_proof_visit;

typedef struct lupe_proof_marks lupe_proof_marks;
struct lupe_proof_marks {
  lupe_proof_scan *scan;
  const lupe_proof_heap *heap;
  uint64_t *marked; /* a bit per region of the heap */
  uint64_t
      *by_start; /* likewise, for objects that are alone in their extent: something points to their start */
  lupe_proof_visit *waiting;
  size_t waiting_count, waiting_paid; /* how many there are, and were accounted for */
  lupe_proof_visit ahead[16];         /* being fetched by the processor */
  size_t ahead_at;
  size_t overflows; /* objects that found no room in `waiting` */
  uint32_t holder;  /* of what is read now */
  int32_t tid;      /* whose stack; 0: none */
  lupe_proof_word *words;
  lupe_proof_span root_part; /* of a root that is read now */
  /* What to do about a word found in an object (`e`, `region`; `e` NULL: in a root). */
  void (*meet)(lupe_proof_marks *m, const lupe_proof_word *word, const lupe_proof_extent *in,
               uint32_t region);
};

/* Marks everything and settles `state`, `holder` and `tid` of the heap's samples: REACHABLE, INTERIOR,
 * STACK_ONLY, or UNSETTLED where nothing leads to one. `pointers`: further roots. */
void lupe_proof_marks_make(lupe_proof_marks *out, lupe_proof_heap *h, const uint64_t *pointers,
                           size_t pointer_count);

/* For who goes on from here with another `meet` (proof_groups.c). */
void lupe_proof_marks_push(lupe_proof_marks *m, uint32_t extent, uint32_t region, uint32_t holder);
/* Reads what waits, and what that leads to, until nothing does. */
void lupe_proof_marks_drain(lupe_proof_marks *m);

/* The object that an address is in: false where it is none that is in use. */
static inline bool lupe_proof_object_at(const lupe_proof_heap *h, uint64_t address, lupe_proof_extent **out,
                                        uint32_t *out_region) {
  lupe_proof_extent *e = lupe_proof_heap_find(h, address);
  if (!e) return false;
  *out_region = 0;
  if (e->description & LUPE_EXTENT_SLAB) {
    const lupe_proof_class *c = &h->classes[lupe_extent_class(e)];
    *out_region = (uint32_t)((address - lupe_extent_base(e)) * c->inverse >> 32);
    if (*out_region >= lupe_extent_regions(e) || !lupe_extent_region_used(e, *out_region)) return false;
  }
  *out = e;
  return true;
}

static inline bool lupe_proof_bit(const uint64_t *bits, uint32_t number) {
  return (bits[number / 64] >> (number % 64) & 1) != 0;
}
static inline void lupe_proof_set_bit(uint64_t *bits, uint32_t number) {
  bits[number / 64] |= UINT64_C(1) << (number % 64);
}

#endif

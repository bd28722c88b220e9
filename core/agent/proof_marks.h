/* proof_marks.h -- which objects something leads to: from all roots but stacks, through everything that is
 * found on the way; then from each thread's stack. Objects are read as a whole; a pointer into one's middle
 * counts. Child only. */
#ifndef LUPE_AGENT_PROOF_MARKS_H
#define LUPE_AGENT_PROOF_MARKS_H

#include <stddef.h>
#include <stdint.h>

#include "core/agent/proof_heap.h"
#include "core/agent/proof_words.h"

/* An object to be read: a region of a slab, or a large one from the step `part` on. `extent` LUPE_PROOF_NONE:
 * what is read is a root. */
typedef struct lupe_proof_visit {
  uint32_t extent, part;
  uint32_t holder; /* the nearest sample on the way to it */
} lupe_proof_visit;

/* A heap is larger than any cache, and each step from a pointer to what is known of its object misses it. So
 * objects are read some at a time, and all their pointers are followed step by step together. */
enum { LUPE_PROOF_TOGETHER = 32, LUPE_PROOF_MET_MAX = 2 * LUPE_PROOF_WORDS_MAX };

typedef struct lupe_proof_marks lupe_proof_marks;
struct lupe_proof_marks {
  lupe_proof_scan *scan;
  const lupe_proof_heap *heap;
  uint64_t *marked; /* a bit per region of the heap */
  uint64_t
      *by_start; /* likewise, for objects that are alone in their extent: something points to their start */
  lupe_proof_visit *waiting;
  size_t waiting_count, waiting_paid;           /* how many there are, and were accounted for */
  size_t overflows;                             /* objects that found no room in `waiting` */
  lupe_proof_visit visits[LUPE_PROOF_TOGETHER]; /* being read */
  size_t visit_count, visit_next;
  lupe_proof_word *words; /* found in them */
  size_t word_count;
  lupe_proof_span root_part; /* of a root, that is read now */
  int32_t tid;               /* whose stack; 0: none */
  /* What to do about a word that points to a region of an extent in use. */
  void (*meet)(lupe_proof_marks *m, const lupe_proof_word *word, lupe_proof_extent *e, uint32_t region);
};

/* Marks everything and settles `state`, `holder` and `tid` of the heap's samples: REACHABLE, INTERIOR,
 * STACK_ONLY, or UNSETTLED where nothing leads to one. `pointers`: further roots. */
void lupe_proof_marks_make(lupe_proof_marks *out, lupe_proof_heap *h, const uint64_t *pointers,
                           size_t pointer_count);

/* For who goes on from here with another `meet` (proof_groups.c). */
void lupe_proof_marks_push(lupe_proof_marks *m, uint32_t extent, uint32_t part, uint32_t holder);
/* Reads what waits, and what that leads to, until nothing does. */
void lupe_proof_marks_drain(lupe_proof_marks *m);

static inline bool lupe_proof_bit(const uint64_t *bits, uint32_t number) {
  return (bits[number / 64] >> (number % 64) & 1) != 0;
}
static inline void lupe_proof_set_bit(uint64_t *bits, uint32_t number) {
  bits[number / 64] |= UINT64_C(1) << (number % 64);
}

#endif

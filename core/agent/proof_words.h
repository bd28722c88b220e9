/* proof_words.h -- finds words that may be pointers into the heap, as fast as memory can be read.
 * Looked at are words at multiples of 8 without their upper 17 bits, which programs use for marks, and words
 * at the other multiples of 4 as they are: packed structures. Thread: any. */
#ifndef LUPE_AGENT_PROOF_WORDS_H
#define LUPE_AGENT_PROOF_WORDS_H

#include <stddef.h>
#include <stdint.h>

typedef struct lupe_proof_word {
  uint64_t value;         /* with LUPE_HEAP_ADDRESS_MASK */
  uint64_t at;            /* where it stands */
  uint32_t visit, extent; /* for who looks at it further (proof_marks.h) */
} lupe_proof_word;

enum {
  LUPE_PROOF_STEP_BYTES = 16 << 10,
  LUPE_PROOF_OVERLAP_BYTES = 8, /* with the step before: a word may lie across two */
  LUPE_PROOF_WORDS_MAX = (LUPE_PROOF_STEP_BYTES + LUPE_PROOF_OVERLAP_BYTES) / 4
};

/* Those from `lo` up to, not including, `hi` in [at, at + bytes); at most a step and an overlap of them. `at`
 * is a multiple of 4. Returns how many. May fault where the memory does. */
size_t lupe_proof_words_find(uint64_t at, size_t bytes, uint64_t lo, uint64_t hi, lupe_proof_word *out);

#endif

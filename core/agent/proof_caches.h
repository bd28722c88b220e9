/* proof_caches.h -- jemalloc's thread caches, told apart from the program's memory. A cache is an array of
 * bins in thread-local storage; all bins share one array of pointers, which is an object of the heap:
 *
 *   0 the first pointer that is in the bin    18 and 20: low 16 bits of where the bin's part of the array
 * begins and ends
 *
 * 24 bytes each (jemalloc 5.3.0). From the first pointer to the end there are blocks that are free; before it
 * stand pointers that were given out, which lead to objects long after the program has lost them. The parts
 * of neighbours touch: that is what tells bins from anything else.
 *
 * A thread that gives its cache up, or ends, empties all bins and frees the array; the bins stay behind as
 * they are, in storage that the C library keeps, and what they point to is anybody's. Child only. */
#ifndef LUPE_AGENT_PROOF_CACHES_H
#define LUPE_AGENT_PROOF_CACHES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/agent/proof_mappings.h"

typedef enum lupe_proof_cache {
  LUPE_PROOF_NO_CACHE,
  LUPE_PROOF_CACHE_IN_USE,
  LUPE_PROOF_CACHE_EMPTY, /* all bins are: given up, most likely. Its pointers lead nowhere */
} lupe_proof_cache;

/* What a pointer is part of that stands at `at`. Of a cache in use, *out: the pointers in its bin. Reads
 * around `at` in [readable.lo, readable.hi) only. */
lupe_proof_cache lupe_proof_cache_bin(uint64_t at, lupe_proof_span readable, lupe_proof_span *out);

#endif

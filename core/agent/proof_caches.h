/* proof_caches.h -- jemalloc's thread caches, told apart from the program's memory. A cache is an array of
 * bins in thread-local storage; all bins share one array of pointers, which is an object of the heap:
 *
 *   0 the first pointer that is in the bin    18 and 20: low 16 bits of where the bin's part of the array
 * begins and ends
 *
 * 24 bytes each (jemalloc 5.3.0). From the first pointer to the end there are blocks that are free; before it
 * stand pointers that were given out, which lead to objects long after the program has lost them. The parts
 * of neighbours touch: that is what tells bins from anything else. Child only. */
#ifndef LUPE_AGENT_PROOF_CACHES_H
#define LUPE_AGENT_PROOF_CACHES_H

#include <stdbool.h>
#include <stdint.h>

#include "core/agent/proof_mappings.h"

/* Whether a pointer that stands at `at`, into the object `array`, is a bin's. *out: the pointers in the bin.
 * Reads around `at` in [readable.lo, readable.hi) only. */
bool lupe_proof_cache_bin(uint64_t at, lupe_proof_span readable, lupe_proof_span array, lupe_proof_span *out);

#endif

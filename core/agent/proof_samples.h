/* proof_samples.h -- which objects jemalloc has sampled, and where those were allocated: read from its own
 * books, whose form proof_heap.h tells. Child only. */
#ifndef LUPE_AGENT_PROOF_SAMPLES_H
#define LUPE_AGENT_PROOF_SAMPLES_H

#include "core/agent/proof_heap.h"

/* Makes the heap's `samples`. Its extents are settled. Gives up where too many are of no known form. */
void lupe_proof_samples_find(lupe_proof_heap *h);

/* The sample of an extent; NULL: it has none. */
lupe_proof_sample *lupe_proof_sample_of(const lupe_proof_heap *h, const lupe_proof_extent *e);

/* Frames of a sample's stack. */
size_t lupe_proof_stack(uint64_t stack, const uint64_t **out_frames);

#endif

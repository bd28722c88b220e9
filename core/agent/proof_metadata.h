/* proof_metadata.h -- the memory that jemalloc keeps for itself: blocks of it, multiples of 2 MiB at
 * addresses that are multiples of 2 MiB, each of which begins with
 *
 *   0 size    8 the next block    16 a description of what is left of the block: that ends where the block
 * does
 *
 * They hold addresses of extents and of blocks that were free once, which mean nothing to the program: they
 * are not read as roots. Child only. */
#ifndef LUPE_AGENT_PROOF_METADATA_H
#define LUPE_AGENT_PROOF_METADATA_H

#include <stdbool.h>
#include <stdint.h>

#include "core/agent/proof_heap.h"

/* Fills the heap's `metadata`. After its extents are known. */
void lupe_proof_metadata_find(lupe_proof_heap *h);

/* Whether an address lies there. */
bool lupe_proof_metadata_has(const lupe_proof_heap *h, uint64_t address);

#endif

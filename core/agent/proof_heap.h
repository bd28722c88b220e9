/* proof_heap.h -- where jemalloc's objects are: which extents it has, which regions of them are in use, which
 * objects it has sampled and where those were allocated.
 *
 * jemalloc tells of an address how large its extent is and how it is divided
 * (experimental.utilization.batch_query). What it does not tell is read from its own descriptors: one per
 * extent, 128 bytes, in its memory of the same process. Their form is that of jemalloc 5.3.0, and each is
 * believed only where it agrees with what jemalloc itself tells of the extent. Too many that do not:
 * LUPE_PROOF_NOT_UNDERSTOOD.
 *
 *   0 bits: 12 slab, 17-19 state (0: in use), 20-27 size class, 28-37 free regions    8 address
 *   16 extent's size    64 of a slab: a bit per region, 1 is free; of others: 80 the sample's context or 1
 *   a context: 96 its stack; that: 104 address and 112 number of its frames, which stand behind at 120
 *
 * They are in memory that jemalloc keeps for itself: see proof_metadata.h.
 *
 * An extent is a slab of regions of one size, or holds one object. A sampled object always has one of its
 * own. Child only. */
#ifndef LUPE_AGENT_PROOF_HEAP_H
#define LUPE_AGENT_PROOF_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/agent/proof_roots.h"
#include "core/agent/proof_scan.h"

enum {
  LUPE_HEAP_PAGE_SHIFT = 12,
  LUPE_HEAP_PAGE_BYTES = 1 << LUPE_HEAP_PAGE_SHIFT,
  LUPE_HEAP_BLOCK_SHIFT = 30, /* what jemalloc has never used of the address space it cannot be asked about */
  LUPE_HEAP_BLOCK_PAGES = 1 << (LUPE_HEAP_BLOCK_SHIFT - LUPE_HEAP_PAGE_SHIFT),
  LUPE_HEAP_CLASSES = 64, /* of regions */
  LUPE_HEAP_DESCRIPTION_BYTES = 128,
};
#define LUPE_HEAP_ADDRESS_MASK \
  ((UINT64_C(1) << 47) - 1) /* pointers with something in their upper bits count too */

typedef struct lupe_proof_extent {
  uint64_t base;        /* low bits: size class of a slab's regions */
  uint64_t description; /* low bits: LUPE_EXTENT_*; bits 48 and up: regions of a slab */
  uint32_t pages;
  uint32_t first; /* number of its first region, among all of extents in use */
} lupe_proof_extent;

enum {
  LUPE_EXTENT_USED = 1,
  LUPE_EXTENT_SLAB = 2,
  LUPE_EXTENT_FREE = 4,
  LUPE_EXTENT_DOUBTFUL = 8,
  LUPE_EXTENT_CACHE = 16 /* a thread cache's pointers, which lead nowhere */
};

typedef struct lupe_proof_class {
  uint32_t size_bytes;
  uint32_t inverse; /* offset * inverse >> 32 is the region; exact within a slab */
} lupe_proof_class;

typedef struct lupe_proof_sample {
  uint64_t address, size_bytes;
  uint64_t stack;  /* address of its stack in jemalloc's memory: one for each distinct one */
  uint32_t extent; /* ascending */
  uint32_t holder; /* set by the marking: see lupe_proof_object */
  int32_t tid;
  uint32_t group;
  uint8_t state;
  bool referenced; /* by an unreachable object other than itself */
  bool cached;     /* freed: it waits in a thread cache for the next who wants its size */
} lupe_proof_sample;

typedef struct lupe_proof_heap {
  lupe_proof_scan *scan;
  const lupe_proof_roots *roots;
  lupe_proof_extent *extents; /* ascending */
  size_t extent_count;
  uint32_t *blocks; /* of LUPE_HEAP_BLOCK: slot of its pages + 1 */
  uint32_t *pages;  /* slots x LUPE_HEAP_BLOCK_PAGES: index of the extent in use + 1 */
  uint32_t slots;
  lupe_proof_span *metadata; /* blocks of jemalloc's own, ascending */
  size_t metadata_count;
  uint64_t lo, hi; /* all objects are in between */
  lupe_proof_class classes[LUPE_HEAP_CLASSES];
  uint64_t regions;           /* of extents in use */
  lupe_proof_sample *samples; /* addresses ascending */
  size_t sample_count;
  uint64_t objects, bytes; /* in use, thread caches included */
} lupe_proof_heap;

void lupe_proof_heap_map(lupe_proof_heap *out, lupe_proof_scan *s, const lupe_proof_roots *roots);

/* Calls `take` for the parts of a root's span that belong to no extent, or to one that nobody understands,
 * and are not jemalloc's own. */
void lupe_proof_heap_gaps(const lupe_proof_heap *h, lupe_proof_span span,
                          void (*take)(void *arg, lupe_proof_span gap), void *arg);

/* Gives up where too many of `all` are of no form that is known. */
void lupe_proof_heap_doubt(const lupe_proof_heap *h, uint64_t odd, uint64_t all);

static inline uint64_t lupe_extent_base(const lupe_proof_extent *e) {
  return e->base & ~UINT64_C(0xfff);
}
static inline unsigned lupe_extent_class(const lupe_proof_extent *e) {
  return e->base & (LUPE_HEAP_CLASSES - 1);
}
static inline const uint64_t *lupe_extent_description(const lupe_proof_extent *e) {
  return (const uint64_t *)(uintptr_t)(e->description & LUPE_HEAP_ADDRESS_MASK & ~UINT64_C(0x7f));
}
static inline uint32_t lupe_extent_regions(const lupe_proof_extent *e) {
  return e->description & LUPE_EXTENT_SLAB ? (uint32_t)(e->description >> 48) : 1;
}
/* Where the object of an extent that is no slab begins. */
static inline uint64_t lupe_extent_object(const lupe_proof_extent *e) {
  return lupe_extent_description(e)[1];
}
static inline bool lupe_extent_region_used(const lupe_proof_extent *e, uint32_t region) {
  if ((e->description & LUPE_EXTENT_SLAB) == 0) return true;
  if (region >= lupe_extent_regions(e)) return false;
  return (lupe_extent_description(e)[8 + region / 64] >> (region % 64) & 1) == 0;
}

/* Where stands which extent in use an address is in: its index + 1, or 0. NULL: none is near. */
static inline uint32_t *lupe_proof_heap_entry(const lupe_proof_heap *h, uint64_t address) {
  uint32_t slot = h->blocks[address >> LUPE_HEAP_BLOCK_SHIFT];
  if (slot == 0) return NULL;
  uint64_t page = address >> LUPE_HEAP_PAGE_SHIFT & (LUPE_HEAP_BLOCK_PAGES - 1);
  return &h->pages[(uint64_t)(slot - 1) * LUPE_HEAP_BLOCK_PAGES + page];
}

/* The region of an extent that an address is in; what is left at the end of a slab counts as one more. */
static inline uint32_t lupe_extent_region_at(const lupe_proof_heap *h, const lupe_proof_extent *e,
                                             uint64_t address) {
  if ((e->description & LUPE_EXTENT_SLAB) == 0) return 0;
  return (uint32_t)((address - lupe_extent_base(e)) * h->classes[lupe_extent_class(e)].inverse >> 32);
}

#endif

#include "core/agent/proof_samples.h"

#include "core/agent/jemalloc.h"

enum {
  CONTEXT_NONE = 1,
  FRAMES_MAX = 128, /* of jemalloc */
};

size_t lupe_proof_stack(uint64_t stack, const uint64_t **out_frames) {
  const uint64_t *words = (const uint64_t *)(uintptr_t)stack;
  *out_frames = (const uint64_t *)(uintptr_t)words[13];
  return (uint32_t)words[14]; /* 32 bits of it */
}

/* The stack of a sample's context; 0: it is none. The guard is set. */
static uint64_t stack_of(const lupe_proof_extent *e) {
  uint64_t context = lupe_extent_description(e)[10];
  if (context <= CONTEXT_NONE || context % 8 != 0) return 0;
  const uint64_t *words = (const uint64_t *)(uintptr_t)context;
  uint64_t stack = words[12];
  if (stack == 0 || stack % 8 != 0) return 0;
  const uint64_t *frames;
  size_t count = lupe_proof_stack(stack, &frames);
  bool follows = (uintptr_t)frames == stack + UINT64_C(120);
  return follows && count >= 1 && count <= FRAMES_MAX ? stack : 0;
}

static uint64_t checked_stack_of(const lupe_proof_extent *e) {
  volatile uint64_t stack = 0;
  if (LUPE_PROOF_TRY()) stack = stack_of(e);
  lupe_proof_untry();
  return stack;
}

void lupe_proof_samples_find(lupe_proof_heap *h) {
  uint64_t odd = 0;
  h->samples = lupe_proof_table(h->scan, h->extent_count * sizeof *h->samples, 0);
  for (size_t i = 0; i < h->extent_count; i++) {
    const lupe_proof_extent *e = &h->extents[i];
    if ((e->description & LUPE_EXTENT_USED) == 0 || (e->description & LUPE_EXTENT_SLAB)) continue;
    uint64_t object = lupe_extent_object(e), stack = checked_stack_of(e);
    size_t size = sallocx((const void *)(uintptr_t)object, 0);
    bool small_alone = size * 2 < (uint64_t)e->pages
                                      << LUPE_HEAP_PAGE_SHIFT; /* only a sampled one has so much room */
    if (stack == 0) {
      odd += small_alone;
      continue;
    }
    h->samples[h->sample_count++] = (lupe_proof_sample){
        .address = object,
        .size_bytes = size,
        .stack = stack,
        .extent = (uint32_t)i,
        .holder = LUPE_PROOF_NONE,
        .group = LUPE_PROOF_NONE,
        .state = LUPE_PROOF_UNSETTLED,
    };
    lupe_proof_charge(h->scan, sizeof *h->samples);
  }
  lupe_proof_heap_doubt(h, odd, h->sample_count);
}

lupe_proof_sample *lupe_proof_sample_of(const lupe_proof_heap *h, const lupe_proof_extent *e) {
  uint32_t extent = (uint32_t)(e - h->extents);
  size_t low = 0, high = h->sample_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (h->samples[middle].extent < extent)
      low = middle + 1;
    else
      high = middle;
  }
  return low < h->sample_count && h->samples[low].extent == extent ? &h->samples[low] : NULL;
}

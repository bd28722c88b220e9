#include "core/agent/proof_metadata.h"

enum {
  ALIGNMENT = 2 << 20,
  BLOCKS_MAX = 1 << 14,
};

typedef struct search {
  lupe_proof_heap *heap;
  uint64_t end; /* of the root that is looked at */
} search;

static bool is_block(uint64_t at, uint64_t end) {
  const uint64_t *words = (const uint64_t *)(uintptr_t)at;
  uint64_t bytes = words[0], left_at = words[3], left_bytes = words[4];
  return bytes > 0 && bytes % ALIGNMENT == 0 && bytes <= end - at && words[1] % ALIGNMENT == 0 &&
         left_at > at && left_at <= at + bytes && left_at + left_bytes == at + bytes;
}

/* Blocks come in ascending order. */
static void look(void *arg, lupe_proof_span page) {
  const search *s = arg;
  lupe_proof_heap *h = s->heap;
  if (page.lo % ALIGNMENT != 0) return; /* what stands before it may have come along */
  if (h->metadata_count == BLOCKS_MAX || lupe_proof_metadata_has(h, page.lo)) return;
  if (LUPE_PROOF_TRY() && is_block(page.lo, s->end)) {
    h->metadata[h->metadata_count++] =
        (lupe_proof_span){page.lo, page.lo + *(const uint64_t *)(uintptr_t)page.lo};
    lupe_proof_charge(h->scan, sizeof *h->metadata);
  }
  lupe_proof_untry();
}

void lupe_proof_metadata_find(lupe_proof_heap *h) {
  const lupe_proof_roots *roots = h->roots;
  h->metadata = lupe_proof_table(h->scan, BLOCKS_MAX * sizeof *h->metadata, 0);
  for (size_t i = 0; i < roots->count; i++) {
    lupe_proof_span root = roots->list[i].span;
    search s = {h, root.hi};
    if (roots->list[i].kind != LUPE_ROOT_ANONYMOUS) continue;
    uint64_t at = (root.lo + ALIGNMENT - 1) & -(uint64_t)ALIGNMENT;
    for (; at < root.hi && root.hi - at >= ALIGNMENT; at += ALIGNMENT) {
      const uint32_t *entry = lupe_proof_heap_entry(h, at);
      if (entry && *entry != 0) continue; /* an object is there */
      lupe_proof_present(roots, LUPE_ROOT_ANONYMOUS, (lupe_proof_span){at, at + LUPE_HEAP_PAGE_BYTES},
                         LUPE_HEAP_PAGE_BYTES, look, &s);
    }
  }
}

bool lupe_proof_metadata_has(const lupe_proof_heap *h, uint64_t address) {
  size_t low = 0, high = h->metadata_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (h->metadata[middle].hi <= address)
      low = middle + 1;
    else
      high = middle;
  }
  return low < h->metadata_count && h->metadata[low].lo <= address;
}

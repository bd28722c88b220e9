#include "core/agent/proof_groups.h"

enum { RANK_BITS = 512, RANK_WORDS = RANK_BITS / 64 };

/* Objects that nothing leads to are counted through: `label` and `same` are by that count. */
static struct {
  uint32_t *rank;  /* how many of them come before every RANK_BITS regions */
  uint32_t *label; /* 0: not looked at yet */
  uint32_t *same;  /* of labels: one that means the same, or itself; a forest */
  uint32_t labels;
} groups;

static bool is_lost(const lupe_proof_marks *m, uint32_t number) {
  return !lupe_proof_bit(m->marked, number);
}

static uint32_t count_of(const lupe_proof_marks *m, uint32_t number) {
  uint32_t block = number / RANK_BITS, sum = groups.rank[block];
  for (uint32_t word = block * RANK_WORDS; word < number / 64; word++)
    sum += (uint32_t)__builtin_popcountll(~m->marked[word]);
  uint64_t before = ~m->marked[number / 64] & ((UINT64_C(1) << (number % 64)) - 1);
  return sum + (uint32_t)__builtin_popcountll(before);
}

static uint32_t find(uint32_t label) {
  while (groups.same[label] != label) {
    groups.same[label] = groups.same[groups.same[label]];
    label = groups.same[label];
  }
  return label;
}

static void unite(uint32_t a, uint32_t b) {
  a = find(a);
  b = find(b);
  if (a < b)
    groups.same[b] = a;
  else
    groups.same[a] = b;
}

/* Only objects that nothing leads to are read now; `label_now` is theirs. */
static uint32_t label_now;
static void meet(lupe_proof_marks *m, const lupe_proof_word *word, lupe_proof_extent *e, uint32_t region) {
  const lupe_proof_visit *from = &m->visits[word->visit];
  uint32_t number = e->first + region, holder = from->holder;
  bool alone = (e->description & LUPE_EXTENT_SLAB) == 0;
  if (!is_lost(m, number) || (from->extent == word->extent && (alone || from->part == region))) return;
  uint32_t *label = &groups.label[count_of(m, number)];
  lupe_proof_sample *sample = alone ? lupe_proof_heap_sample(m->heap, e) : NULL;
  uint32_t index = sample ? (uint32_t)(sample - m->heap->samples) : LUPE_PROOF_NONE;
  if (sample) {
    sample->referenced = true;
    if (sample->holder == LUPE_PROOF_NONE && holder != index) sample->holder = holder;
  }
  if (*label != 0) {
    unite(*label, label_now);
    return;
  }
  *label = label_now;
  lupe_proof_marks_push(m, word->extent, region, sample ? index : holder);
}

static void start_at(lupe_proof_marks *m, uint32_t extent, uint32_t region) {
  const lupe_proof_extent *e = &m->heap->extents[extent];
  uint32_t *label = &groups.label[count_of(m, e->first + region)];
  if (*label != 0) return;
  *label = label_now = ++groups.labels;
  groups.same[label_now] = label_now;
  const lupe_proof_sample *sample =
      e->description & LUPE_EXTENT_SLAB ? NULL : lupe_proof_heap_sample(m->heap, e);
  uint32_t holder = sample ? (uint32_t)(sample - m->heap->samples) : LUPE_PROOF_NONE;
  lupe_proof_marks_push(m, extent, region, holder);
  lupe_proof_marks_drain(m);
  /* A chain so long that it did not fit: some of it was not read. Then it is one group with what it led to so
   * far, and more groups than there are would be counted. */
  if (m->overflows > 0) lupe_proof_give_up(m->scan, LUPE_PROOF_TABLES, 0);
}

static void for_each_region(lupe_proof_marks *m,
                            void (*act)(lupe_proof_marks *m, uint32_t extent, uint32_t region)) {
  const lupe_proof_heap *h = m->heap;
  for (size_t i = 0; i < h->extent_count; i++) {
    const lupe_proof_extent *e = &h->extents[i];
    if ((e->description & LUPE_EXTENT_USED) == 0) continue;
    for (uint32_t region = 0; region < lupe_extent_regions(e); region++) act(m, (uint32_t)i, region);
  }
}

/* A region that is not in use counts as marked: what is left is lost. */
static void leave_out_unused(lupe_proof_marks *m, uint32_t extent, uint32_t region) {
  const lupe_proof_extent *e = &m->heap->extents[extent];
  if ((e->description & LUPE_EXTENT_SLAB) && !lupe_extent_region_used(e, region))
    lupe_proof_set_bit(m->marked, e->first + region);
}

static uint64_t lost_bytes;
static uint64_t bytes_of(const lupe_proof_heap *h, const lupe_proof_extent *e) {
  if (e->description & LUPE_EXTENT_SLAB) return h->classes[lupe_extent_class(e)].size_bytes;
  const lupe_proof_sample *sample = lupe_proof_heap_sample(h, e);
  return sample ? sample->size_bytes
                : (uint64_t)(e->pages - 1) << LUPE_HEAP_PAGE_SHIFT; /* less its padding */
}

static void visit_lost(lupe_proof_marks *m, uint32_t extent, uint32_t region) {
  const lupe_proof_extent *e = &m->heap->extents[extent];
  if (!is_lost(m, e->first + region)) return;
  lost_bytes += bytes_of(m->heap, e);
  start_at(m, extent, region);
}

static uint64_t rank_all(lupe_proof_marks *m) {
  uint64_t regions = m->heap->regions, sum = 0, words = regions / 64 + 1;
  if (regions % 64 != 0)
    m->marked[regions / 64] |= ~UINT64_C(0) << (regions % 64);
  else
    m->marked[regions / 64] = ~UINT64_C(0);
  size_t bytes = (regions / RANK_BITS + 1) * sizeof *groups.rank;
  groups.rank = lupe_proof_table(m->scan, bytes, bytes);
  for (uint64_t word = 0; word < words; word++) {
    if (word % RANK_WORDS == 0) groups.rank[word / RANK_WORDS] = (uint32_t)sum;
    sum += (uint64_t)__builtin_popcountll(~m->marked[word]);
  }
  return sum;
}

void lupe_proof_groups_make(lupe_proof_groups *out, lupe_proof_marks *m) {
  const lupe_proof_heap *h = m->heap;
  for_each_region(m, leave_out_unused);
  out->objects = rank_all(m);
  size_t bytes = (out->objects + 1) * sizeof(uint32_t);
  groups.label = lupe_proof_table(m->scan, bytes, bytes);
  groups.same = lupe_proof_table(m->scan, bytes, bytes);
  m->meet = meet;
  for_each_region(m, visit_lost);
  out->bytes = lost_bytes;
  for (size_t i = 0; i < h->sample_count; i++) {
    uint32_t number = h->extents[h->samples[i].extent].first;
    if (is_lost(m, number)) h->samples[i].group = find(groups.label[count_of(m, number)]);
  }
}

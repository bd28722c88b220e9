#include "core/agent/proof_groups.h"

#include <string.h>

#include "core/agent/proof_samples.h"

enum { RANK_BITS = 512, RANK_WORDS = RANK_BITS / 64, SIZES = 32 /* of groups, by powers of two */ };

/* Where a walk through the lost objects begins. */
typedef struct start {
  uint32_t extent, region;
  uint32_t found; /* objects, by the walk from here; 0: others lead here */
} start;

static struct {
  uint64_t *seen; /* a bit per region, in the walks that are made now */
  start *starts;
  size_t start_count;
  uint32_t found;  /* by this walk */
  uint32_t *rank;  /* how many lost objects come before every RANK_BITS regions */
  uint32_t *label; /* of the lost objects, by that count: their group; NULL: it is not asked for yet */
  uint32_t label_now;
  uint64_t bytes;
} lost;

static bool is_lost(const lupe_proof_marks *m, uint32_t number) {
  return !lupe_proof_bit(m->marked, number);
}

/* How many lost objects come before a region. */
static uint32_t count_of(const lupe_proof_marks *m, uint32_t number) {
  uint32_t block = number / RANK_BITS, sum = lost.rank[block];
  for (uint32_t word = block * RANK_WORDS; word < number / 64; word++)
    sum += (uint32_t)__builtin_popcountll(~m->marked[word]);
  uint64_t before = ~m->marked[number / 64] & ((UINT64_C(1) << (number % 64)) - 1);
  return sum + (uint32_t)__builtin_popcountll(before);
}

/* ---- walks ---- */

static void see(const lupe_proof_marks *m, uint32_t number) {
  lupe_proof_set_bit(lost.seen, number);
  lost.found++;
  if (lost.label) lost.label[count_of(m, number)] = lost.label_now;
}

/* Only lost objects are read now. */
static void meet(lupe_proof_marks *m, const lupe_proof_word *word, lupe_proof_extent *e, uint32_t region) {
  const lupe_proof_visit *from = &m->visits[word->visit];
  uint32_t number = e->first + region, holder = from->holder;
  bool alone = (e->description & LUPE_EXTENT_SLAB) == 0;
  if (!is_lost(m, number) || (from->extent == word->extent && (alone || from->part == region))) return;
  lupe_proof_sample *sample = alone ? lupe_proof_sample_of(m->heap, e) : NULL;
  uint32_t index = sample ? (uint32_t)(sample - m->heap->samples) : holder;
  if (sample) {
    sample->referenced = true;
    if (sample->holder == LUPE_PROOF_NONE && holder != index) sample->holder = holder;
  }
  if (lupe_proof_bit(lost.seen, number)) return;
  see(m, number);
  lupe_proof_marks_push(m, word->extent, region, index);
}

/* Everything that can be reached from a lost object and was not seen. How many objects that are. */
static uint32_t walk(lupe_proof_marks *m, uint32_t extent, uint32_t region) {
  const lupe_proof_extent *e = &m->heap->extents[extent];
  const lupe_proof_sample *sample =
      e->description & LUPE_EXTENT_SLAB ? NULL : lupe_proof_sample_of(m->heap, e);
  lost.found = 0;
  see(m, e->first + region);
  lupe_proof_marks_push(m, extent, region, sample ? (uint32_t)(sample - m->heap->samples) : LUPE_PROOF_NONE);
  lupe_proof_marks_drain(m);
  /* Some of it was not read: then there might be more heads than there are. */
  if (m->overflows > 0) lupe_proof_give_up(m->scan, LUPE_PROOF_TABLES, 0);
  return lost.found;
}

static bool seen_already(const lupe_proof_marks *m, uint32_t extent, uint32_t region) {
  return lupe_proof_bit(lost.seen, m->heap->extents[extent].first + region);
}

static void forget_seen(const lupe_proof_marks *m) {
  memset(lost.seen, 0, (m->heap->regions / 64 + 1) * sizeof *lost.seen);
}

/* ---- all regions ---- */

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
  if (!lupe_extent_region_used(e, region)) lupe_proof_set_bit(m->marked, e->first + region);
}

static uint64_t bytes_of(const lupe_proof_heap *h, const lupe_proof_extent *e) {
  if (e->description & LUPE_EXTENT_SLAB) return h->classes[lupe_extent_class(e)].size_bytes;
  const lupe_proof_sample *sample = lupe_proof_sample_of(h, e);
  return sample ? sample->size_bytes
                : (uint64_t)(e->pages - 1) << LUPE_HEAP_PAGE_SHIFT; /* less its padding */
}

static void start_at(lupe_proof_marks *m, uint32_t extent, uint32_t region) {
  const lupe_proof_extent *e = &m->heap->extents[extent];
  if (!is_lost(m, e->first + region)) return;
  lost.bytes += bytes_of(m->heap, e);
  if (seen_already(m, extent, region)) return;
  walk(m, extent, region);
  lupe_proof_charge(m->scan, sizeof *lost.starts);
  lost.starts[lost.start_count++] = (start){extent, region, 0};
}

static uint64_t rank_all(lupe_proof_marks *m) {
  uint64_t regions = m->heap->regions, sum = 0, words = regions / 64 + 1;
  m->marked[regions / 64] |= ~UINT64_C(0) << (regions % 64); /* there are no more */
  size_t bytes = (regions / RANK_BITS + 1) * sizeof *lost.rank;
  lost.rank = lupe_proof_table(m->scan, bytes, bytes);
  for (uint64_t word = 0; word < words; word++) {
    if (word % RANK_WORDS == 0) lost.rank[word / RANK_WORDS] = (uint32_t)sum;
    sum += (uint64_t)__builtin_popcountll(~m->marked[word]);
  }
  return sum;
}

/* ---- heads ---- */

/* No start is reached from one before it, or it would not be one. Walked backwards, those that are reached
 * from one behind it fall away too. What is left are the heads: as few objects as lead to all that is lost.
 */
static void keep_heads(lupe_proof_marks *m) {
  forget_seen(m);
  for (size_t i = lost.start_count; i-- > 0;) {
    start *s = &lost.starts[i];
    if (!seen_already(m, s->extent, s->region)) s->found = walk(m, s->extent, s->region);
  }
}

/* The large ones first: what many heads lead to is to be explained by as few of them as possible. */
static void label_groups(lupe_proof_marks *m, uint64_t objects) {
  size_t bytes = (objects + 1) * sizeof *lost.label;
  lost.label = lupe_proof_table(m->scan, bytes, bytes);
  forget_seen(m);
  for (int size = SIZES - 1; size >= 0; size--) {
    for (size_t i = 0; i < lost.start_count; i++) {
      const start *s = &lost.starts[i];
      if (s->found == 0 || 31 - __builtin_clz(s->found) != size) continue;
      lost.label_now++;
      walk(m, s->extent, s->region);
    }
  }
}

void lupe_proof_groups_make(lupe_proof_groups *out, lupe_proof_marks *m) {
  const lupe_proof_heap *h = m->heap;
  size_t bits_bytes = (h->regions / 64 + 1) * sizeof *lost.seen;
  for_each_region(m, leave_out_unused);
  out->objects = rank_all(m);
  lost.seen = lupe_proof_table(m->scan, bits_bytes, bits_bytes);
  lost.starts = lupe_proof_table(m->scan, (out->objects + 1) * sizeof *lost.starts, 0);
  m->meet = meet;
  for_each_region(m, start_at);
  keep_heads(m);
  label_groups(m, out->objects);
  out->bytes = lost.bytes;
  for (size_t i = 0; i < h->sample_count; i++) {
    uint32_t number = h->extents[h->samples[i].extent].first;
    if (is_lost(m, number)) h->samples[i].group = lost.label[count_of(m, number)];
  }
}

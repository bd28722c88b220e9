#include "core/agent/proof_marks.h"

#include <string.h>

#include "core/agent/proof_caches.h"
#include "core/agent/proof_metadata.h"
#include "core/agent/proof_samples.h"

enum {
  WAITING_MAX = 1 << 24,
  WAITING_STEP = 1 << 14,
  DRAIN_FROM = 1 << 16,
  SPARSE_BYTES = 256 << 10, /* objects from here on may have pages that hold nothing */
  DESCRIPTION_ADDRESS = 8,
};

/* ---- what waits to be read ---- */

void lupe_proof_marks_push(lupe_proof_marks *m, uint32_t extent, uint32_t part, uint32_t holder) {
  if (m->waiting_count == m->waiting_max) {
    m->overflows++;
    return;
  }
  if (m->waiting_count == m->waiting_paid) {
    m->waiting_paid += WAITING_STEP;
    lupe_proof_charge(m->scan, WAITING_STEP * sizeof *m->waiting);
  }
  m->waiting[m->waiting_count++] = (lupe_proof_visit){extent, part, holder};
}

static uint64_t address_of(const lupe_proof_heap *h, const lupe_proof_visit *v) {
  const lupe_proof_extent *e = &h->extents[v->extent];
  uint64_t base = lupe_extent_base(e);
  if (e->description & LUPE_EXTENT_SLAB)
    return base + (uint64_t)v->part * h->classes[lupe_extent_class(e)].size_bytes;
  return base + (uint64_t)v->part * LUPE_PROOF_STEP_BYTES;
}

/* The newest ones first: so what waits grows with the depth of structures, not with their size. */
static void take_visits(lupe_proof_marks *m) {
  m->visit_count = m->visit_next = 0;
  while (m->visit_count < LUPE_PROOF_TOGETHER && m->waiting_count > 0) {
    lupe_proof_visit *v = &m->visits[m->visit_count++];
    *v = m->waiting[--m->waiting_count];
    __builtin_prefetch(&m->heap->extents[v->extent]);
  }
  for (size_t i = 0; i < m->visit_count; i++)
    __builtin_prefetch((const void *)(uintptr_t)address_of(m->heap, &m->visits[i]));
}

/* ---- pointers ---- */

/* From the pages to the extents, to their descriptions and marks, and then to what there is to do. */
static void meet_all(lupe_proof_marks *m) {
  const lupe_proof_heap *h = m->heap;
  size_t count = 0;
  for (size_t i = 0; i < m->word_count; i++) {
    const uint32_t *entry = lupe_proof_heap_entry(h, m->words[i].value);
    if (!entry) continue;
    m->words[count++] = m->words[i];
    __builtin_prefetch(entry);
  }
  m->word_count = count;
  count = 0;
  for (size_t i = 0; i < m->word_count; i++) {
    uint32_t index = *lupe_proof_heap_entry(h, m->words[i].value);
    if (index == 0) continue;
    m->words[count] = m->words[i];
    m->words[count++].extent = index - 1;
    __builtin_prefetch(&h->extents[index - 1]);
  }
  for (size_t i = 0; i < count; i++) {
    const lupe_proof_extent *e = &h->extents[m->words[i].extent];
    uint32_t region = lupe_extent_region_at(h, e, m->words[i].value);
    __builtin_prefetch(&lupe_extent_description(e)[8 + region / 64]);
    __builtin_prefetch(&m->marked[(e->first + region) / 64]);
  }
  for (size_t i = 0; i < count; i++) {
    lupe_proof_extent *e = &h->extents[m->words[i].extent];
    uint32_t region = lupe_extent_region_at(h, e, m->words[i].value);
    if (lupe_extent_region_used(e, region)) m->meet(m, &m->words[i], e, region);
  }
  m->word_count = 0;
}

static void find_words(lupe_proof_marks *m, uint64_t at, size_t bytes, uint32_t visit) {
  lupe_proof_word *found = &m->words[m->word_count];
  size_t count = lupe_proof_words_find(at, bytes, m->heap->lo, m->heap->hi, found);
  for (size_t i = 0; i < count; i++) found[i].visit = visit;
  m->word_count += count;
  lupe_proof_read(m->scan, bytes);
  if (m->word_count > LUPE_PROOF_MET_MAX - LUPE_PROOF_WORDS_MAX) meet_all(m);
}

/* ---- reading ---- */

typedef struct reading {
  lupe_proof_marks *marks;
  uint32_t visit;
} reading;

static void read_part(void *arg, lupe_proof_span part) {
  const reading *r = arg;
  find_words(r->marks, part.lo, part.hi - part.lo, r->visit);
}

/* A large object is read in steps: what one leads to comes before the next, so that little waits. */
static void read_object(lupe_proof_marks *m, uint32_t visit) {
  const lupe_proof_visit *v = &m->visits[visit];
  const lupe_proof_extent *e = &m->heap->extents[v->extent];
  uint64_t at = address_of(m->heap, v);
  if (e->description & LUPE_EXTENT_CACHE) return;
  if (e->description & LUPE_EXTENT_SLAB) {
    find_words(m, at, m->heap->classes[lupe_extent_class(e)].size_bytes, visit);
    return;
  }
  uint64_t bytes = (uint64_t)e->pages * LUPE_HEAP_PAGE_BYTES, end = lupe_extent_base(e) + bytes;
  uint64_t next = at + LUPE_PROOF_STEP_BYTES;
  if (next < end) lupe_proof_marks_push(m, v->extent, v->part + 1, v->holder);
  lupe_proof_span span = {v->part > 0 ? at - LUPE_PROOF_OVERLAP_BYTES : at, next < end ? next : end};
  reading r = {m, visit};
  if (bytes >= SPARSE_BYTES)
    lupe_proof_present(m->heap->roots, LUPE_ROOT_ANONYMOUS, span, LUPE_PROOF_STEP_BYTES, read_part, &r);
  else
    read_part(&r, span);
}

void lupe_proof_marks_drain(lupe_proof_marks *m) {
  for (;;) {
    if (m->visit_next == m->visit_count) take_visits(m);
    if (m->visit_count == 0) return;
    if (LUPE_PROOF_TRY()) {
      while (m->visit_next < m->visit_count) read_object(m, (uint32_t)m->visit_next++);
    } else {
      m->scan->hidden |= LUPE_HIDDEN_UNREADABLE; /* and on with the next */
    }
    lupe_proof_untry();
    meet_all(m);
  }
}

/* ---- marking ---- */

/* jemalloc's description of an extent holds its address: that is no pointer of the program's. */
static bool is_description(const lupe_proof_word *word, const lupe_proof_extent *e) {
  return word->at % LUPE_HEAP_DESCRIPTION_BYTES == DESCRIPTION_ADDRESS &&
         (uintptr_t)lupe_extent_description(e) == word->at - DESCRIPTION_ADDRESS;
}

/* jemalloc notes for each thread where of its tree the descriptions of a gigabyte stand: the address at which
 * that begins, and beside it one of its own. Where an object begins there, too, that is no pointer to it. */
static bool is_tree_key(const lupe_proof_marks *m, const lupe_proof_word *word) {
  uint64_t beside;
  if (word->value % (UINT64_C(1) << LUPE_HEAP_BLOCK_SHIFT) != 0) return false;
  if (word->at + 2 * sizeof beside > m->root_part.hi) return false;
  memcpy(&beside, (const void *)(uintptr_t)(word->at + sizeof beside), sizeof beside);
  return lupe_proof_metadata_has(m->heap, beside);
}

/* Blocks in a cache are free: they count as found, and are not read. */
static void leave_out_cached(lupe_proof_marks *m, lupe_proof_span cached) {
  for (uint64_t at = cached.lo; at < cached.hi; at += sizeof(uint64_t)) {
    uint64_t value = *(const uint64_t *)(uintptr_t)at & LUPE_HEAP_ADDRESS_MASK;
    const uint32_t *entry = lupe_proof_heap_entry(m->heap, value);
    if (!entry || *entry == 0) continue;
    const lupe_proof_extent *e = &m->heap->extents[*entry - 1];
    lupe_proof_set_bit(m->marked, e->first + lupe_extent_region_at(m->heap, e, value));
    lupe_proof_sample *sample = e->description & LUPE_EXTENT_SLAB ? NULL : lupe_proof_sample_of(m->heap, e);
    if (sample) sample->cached = true;
  }
}

/* Whether a root's pointer into `e` is a thread cache's, and leads nowhere. */
static bool is_cache(lupe_proof_marks *m, const lupe_proof_word *word, lupe_proof_extent *e, bool alone) {
  uint64_t base = lupe_extent_base(e), end = base + (uint64_t)e->pages * LUPE_HEAP_PAGE_BYTES;
  lupe_proof_span cached;
  lupe_proof_cache kind = lupe_proof_cache_bin(word->at, m->root_part, &cached);
  if (kind != LUPE_PROOF_CACHE_IN_USE) return kind == LUPE_PROOF_CACHE_EMPTY;
  if (!alone || cached.lo < base || cached.hi > end) return false;
  e->description |= LUPE_EXTENT_CACHE;
  leave_out_cached(m, cached);
  return true;
}

static void mark(lupe_proof_marks *m, const lupe_proof_word *word, lupe_proof_extent *e, uint32_t region) {
  const lupe_proof_visit *from = &m->visits[word->visit];
  bool of_root = from->extent == LUPE_PROOF_NONE, alone = (e->description & LUPE_EXTENT_SLAB) == 0;
  uint32_t number = e->first + region, holder = from->holder;
  if (of_root && (is_description(word, e) || is_tree_key(m, word) || is_cache(m, word, e, alone))) return;
  if (alone && from->extent != word->extent && word->value == lupe_extent_object(e))
    lupe_proof_set_bit(m->by_start, number);
  if (lupe_proof_bit(m->marked, number)) return;
  lupe_proof_set_bit(m->marked, number);
  lupe_proof_sample *sample = alone ? lupe_proof_sample_of(m->heap, e) : NULL;
  if (sample) {
    sample->holder = holder;
    sample->tid = m->tid;
    holder = (uint32_t)(sample - m->heap->samples);
  }
  lupe_proof_marks_push(m, word->extent, region, holder);
}

/* Reads all that is marked once more, where something had no room to wait. */
static void catch_up(lupe_proof_marks *m) {
  const lupe_proof_heap *h = m->heap;
  while (m->overflows > 0) {
    m->overflows = 0;
    for (size_t i = 0; i < h->extent_count; i++) {
      const lupe_proof_extent *e = &h->extents[i];
      if ((e->description & LUPE_EXTENT_USED) == 0) continue;
      for (uint32_t region = 0; region < lupe_extent_regions(e); region++) {
        if (!lupe_proof_bit(m->marked, e->first + region)) continue;
        lupe_proof_marks_push(m, (uint32_t)i, region, LUPE_PROOF_NONE);
        if (m->waiting_count > DRAIN_FROM) lupe_proof_marks_drain(m);
      }
    }
    lupe_proof_marks_drain(m);
  }
}

static void drain_all(lupe_proof_marks *m) {
  lupe_proof_marks_drain(m);
  catch_up(m);
}

/* ---- roots ---- */

static void begin_root(lupe_proof_marks *m, lupe_proof_span part) {
  m->root_part = part;
  m->visits[0] = (lupe_proof_visit){.extent = LUPE_PROOF_NONE, .holder = LUPE_PROOF_NONE};
  m->visit_count = m->visit_next = 0;
}

static void read_root_words(lupe_proof_marks *m, uint64_t at, size_t bytes) {
  begin_root(m, (lupe_proof_span){at, at + bytes});
  if (LUPE_PROOF_TRY())
    find_words(m, at, bytes, 0);
  else
    m->scan->hidden |= LUPE_HIDDEN_UNREADABLE;
  lupe_proof_untry();
  meet_all(m);
  if (m->waiting_count > DRAIN_FROM) lupe_proof_marks_drain(m);
}

static void read_root_part(void *arg, lupe_proof_span part) {
  read_root_words(arg, part.lo, part.hi - part.lo);
}

/* Code holds pointers anywhere: the words at multiples of 4, from each of the first four bytes on. */
static void read_code_part(void *arg, lupe_proof_span part) {
  for (uint64_t shift = 0; shift < 4 && part.lo + shift + sizeof(uint64_t) <= part.hi; shift++)
    read_root_words(arg, part.lo + shift, part.hi - part.lo - shift);
}

static lupe_proof_root_kind kind_now;
static void read_gap(void *arg, lupe_proof_span gap) {
  lupe_proof_marks *m = arg;
  lupe_proof_present(m->heap->roots, kind_now, gap, LUPE_PROOF_STEP_BYTES,
                     kind_now == LUPE_ROOT_CODE ? read_code_part : read_root_part, m);
}

static void read_root(lupe_proof_marks *m, const lupe_proof_root *r) {
  kind_now = r->kind;
  if (r->kind == LUPE_ROOT_ANONYMOUS || r->kind == LUPE_ROOT_STACK)
    lupe_proof_heap_gaps(m->heap, r->span, read_gap, m);
  else
    read_gap(m, r->span);
}

static void read_roots(lupe_proof_marks *m, const uint64_t *pointers, size_t pointer_count) {
  const lupe_proof_roots *roots = m->heap->roots;
  begin_root(m, (lupe_proof_span){0, 0});
  for (size_t i = 0; i < pointer_count; i++) {
    uint64_t value = pointers[i] & LUPE_HEAP_ADDRESS_MASK;
    if (value < m->heap->lo || value >= m->heap->hi) continue;
    m->words[m->word_count++] = (lupe_proof_word){.value = value};
    if (m->word_count == LUPE_PROOF_WORDS_MAX) meet_all(m);
  }
  meet_all(m);
  for (size_t i = 0; i < roots->count; i++) {
    if (roots->list[i].kind != LUPE_ROOT_STACK) read_root(m, &roots->list[i]);
  }
  drain_all(m);
  for (size_t i = 0; i < roots->count; i++) {
    if (roots->list[i].kind != LUPE_ROOT_STACK) continue;
    m->tid = roots->list[i].tid;
    read_root(m, &roots->list[i]);
    drain_all(m);
  }
  m->tid = 0;
}

static void settle_samples(const lupe_proof_marks *m) {
  const lupe_proof_heap *h = m->heap;
  for (size_t i = 0; i < h->sample_count; i++) {
    lupe_proof_sample *s = &h->samples[i];
    uint32_t number = h->extents[s->extent].first;
    if (!lupe_proof_bit(m->marked, number))
      s->state = LUPE_PROOF_UNSETTLED;
    else if (s->tid != 0)
      s->state = LUPE_PROOF_STACK_ONLY;
    else
      s->state = lupe_proof_bit(m->by_start, number) ? LUPE_PROOF_REACHABLE : LUPE_PROOF_INTERIOR;
  }
}

/* Freed samples are none. */
static void drop_cached(lupe_proof_heap *h) {
  uint32_t kept = 0, *moved = lupe_proof_table(h->scan, h->sample_count * sizeof *moved, 0);
  for (size_t i = 0; i < h->sample_count; i++) {
    lupe_proof_sample *s = &h->samples[i];
    while (s->holder != LUPE_PROOF_NONE && h->samples[s->holder].cached)
      s->holder = h->samples[s->holder].holder;
    moved[i] = s->cached ? LUPE_PROOF_NONE : kept++;
  }
  kept = 0;
  for (size_t i = 0; i < h->sample_count; i++) {
    lupe_proof_sample s = h->samples[i];
    if (s.cached) continue;
    if (s.holder != LUPE_PROOF_NONE) s.holder = moved[s.holder];
    h->samples[kept++] = s;
  }
  h->sample_count = kept;
}

void lupe_proof_marks_make(lupe_proof_marks *out, lupe_proof_heap *h, const uint64_t *pointers,
                           size_t pointer_count) {
  size_t bits_bytes = (h->regions / 64 + 1) * sizeof(uint64_t);
  *out = (lupe_proof_marks){.scan = h->scan, .heap = h, .meet = mark};
  out->marked = lupe_proof_table(h->scan, bits_bytes, bits_bytes);
  out->by_start = lupe_proof_table(h->scan, bits_bytes, bits_bytes / 8);
  /* Each waits once, and a large one for its next step only: so there is no overflow in a smaller heap. */
  out->waiting_max = h->regions < WAITING_MAX ? h->regions : WAITING_MAX;
  out->waiting = lupe_proof_table(h->scan, out->waiting_max * sizeof *out->waiting, 0);
  size_t words_bytes = LUPE_PROOF_MET_MAX * sizeof *out->words;
  out->words = lupe_proof_table(h->scan, words_bytes, words_bytes);
  read_roots(out, pointers, pointer_count);
  settle_samples(out);
  drop_cached(h);
}

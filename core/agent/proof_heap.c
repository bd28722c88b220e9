#include "core/agent/proof_heap.h"

#include "core/agent/jemalloc.h"
#include "core/agent/proof_metadata.h"
#include "core/agent/proof_samples.h"

enum {
  EXTENTS_MAX = 1 << 26,
  SLOTS_MAX = 1 << 12, /* 4 TiB */
  BLOCKS = 1 << (47 - LUPE_HEAP_BLOCK_SHIFT),
  BATCH = 1024,        /* addresses asked about at once */
  SLAB_PAGES_MAX = 32, /* so that `inverse` is exact; jemalloc's largest has 7 */
  SLAB_REGIONS_MAX = 512,
  SIZE_CLASSES = 232,
  ODD_FREE = 100, /* so many may be not understood, or one in ODD_SHARE */
  ODD_SHARE = 100,
};

/* What jemalloc answers for one address. */
typedef struct answer {
  size_t free_regions, regions, bytes;
} answer;

typedef struct mapping {
  lupe_proof_heap *heap;
  size_t extents_max;
  uint32_t slots_max;
  uint64_t counted; /* blocks below this one have their slots */
  size_t query[LUPE_MIB_MAX], query_length;
  unsigned char *asked; /* by block: 0 not yet, 1 jemalloc knows of it, 2 it does not */
  uint64_t odd;
} mapping;

/* ---- which extents there are ---- */

static bool ask(const mapping *m, const uint64_t *addresses, size_t count, answer *out) {
  size_t bytes = count * sizeof *out;
  return mallctlbymib(m->query, m->query_length, out, &bytes, (void *)(uintptr_t)addresses,
                      count * sizeof *addresses) == 0;
}

/* jemalloc faults when it is asked about a block that it never had to do with. */
static bool knows_block(mapping *m, uint64_t address) {
  unsigned char *state = &m->asked[address >> LUPE_HEAP_BLOCK_SHIFT];
  if (*state == 0) {
    answer ignored;
    if (LUPE_PROOF_TRY())
      *state = ask(m, &address, 1, &ignored) ? 1 : 2;
    else
      *state = 2;
    lupe_proof_untry();
  }
  return *state == 1;
}

static uint32_t *page_entry(const mapping *m, uint64_t address) {
  lupe_proof_heap *h = m->heap;
  uint32_t *slot = &h->blocks[address >> LUPE_HEAP_BLOCK_SHIFT];
  if (*slot == 0) {
    if (h->slots == m->slots_max) lupe_proof_give_up(h->scan, LUPE_PROOF_TABLES, 0);
    *slot = ++h->slots;
  }
  return lupe_proof_heap_entry(h, address);
}

/* Until its description is found: the regions as jemalloc tells, in `description`, and how many are free. Of
 * a slab that was given up it tells regions that it has not; 0 then. */
static void add_extent(mapping *m, uint64_t base, const answer *a) {
  lupe_proof_heap *h = m->heap;
  bool sound = a->regions >= 1 && a->regions <= SLAB_REGIONS_MAX && a->free_regions <= a->regions;
  if (h->extent_count == m->extents_max) lupe_proof_give_up(h->scan, LUPE_PROOF_TABLES, 0);
  h->extents[h->extent_count] = (lupe_proof_extent){
      .base = base,
      .description = sound ? (uint64_t)a->regions << 48 : 0,
      .pages = (uint32_t)(a->bytes / LUPE_HEAP_PAGE_BYTES),
      .first = (uint32_t)a->free_regions,
  };
  *page_entry(m, base) = (uint32_t)++h->extent_count;
  lupe_proof_charge(h->scan, sizeof(lupe_proof_extent));
}

static bool plausible(const answer *a, uint64_t base, uint64_t end) {
  return a->bytes % LUPE_HEAP_PAGE_BYTES == 0 && a->bytes <= end - base &&
         a->bytes / LUPE_HEAP_PAGE_BYTES <= UINT32_MAX;
}

static void walk(mapping *m, lupe_proof_span span) {
  uint64_t addresses[BATCH];
  static answer answers[BATCH];
  for (uint64_t at = span.lo; at < span.hi;) {
    uint64_t block_end = ((at >> LUPE_HEAP_BLOCK_SHIFT) + 1) << LUPE_HEAP_BLOCK_SHIFT;
    if (!knows_block(m, at)) {
      at = block_end;
      continue;
    }
    uint64_t end = block_end < span.hi ? block_end : span.hi;
    size_t count = 0;
    for (uint64_t next = at; next < end && count < BATCH; next += LUPE_HEAP_PAGE_BYTES)
      addresses[count++] = next;
    if (!ask(m, addresses, count, answers)) lupe_proof_give_up(m->heap->scan, LUPE_PROOF_NOT_UNDERSTOOD, 0);
    uint64_t next = at;
    for (size_t i = 0; i < count; i = (size_t)((next - at) / LUPE_HEAP_PAGE_BYTES)) {
      next += LUPE_HEAP_PAGE_BYTES;
      if (answers[i].bytes == 0) continue;
      if (plausible(&answers[i], addresses[i], span.hi)) {
        add_extent(m, addresses[i], &answers[i]);
        next = addresses[i] + answers[i].bytes;
      } else {
        m->odd++;
      }
    }
    at = next;
    lupe_proof_pass(m->heap->scan, count);
  }
}

/* Extents may lie across roots that touch, and begin anywhere above a thread's storage. */
static void for_each_area(mapping *m, void (*take)(mapping *m, lupe_proof_span area)) {
  const lupe_proof_roots *r = m->heap->roots;
  for (size_t i = 0; i < r->count;) {
    lupe_proof_span span = r->list[i].span;
    lupe_proof_root_kind kind = r->list[i++].kind;
    if (kind != LUPE_ROOT_ANONYMOUS && kind != LUPE_ROOT_STACK) continue;
    while (i < r->count && r->list[i].span.lo == span.hi && r->list[i].kind == LUPE_ROOT_ANONYMOUS)
      span.hi = r->list[i++].span.hi;
    span.lo = (span.lo + LUPE_HEAP_PAGE_BYTES - 1) & -(uint64_t)LUPE_HEAP_PAGE_BYTES;
    if (span.lo < span.hi && span.hi <= LUPE_HEAP_ADDRESS_MASK) take(m, span); /* jemalloc's are not above */
  }
}

/* An extent has a page at least. */
static void count_area(mapping *m, lupe_proof_span area) {
  uint64_t first = area.lo >> LUPE_HEAP_BLOCK_SHIFT, end = ((area.hi - 1) >> LUPE_HEAP_BLOCK_SHIFT) + 1;
  m->extents_max += (area.hi - area.lo + LUPE_HEAP_PAGE_BYTES - 1) / LUPE_HEAP_PAGE_BYTES;
  if (first < m->counted) first = m->counted; /* areas ascend */
  if (end > first) m->slots_max += (uint32_t)(end - first);
  m->counted = end;
}

/* As large as the process needs: not every kernel gives address space for nothing. */
static void make_tables(mapping *m) {
  lupe_proof_heap *h = m->heap;
  for_each_area(m, count_area);
  if (m->extents_max > EXTENTS_MAX) m->extents_max = EXTENTS_MAX;
  if (m->slots_max > SLOTS_MAX) m->slots_max = SLOTS_MAX;
  h->extents = lupe_proof_table(h->scan, m->extents_max * sizeof *h->extents, 0);
  h->blocks = lupe_proof_table(h->scan, BLOCKS * sizeof *h->blocks, 0);
  h->pages = lupe_proof_table(h->scan, (size_t)m->slots_max * LUPE_HEAP_BLOCK_PAGES * sizeof *h->pages, 0);
  m->asked = lupe_proof_table(h->scan, BLOCKS, 0);
}

/* ---- their descriptions ---- */

static unsigned count_bits(const uint64_t *words, uint32_t bits) {
  unsigned sum = 0;
  for (uint32_t i = 0; i < bits; i += 64) {
    uint64_t word = words[i / 64];
    if (bits - i < 64) word &= (UINT64_C(1) << (bits - i)) - 1;
    sum += (unsigned)__builtin_popcountll(word);
  }
  return sum;
}

static void describe(lupe_proof_extent *e, const uint64_t *d) {
  uint32_t regions = (uint32_t)(e->description >> 48);
  unsigned state = d[0] >> 17 & 7, free_regions = d[0] >> 28 & 0x3ff;
  bool slab = (d[0] >> 12 & 1) != 0, of_a_class = (d[0] >> 20 & 0xff) < SIZE_CLASSES;
  if (state != 0 ||
      !of_a_class) { /* the latter: one that was merged into another, and is kept for the next */
    if ((e->description & LUPE_EXTENT_USED) == 0) e->description |= LUPE_EXTENT_FREE;
    return;
  }
  if (slab && (regions == 0 || d[1] != e->base || free_regions != e->first ||
               count_bits(d + 8, regions) != free_regions))
    return;
  if (!slab && regions != 1) return;
  if (e->description & LUPE_EXTENT_USED) {
    e->description |= LUPE_EXTENT_DOUBTFUL; /* two that say so */
    return;
  }
  e->description = (uint64_t)regions << 48 | (uintptr_t)d | LUPE_EXTENT_USED | (slab ? LUPE_EXTENT_SLAB : 0);
}

/* Anywhere in memory that belongs to no extent, at multiples of their size. */
static void search_part(void *arg, lupe_proof_span part) {
  mapping *m = arg;
  lupe_proof_heap *h = m->heap;
  if (!LUPE_PROOF_TRY()) {
    h->scan->hidden |= LUPE_HIDDEN_UNREADABLE;
    lupe_proof_untry();
    return;
  }
  uint64_t at = (part.lo + LUPE_HEAP_DESCRIPTION_BYTES - 1) & -(uint64_t)LUPE_HEAP_DESCRIPTION_BYTES;
  for (; at + LUPE_HEAP_DESCRIPTION_BYTES <= part.hi; at += LUPE_HEAP_DESCRIPTION_BYTES) {
    const uint64_t *d = (const uint64_t *)(uintptr_t)at;
    if (d[1] < h->lo || d[1] >= h->hi) continue;
    const uint32_t *entry = lupe_proof_heap_entry(h, d[1]);
    if (!entry || *entry == 0) continue;
    lupe_proof_extent *e = &h->extents[*entry - 1];
    if (e->base != (d[1] & -(uint64_t)LUPE_HEAP_PAGE_BYTES) ||
        (d[2] & -(uint64_t)LUPE_HEAP_PAGE_BYTES) != (uint64_t)e->pages * LUPE_HEAP_PAGE_BYTES)
      continue;
    describe(e, d);
  }
  lupe_proof_untry();
  lupe_proof_read(h->scan, part.hi - part.lo);
}

static void search_gap(void *arg, lupe_proof_span gap) {
  mapping *m = arg;
  lupe_proof_present(m->heap->roots, LUPE_ROOT_ANONYMOUS, gap, SIZE_MAX, search_part, m);
}

/* ---- gaps ---- */

/* Without jemalloc's own blocks. */
static void take_foreign(const lupe_proof_heap *h, lupe_proof_span gap,
                         void (*take)(void *arg, lupe_proof_span gap), void *arg) {
  for (size_t i = 0; i < h->metadata_count && h->metadata[i].lo < gap.hi; i++) {
    lupe_proof_span own = h->metadata[i];
    if (own.hi <= gap.lo) continue;
    if (own.lo > gap.lo) take(arg, (lupe_proof_span){gap.lo, own.lo});
    gap.lo = own.hi;
    if (gap.lo >= gap.hi) return;
  }
  take(arg, gap);
}

/* The first extent that ends behind `address`. */
static size_t first_extent(const lupe_proof_heap *h, uint64_t address) {
  size_t low = 0, high = h->extent_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    const lupe_proof_extent *e = &h->extents[middle];
    if (lupe_extent_base(e) + (uint64_t)e->pages * LUPE_HEAP_PAGE_BYTES <= address)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

void lupe_proof_heap_gaps(const lupe_proof_heap *h, lupe_proof_span span,
                          void (*take)(void *arg, lupe_proof_span gap), void *arg) {
  uint64_t at = span.lo;
  for (size_t i = first_extent(h, span.lo); i < h->extent_count && lupe_extent_base(&h->extents[i]) < span.hi;
       i++) {
    const lupe_proof_extent *e = &h->extents[i];
    uint64_t base = lupe_extent_base(e), end = base + (uint64_t)e->pages * LUPE_HEAP_PAGE_BYTES;
    bool understood = (e->description & (LUPE_EXTENT_USED | LUPE_EXTENT_FREE)) != 0;
    if (h->regions != 0 && !understood) continue; /* described by nobody: read as a gap */
    if (base > at) take_foreign(h, (lupe_proof_span){at, base}, take, arg);
    if (end > at) at = end;
  }
  if (at < span.hi) take_foreign(h, (lupe_proof_span){at, span.hi}, take, arg);
}

static void search_all(mapping *m) {
  const lupe_proof_roots *r = m->heap->roots;
  for (size_t i = 0; i < r->count; i++) {
    if (r->list[i].kind == LUPE_ROOT_ANONYMOUS) lupe_proof_heap_gaps(m->heap, r->list[i].span, search_gap, m);
  }
}

/* ---- what is in use ---- */

static bool settle_slab(lupe_proof_heap *h, lupe_proof_extent *e) {
  uint32_t regions = lupe_extent_regions(e);
  unsigned class = lupe_extent_description(e)[0] >> 20 & 0xff;
  uint64_t bytes = (uint64_t)e->pages * LUPE_HEAP_PAGE_BYTES;
  if (class >= LUPE_HEAP_CLASSES || e->pages > SLAB_PAGES_MAX) return false;
  lupe_proof_class *c = &h->classes[class];
  if (c->size_bytes == 0) {
    size_t size = sallocx((const void *)(uintptr_t)e->base, 0);
    if (size == 0 || size > bytes) return false;
    *c = (lupe_proof_class){(uint32_t)size, (uint32_t)((UINT64_C(1) << 32) / size + 1)};
  }
  if ((uint64_t)c->size_bytes * regions > bytes) return false;
  h->objects += regions - e->first;
  h->bytes += (uint64_t)(regions - e->first) * c->size_bytes;
  e->base |= class;
  return true;
}

static void settle_object(lupe_proof_heap *h, const lupe_proof_extent *e) {
  h->objects++;
  h->bytes += sallocx((const void *)(uintptr_t)lupe_extent_object(e), 0);
}

void lupe_proof_heap_doubt(const lupe_proof_heap *h, uint64_t odd, uint64_t all) {
  if (odd > ODD_FREE && odd > all / ODD_SHARE) lupe_proof_give_up(h->scan, LUPE_PROOF_NOT_UNDERSTOOD, 0);
}

/* Extents of which nothing is known, or too much, are not in use as far as objects go: they are read as
 * roots. */
static void settle(mapping *m) {
  lupe_proof_heap *h = m->heap;
  uint64_t unknown = 0, first = 0;
  for (size_t i = 0; i < h->extent_count; i++) {
    lupe_proof_extent *e = &h->extents[i];
    uint64_t base = e->base;
    bool used = (e->description & LUPE_EXTENT_USED) != 0 && (e->description & LUPE_EXTENT_DOUBTFUL) == 0;
    *page_entry(m, base) = 0;
    if (used && (e->description & LUPE_EXTENT_SLAB)) {
      used = settle_slab(h, e);
    } else if (used) {
      settle_object(h, e);
    }
    if (!used) {
      if ((e->description & LUPE_EXTENT_FREE) == 0 || (e->description & LUPE_EXTENT_USED)) {
        e->description = 0;
        unknown++;
      }
      continue;
    }
    e->first = (uint32_t)first;
    first += lupe_extent_regions(e);
    if (first > UINT32_MAX) lupe_proof_give_up(h->scan, LUPE_PROOF_TABLES, 0);
    for (uint32_t page = 0; page < e->pages; page++)
      *page_entry(m, base + (uint64_t)page * LUPE_HEAP_PAGE_BYTES) = (uint32_t)i + 1;
    lupe_proof_charge(h->scan, e->pages * sizeof *h->pages);
  }
  h->regions = first;
  unknown += m->odd;
  if (h->extent_count == 0) lupe_proof_give_up(h->scan, LUPE_PROOF_NOT_UNDERSTOOD, 0);
  lupe_proof_heap_doubt(h, unknown, h->extent_count);
}

/* ---- all of it ---- */

/* Where all extents are. */
static void find_bounds(lupe_proof_heap *h) {
  if (h->extent_count == 0) return;
  const lupe_proof_extent *last = &h->extents[h->extent_count - 1];
  h->lo = h->extents[0].base;
  h->hi = last->base + (uint64_t)last->pages * LUPE_HEAP_PAGE_BYTES;
}

void lupe_proof_heap_map(lupe_proof_heap *out, lupe_proof_scan *s, const lupe_proof_roots *roots) {
  mapping m = {.heap = out, .query_length = sizeof m.query / sizeof m.query[0]};
  *out = (lupe_proof_heap){.scan = s, .roots = roots};
  if (!sallocx || mallctlnametomib("experimental.utilization.batch_query", m.query, &m.query_length) != 0)
    lupe_proof_give_up(s, LUPE_PROOF_NOT_UNDERSTOOD, 0);
  make_tables(&m);
  for_each_area(&m, walk);
  find_bounds(out);
  search_all(&m);
  settle(&m);
  lupe_proof_metadata_find(out);
  lupe_proof_samples_find(out);
}

/* Checks a snapshot that came from elsewhere: afterwards a reader may follow every offset, count, index and
 * string without looking. */
#include <math.h>
#include <stddef.h>

#include "core/store/snapshot.h"
#include "core/wire/proof.h"
#include "core/wire/record.h"

enum kind { PLAIN, INDEXES, OPTIONAL_INDEXES, DOUBLES, FLOATS };

/* The columns of the header: what their elements are, which count they must agree with, and for indexes the
 * column that they point into. Counts: 0 stands for "any". */
typedef struct rule {
  const char *name;
  size_t at; /* of the column, in the header */
  size_t element_bytes;
  enum kind kind;
  size_t like;   /* the column with as many elements; 0 none */
  size_t target; /* INDEXES: the column pointed into */
} rule;

#define AT(field) offsetof(lupe_snapshot_header, field)
static const rule rules[] = {
    {"strings", AT(strings), 1, PLAIN, 0, 0},
    {"targets", AT(targets), sizeof(lupe_snapshot_target), PLAIN, 0, 0},
    {"modules", AT(modules), sizeof(lupe_snapshot_module), PLAIN, 0, 0},
    {"functions", AT(functions), sizeof(lupe_snapshot_function), PLAIN, 0, 0},
    {"frames", AT(frames), sizeof(lupe_snapshot_frame), PLAIN, 0, 0},
    {"classes", AT(classes), sizeof(lupe_snapshot_size_class), PLAIN, 0, 0},
    {"memory", AT(memory), sizeof(lupe_memory_figures), PLAIN, 0, 0},
    {"tick_time_ms", AT(tick_time_ms), 8, DOUBLES, 0, 0},
    {"tick_inuse_space", AT(tick_inuse_space), 8, DOUBLES, AT(tick_time_ms), 0},
    {"tick_allocated", AT(tick_allocated), 8, DOUBLES, AT(tick_time_ms), 0},
    {"stack_first", AT(stack_first), 4, PLAIN, 0, 0},
    {"stack_frames", AT(stack_frames), 4, INDEXES, 0, AT(frames)},
    {"stack_site", AT(stack_site), 4, OPTIONAL_INDEXES, 0, AT(site_function)},
    {"stack_inuse_space", AT(stack_inuse_space), 8, DOUBLES, AT(stack_site), 0},
    {"stack_inuse_objects", AT(stack_inuse_objects), 8, DOUBLES, AT(stack_site), 0},
    {"stack_alloc_space", AT(stack_alloc_space), 8, DOUBLES, AT(stack_site), 0},
    {"stack_alloc_objects", AT(stack_alloc_objects), 8, DOUBLES, AT(stack_site), 0},
    {"site_function", AT(site_function), 4, INDEXES, 0, AT(functions)},
    {"site_inuse_space", AT(site_inuse_space), 8, DOUBLES, AT(site_function), 0},
    {"site_inuse_objects", AT(site_inuse_objects), 8, DOUBLES, AT(site_function), 0},
    {"site_alloc_space", AT(site_alloc_space), 8, DOUBLES, AT(site_function), 0},
    {"site_alloc_objects", AT(site_alloc_objects), 8, DOUBLES, AT(site_function), 0},
    {"site_first_seen_ms", AT(site_first_seen_ms), 8, DOUBLES, AT(site_function), 0},
    {"site_last_grown_ms", AT(site_last_grown_ms), 8, DOUBLES, AT(site_function), 0},
    {"site_history_space", AT(site_history_space), 4, FLOATS, 0, 0},
    {"site_history_objects", AT(site_history_objects), 4, FLOATS, AT(site_history_space), 0},
    {"site_history_alloc", AT(site_history_alloc), 4, FLOATS, AT(site_history_space), 0},
    {"site_top_stack", AT(site_top_stack), 4, INDEXES, AT(site_function), AT(stack_site)},
    {"inlines", AT(inlines), sizeof(lupe_snapshot_inline), PLAIN, 0, 0},
    {"threads", AT(threads), sizeof(lupe_snapshot_thread), PLAIN, 0, 0},
    {"sample_stack", AT(sample_stack), 4, OPTIONAL_INDEXES, AT(sample_thread), AT(stack_site)},
    {"sample_thread", AT(sample_thread), 4, INDEXES, 0, AT(threads)},
    {"sample_state", AT(sample_state), 4, PLAIN, AT(sample_thread), 0},
    {"sample_count", AT(sample_count), 8, DOUBLES, AT(sample_thread), 0},
    {"sample_ns", AT(sample_ns), 8, DOUBLES, AT(sample_thread), 0},
    {"spans", AT(spans), sizeof(lupe_snapshot_span), PLAIN, 0, 0},
    {"span_buckets", AT(span_buckets), 8, DOUBLES, 0, 0},
    {"span_totals", AT(span_totals), sizeof(lupe_snapshot_span_total), PLAIN, 0, 0},
    {"proofs", AT(proofs), sizeof(lupe_snapshot_proof), PLAIN, 0, 0},
    {"proof_rows", AT(proof_rows), sizeof(lupe_snapshot_proof_row), PLAIN, 0, 0},
};

typedef struct block {
  const unsigned char *bytes;
  size_t size;
  const lupe_snapshot_header *header;
} block;

static const lupe_snapshot_column *column_at(const block *b, size_t at) {
  return (const lupe_snapshot_column *)(b->bytes + at);
}

static const void *data_of(const block *b, const lupe_snapshot_column *c) {
  return b->bytes + c->offset;
}

static bool figure(double x) {
  return isfinite(x) && x >= 0;
}

/* Where a column lies. */
static bool placed(const block *b, const rule *r) {
  const lupe_snapshot_column *c = column_at(b, r->at);
  if (c->offset % 8 != 0 || c->offset < sizeof(lupe_snapshot_header) || c->offset > b->size) return false;
  if (c->count > UINT32_MAX || c->count > (b->size - c->offset) / r->element_bytes) return false;
  return !r->like || c->count == column_at(b, r->like)->count;
}

/* What a column holds, where that can be said for each element alone. */
static bool filled(const block *b, const rule *r) {
  const lupe_snapshot_column *c = column_at(b, r->at);
  const void *data = data_of(b, c);
  switch (r->kind) {
    case INDEXES:
    case OPTIONAL_INDEXES: /* UINT32_MAX: none */
      for (size_t i = 0; i < c->count; i++) {
        uint32_t index = ((const uint32_t *)data)[i];
        if (r->kind == OPTIONAL_INDEXES && index == UINT32_MAX) continue;
        if (index >= column_at(b, r->target)->count) return false;
      }
      return true;
    case DOUBLES:
      for (size_t i = 0; i < c->count; i++) {
        if (!figure(((const double *)data)[i])) return false;
      }
      return true;
    case FLOATS:
      for (size_t i = 0; i < c->count; i++) {
        if (!figure((double)((const float *)data)[i])) return false;
      }
      return true;
    case PLAIN:
      return true;
  }
  return false;
}

static const char *check_names(const block *b) {
  const lupe_snapshot_header *h = b->header;
  const char *strings = data_of(b, &h->strings);
  size_t bytes = h->strings.count;
  if (bytes == 0 || strings[0] != '\0' || strings[bytes - 1] != '\0') return "strings: not terminated";
  const lupe_snapshot_target *targets = data_of(b, &h->targets);
  for (size_t i = 0; i < h->targets.count; i++) {
    const lupe_snapshot_target *t = &targets[i];
    if (t->name >= bytes || t->allocator >= bytes) return "targets: a string out of bounds";
    if (!figure(t->first_ms) || !figure(t->last_ms) || !figure(t->memory.time_ms)) return "targets: a time";
  }
  const lupe_snapshot_module *modules = data_of(b, &h->modules);
  for (size_t i = 0; i < h->modules.count; i++) {
    if (modules[i].path >= bytes || modules[i].build_id >= bytes) return "modules: a string out of bounds";
  }
  const lupe_snapshot_function *functions = data_of(b, &h->functions);
  for (size_t i = 0; i < h->functions.count; i++) {
    if (functions[i].name >= bytes || functions[i].file >= bytes) return "functions: a string out of bounds";
    if (functions[i].module >= h->modules.count) return "functions: a module out of bounds";
  }
  const lupe_snapshot_frame *frames = data_of(b, &h->frames);
  for (size_t i = 0; i < h->frames.count; i++) {
    if (frames[i].file >= bytes) return "frames: a string out of bounds";
    if (frames[i].module >= h->modules.count) return "frames: a module out of bounds";
    if (frames[i].function >= h->functions.count) return "frames: a function out of bounds";
    if ((uint64_t)frames[i].inline_first + frames[i].inline_count > h->inlines.count)
      return "frames: an inlined call out of bounds";
  }
  const lupe_snapshot_inline *inlines = data_of(b, &h->inlines);
  for (size_t i = 0; i < h->inlines.count; i++) {
    if (inlines[i].name >= bytes || inlines[i].file >= bytes) return "inlines: a string out of bounds";
  }
  const lupe_snapshot_thread *threads = data_of(b, &h->threads);
  for (size_t i = 0; i < h->threads.count; i++) {
    if (threads[i].name >= bytes) return "threads: a string out of bounds";
    if (threads[i].target >= h->targets.count) return "threads: a target out of bounds";
    if (!figure(threads[i].switches)) return "threads: a count";
  }
  const lupe_snapshot_span *spans = data_of(b, &h->spans);
  for (size_t i = 0; i < h->spans.count; i++) {
    if (spans[i].name >= bytes) return "spans: a string out of bounds";
    if (spans[i].target >= h->targets.count) return "spans: a target out of bounds";
    if (!figure(spans[i].count) || !figure(spans[i].total_ns) || !figure(spans[i].max_ns))
      return "spans: a figure";
    if (spans[i].function >= h->functions.count && spans[i].function != UINT32_MAX)
      return "spans: a function out of bounds";
  }
  const lupe_snapshot_span_total *totals = data_of(b, &h->span_totals);
  for (size_t i = 0; i < h->span_totals.count; i++) {
    if (totals[i].name >= bytes) return "span_totals: a string out of bounds";
    if (!figure(totals[i].count) || !figure(totals[i].total_ns)) return "span_totals: a figure";
  }
  return NULL;
}

static const char *check_shape(const block *b) {
  const lupe_snapshot_header *h = b->header;
  if (!figure(h->time_ms) || !figure(h->started_ms)) return "header: a time";
  if (!figure(h->profile_from_ms) || !figure(h->profile_to_ms) || h->profile_to_ms < h->profile_from_ms)
    return "header: the window of the profile";
  if (!figure(h->span_from_ms) || !figure(h->span_to_ms) || h->span_to_ms < h->span_from_ms)
    return "header: the window of the spans";
  if (h->tick_count > LUPE_SNAPSHOT_TICKS_MAX || h->tick_time_ms.count != h->tick_count)
    return "tick_count: out of bounds";
  uint64_t sites = h->site_function.count, stacks = h->stack_site.count;
  if (h->site_history_space.count != sites * h->tick_count) return "site_history_space: not sites x ticks";
  if (h->span_buckets.count != h->spans.count * LUPE_SNAPSHOT_SPAN_BUCKETS)
    return "span_buckets: not as many for each span";
  if (h->stack_first.count != stacks + 1) return "stack_first: not one more than stacks";
  const uint32_t *first = data_of(b, &h->stack_first);
  if (first[0] != 0 || first[stacks] != h->stack_frames.count) return "stack_first: not all of stack_frames";
  for (size_t i = 0; i < stacks; i++) {
    if (first[i + 1] <= first[i] || first[i + 1] - first[i] > LUPE_MAX_FRAMES) return "stack_first: a depth";
  }
  const double *times = data_of(b, &h->tick_time_ms);
  for (size_t i = 1; i < h->tick_count; i++) {
    if (!(times[i] > times[i - 1])) return "tick_time_ms: not ascending";
  }
  const lupe_memory_figures *memory = data_of(b, &h->memory);
  for (size_t i = 0; i < h->memory.count; i++) {
    if (!figure(memory[i].time_ms)) return "memory: a time";
  }
  /* A site's best stack is one of its own: so every site has one. */
  const uint32_t *top = data_of(b, &h->site_top_stack), *site = data_of(b, &h->stack_site);
  for (size_t i = 0; i < sites; i++) {
    if (site[top[i]] != i) return "site_top_stack: a stack of another site";
  }
  return NULL;
}

static bool figures(const double *all, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (!figure(all[i])) return false;
  }
  return true;
}

static const char *check_proofs(const block *b) {
  const lupe_snapshot_header *h = b->header;
  const lupe_snapshot_proof *proofs = data_of(b, &h->proofs);
  for (size_t i = 0; i < h->proofs.count; i++) {
    const lupe_snapshot_proof *p = &proofs[i];
    if (p->target >= h->targets.count) return "proofs: a target out of bounds";
    if (i > 0 && p->target <= proofs[i - 1].target) return "proofs: not in the order of their targets";
    if (p->outcome >= LUPE_PROOF_OUTCOMES) return "proofs: an outcome";
    const double all[] = {p->time_ms,
                          p->elapsed_ns,
                          p->pause_ns,
                          p->anonymous_bytes,
                          p->read_bytes,
                          p->scanned_ms,
                          p->interval_ms,
                          p->scan_ns,
                          p->table_bytes,
                          p->sample_period_bytes,
                          p->heap_objects,
                          p->heap_bytes,
                          p->unreachable_objects,
                          p->unreachable_bytes};
    if (!figures(all, sizeof all / sizeof all[0])) return "proofs: a figure";
  }
  const lupe_snapshot_proof_row *rows = data_of(b, &h->proof_rows);
  const uint32_t *site = data_of(b, &h->stack_site);
  uint64_t stacks = h->stack_site.count;
  for (size_t i = 0; i < h->proof_rows.count; i++) {
    const lupe_snapshot_proof_row *r = &rows[i];
    if (r->proof >= h->proofs.count) return "proof_rows: a proof out of bounds";
    if (r->stack >= stacks || (r->holder_stack != UINT32_MAX && r->holder_stack >= stacks) ||
        (r->head_stack != UINT32_MAX && r->head_stack >= stacks))
      return "proof_rows: a stack out of bounds";
    if (site[r->stack] == UINT32_MAX) return "proof_rows: a stack without a site";
    if (i > 0 && (r->proof < r[-1].proof || (r->proof == r[-1].proof && r->stack <= r[-1].stack)))
      return "proof_rows: not in order";
    const double all[] = {r->objects,          r->bytes,         r->unreachable_objects, r->unreachable_bytes,
                          r->objects_variance, r->bytes_variance};
    if (!figures(all, sizeof all / sizeof all[0])) return "proof_rows: a figure";
  }
  return NULL;
}

static lupe_status answer(lupe_status status, const char *text, const char **why) {
  if (why) *why = text;
  return status;
}

lupe_status lupe_snapshot_validate(const void *bytes, size_t size, const char **why) {
  const block b = {.bytes = bytes, .size = size, .header = bytes};
  if (size < sizeof(lupe_snapshot_header)) return answer(LUPE_ECORRUPT, "header: cut off", why);
  if ((uintptr_t)bytes % 8 != 0) return answer(LUPE_ECORRUPT, "header: not aligned to 8 bytes", why);
  if (b.header->magic != LUPE_SNAPSHOT_MAGIC) return answer(LUPE_ECORRUPT, "magic: not a snapshot", why);
  if (b.header->version != LUPE_SNAPSHOT_VERSION) return answer(LUPE_EVERSION, "version: not known", why);
  if (b.header->header_bytes != sizeof(lupe_snapshot_header) || b.header->total_bytes != size)
    return answer(LUPE_ECORRUPT, "total_bytes: not the size", why);
  for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
    if (!placed(&b, &rules[i])) return answer(LUPE_ECORRUPT, rules[i].name, why);
  }
  for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
    if (!filled(&b, &rules[i])) return answer(LUPE_ECORRUPT, rules[i].name, why);
  }
  const char *wrong = check_names(&b);
  if (!wrong) wrong = check_shape(&b);
  if (!wrong) wrong = check_proofs(&b);
  return wrong ? answer(LUPE_ECORRUPT, wrong, why) : answer(LUPE_OK, "", why);
}

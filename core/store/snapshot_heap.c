/* The part of a snapshot that tells of the heap: stacks, sites and their history. */
#include <math.h>
#include <string.h>

#include "core/store/snapshot_build.h"
#include "core/wire/message.h"

enum { WANTED_SHARE = 200 /* a site with one part of the live memory has its lines looked for first */ };

void lupe__number_heap_stacks(lupe__builder *b) {
  for (size_t i = 0; i < b->target_count; i++) {
    size_t count = 0;
    const lupe_heap_row *rows =
        b->targets[i]->profile ? lupe_heap_profile_rows(b->targets[i]->profile, &count) : NULL;
    for (size_t k = 0; k < count; k++) lupe__add_stack(b, rows[k].stack, true);
  }
}

static void add_history(lupe__builder *b, const lupe_heap_profile *profile, bool hooked) {
  const lupe_snapshot_header *h = &b->header;
  double *inuse = lupe__column(b, &h->tick_inuse_space), *allocated = lupe__column(b, &h->tick_allocated);
  float *space = lupe__column(b, &h->site_history_space),
        *objects = lupe__column(b, &h->site_history_objects),
        *alloc = lupe__column(b, &h->site_history_alloc);
  const lupe_heap_column *columns[LUPE_SNAPSHOT_TICKS_MAX];
  uint64_t period = lupe_heap_profile_period(profile);
  size_t ticks = h->tick_count, first = ticks, count;
  for (size_t t = ticks; t-- > 0;) {
    columns[t] = lupe_heap_profile_column(profile, b->first_tick + t);
    if (!columns[t]) continue;
    first = t;
    inuse[t] += columns[t]->sum_space;
    allocated[t] += columns[t]->allocated_bytes;
  }
  /* Row by row: reads run along all columns at once, writes stay within one site. */
  const lupe_heap_row *rows = lupe_heap_profile_rows(profile, &count);
  for (size_t i = 0; i < count; i++) {
    size_t at = b->site_of[b->stack_of[rows[i].stack]] * ticks;
    double each = hooked ? lupe_heap_row_sample_bytes(&rows[i], period) : 0;
    for (size_t t = first; t < ticks; t++) {
      if (!columns[t] || i >= columns[t]->rows) continue;
      const float *values = &columns[t]->values[LUPE_HEAP_VALUES * i];
      space[at + t] += values[LUPE_HEAP_SPACE];
      objects[at + t] += values[LUPE_HEAP_OBJECTS];
      alloc[at + t] += (float)fmin(each * values[LUPE_HEAP_SAMPLES], LUPE_HISTORY_MAX);
    }
  }
}

static void add_target(lupe__builder *b, size_t target) {
  const lupe_snapshot_header *h = &b->header;
  const lupe_heap_profile *profile = b->targets[target]->profile;
  double *inuse_space = lupe__column(b, &h->stack_inuse_space),
         *inuse_objects = lupe__column(b, &h->stack_inuse_objects);
  double *alloc_space = lupe__column(b, &h->stack_alloc_space),
         *alloc_objects = lupe__column(b, &h->stack_alloc_objects);
  double *first_seen = lupe__column(b, &h->site_first_seen_ms);
  uint64_t period = lupe_heap_profile_period(profile);
  /* Without the hook nothing is known of what was allocated. */
  bool hooked = b->target_rows[target].heap_state == LUPE_HEAP_ON;
  size_t count;
  const lupe_heap_row *rows = lupe_heap_profile_rows(profile, &count);
  for (size_t i = 0; i < count; i++) {
    const lupe_heap_row *row = &rows[i];
    uint32_t stack = b->stack_of[row->stack];
    inuse_space[stack] += row->inuse_space;
    inuse_objects[stack] += row->inuse_objects;
    if (hooked) {
      double space, objects;
      lupe_heap_row_allocations(row, period, &space, &objects);
      alloc_space[stack] += space;
      alloc_objects[stack] += objects;
    }
    double *seen = &first_seen[b->site_of[stack]];
    if (row->first_seen_ms > 0 && (*seen == 0 || row->first_seen_ms < *seen)) *seen = row->first_seen_ms;
  }
  add_history(b, profile, hooked);
}

static void fill_sites(lupe__builder *b) {
  const lupe_snapshot_header *h = &b->header;
  const lupe_snapshot_column *from[] = {&h->stack_inuse_space, &h->stack_inuse_objects, &h->stack_alloc_space,
                                        &h->stack_alloc_objects};
  const lupe_snapshot_column *to[] = {&h->site_inuse_space, &h->site_inuse_objects, &h->site_alloc_space,
                                      &h->site_alloc_objects};
  for (size_t k = 0; k < 4; k++) {
    const double *stacks = lupe__column(b, from[k]);
    double *sites = lupe__column(b, to[k]);
    for (uint32_t i = 0; i < b->heap_stack_count; i++) sites[b->site_of[i]] += stacks[i];
  }
  const double *inuse = lupe__column(b, &h->stack_inuse_space),
               *alloc = lupe__column(b, &h->stack_alloc_space);
  uint32_t *top = lupe__column(b, &h->site_top_stack);
  for (uint32_t i = 0; i < b->site_count; i++) top[i] = LUPE__NONE;
  for (uint32_t i = 0; i < b->heap_stack_count; i++) {
    uint32_t *best = &top[b->site_of[i]];
    if (*best == LUPE__NONE || inuse[i] > inuse[*best] ||
        (inuse[i] == inuse[*best] && alloc[i] > alloc[*best]))
      *best = i;
  }
  double *grown = lupe__column(b, &h->site_last_grown_ms), *times = lupe__column(b, &h->tick_time_ms);
  const float *history = lupe__column(b, &h->site_history_space);
  memcpy(times, b->a->tick_ms + b->first_tick, h->tick_count * sizeof *times);
  for (uint32_t i = 0; i < b->site_count; i++, history += h->tick_count) {
    for (size_t t = h->tick_count; t-- > 0 && grown[i] == 0;) {
      if (history[t] > (t > 0 ? history[t - 1] : 0)) grown[i] = times[t];
    }
  }
}

/* Lines of the stacks that hold most of the memory come first. */
static void want_lines(const lupe__builder *b) {
  const lupe_snapshot_header *h = &b->header;
  const double *inuse = lupe__column(b, &h->site_inuse_space);
  const uint32_t *top = lupe__column(b, &h->site_top_stack);
  double all = 0;
  for (uint32_t i = 0; i < b->site_count; i++) all += inuse[i];
  for (uint32_t i = 0; i < b->site_count; i++) {
    const uint32_t *frames;
    size_t depth;
    if (inuse[i] * WANTED_SHARE < all) continue;
    if (lupe_stack_table_get(b->a->stacks, b->id_of[top[i]], &frames, &depth) == LUPE_OK)
      lupe_frame_names_want_lines(b->a->names, frames, depth);
  }
}

void lupe__fill_heap(lupe__builder *b) {
  for (size_t i = 0; i < b->target_count; i++) {
    if (b->targets[i]->profile) add_target(b, i);
  }
  fill_sites(b);
  want_lines(b);
}

/* Builds a snapshot of one target, or of several merged. Frames, functions and modules keep the numbers that
 * they have in the run's tables; stacks and sites are numbered afresh, as they come up in the targets. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/snapshot_build.h"
#include "core/unwanted.h"

/* -- what goes in ----------------------------------------------------------------------------- */

/* Whether a dead target belongs to the report at exit. A forked child that ended while its run went on left
 * nothing behind; its profile is mostly its parent's, whose heap it had inherited. */
static bool outlives(const lupe_aggregator *a, const lupe_target *t) {
  return !t->superseded && !(t->forked && a->last_ms - t->died_ms > a->heap_interval_ms);
}

/* Which targets a snapshot is of. */
typedef struct choice {
  int32_t pid; /* or LUPE_TARGET_ALL_LIVE, LUPE_TARGET_ALL, or with LUPE_TARGET_TREE */
  const lupe_target *one;
  lupe__tree tree;
} choice;

static bool is_tree(int32_t pid) {
  return pid > 0 && (pid & LUPE_TARGET_TREE) != 0;
}

static bool is_chosen(const lupe_aggregator *a, const lupe_target *t, const choice *c) {
  int32_t pid = c->pid;
  if (pid == LUPE_TARGET_ALL_LIVE) return t->status.live;
  if (pid == LUPE_TARGET_ALL) return t->status.live || outlives(a, t);
  return is_tree(pid) ? lupe__tree_shows(a, &c->tree, t) : t == c->one;
}

/* False: there is no such target. Caller holds `lock`. */
static bool choose(const lupe_aggregator *a, int32_t pid, choice *out) {
  *out = (choice){.pid = pid};
  if (pid == LUPE_TARGET_ALL_LIVE || pid == LUPE_TARGET_ALL) return true;
  if (is_tree(pid)) return lupe__tree_find(a, pid & ~LUPE_TARGET_TREE, &out->tree);
  out->one = lupe__target_find(a, pid);
  return out->one != NULL;
}

static lupe_status copy_memory(lupe__builder *b, const choice *c) {
  if (is_tree(c->pid)) return lupe__tree_memory(b->a, &c->tree, &b->memory, &b->memory_count);
  const lupe_series *series = c->one ? c->one->series : b->a->series;
  size_t rows = lupe_series_count(series);
  b->memory = calloc(rows + 1, sizeof *b->memory);
  if (!b->memory) return LUPE_ENOMEM;
  b->memory_count = lupe_series_copy(series, b->memory, rows);
  return LUPE_OK;
}

/* Of a program that came late the time before is no part of its history. */
static size_t first_tick_of(const lupe__builder *b) {
  size_t first = b->a->ticks;
  for (size_t i = 0; i < b->target_count; i++) {
    const lupe_target *t = b->targets[i];
    if (!t || !t->profile) continue;
    size_t tick = 0;
    while (tick < first && !lupe_heap_profile_column(t->profile, tick)) tick++;
    first = tick;
  }
  return first;
}

static void copy_target(lupe__builder *b, lupe_target *t) {
  size_t i = b->target_count++;
  b->targets[i] = t;
  b->target_rows[i] = (lupe_snapshot_target){
      .pid = t->status.pid,
      .ppid = t->status.ppid,
      .live = t->status.live,
      .heap_state = t->status.heap_state,
      .sample_period_bytes = t->status.sample_period_bytes,
      .first_ms = t->status.first_ms,
      .last_ms = t->status.last_ms,
      .memory = t->figures,
      .cpu_state = t->status.sampling.cpu_state,
      .wall_state = t->status.sampling.wall_state,
      .threads_untimed = t->status.sampling.threads_untimed,
      .threads_unread = t->status.sampling.threads_unread,
  };
  memcpy(b->target_names[i], t->status.name, sizeof b->target_names[i]);
  memcpy(b->target_allocators[i], t->status.allocator, sizeof b->target_allocators[i]);
  if (t->profile && b->header.sample_period_bytes == 0)
    b->header.sample_period_bytes = lupe_heap_profile_period(t->profile);
  lupe__classes_add(b->classes, &b->class_count, LUPE__CLASSES_MAX, t->classes, t->class_count);
}

/* Copies all that `lock` protects. Caller holds `work`, so no target goes away. */
static lupe_status collect(lupe__builder *b, int32_t pid) {
  lupe_aggregator *a = b->a;
  lupe_status status = LUPE_ENOMEM;
  pthread_mutex_lock(&a->lock);
  choice c;
  size_t count = 0;
  if (!choose(a, pid, &c)) {
    status = LUPE_ENOENT;
    goto out;
  }
  for (const lupe_target *t = a->first; t; t = t->next) count += is_chosen(a, t, &c);
  b->targets = calloc(count + 1, sizeof(lupe_target *));
  b->target_rows = calloc(count + 1, sizeof *b->target_rows);
  b->target_names = calloc(count + 1, sizeof *b->target_names);
  b->target_allocators = calloc(count + 1, sizeof *b->target_allocators);
  if (!b->targets || !b->target_rows || !b->target_names || !b->target_allocators) goto out;
  for (lupe_target *t = a->first; t; t = t->next) {
    if (is_chosen(a, t, &c)) copy_target(b, t);
  }
  status = copy_memory(b, &c);
  if (status != LUPE_OK) goto out;
  b->first_tick = is_tree(pid) ? first_tick_of(b) : 0;
  lupe_snapshot_header *h = &b->header;
  h->started_ms = a->started_ms;
  if (is_tree(pid)) lupe__tree_times(&c.tree, h);
  h->generation = a->generation;
  h->heap_interval_ms = a->heap_interval_ms;
  h->dropped_records = a->dropped_records;
  h->truncated_stacks = a->truncated_stacks;
  h->stack_overflows = lupe_stack_table_overflows(a->stacks);
out:
  pthread_mutex_unlock(&a->lock);
  return status;
}

/* The function that a stack's memory is counted for: its innermost tag. Tags are the outermost frames. */
static uint32_t site_function_of(const lupe__builder *b, const uint32_t *frames, size_t depth) {
  size_t first_tag = depth;
  while (first_tag > 0 && b->functions[b->frames[frames[first_tag - 1]].function].tag) first_tag--;
  if (first_tag < depth) return b->frames[frames[first_tag]].function;
  for (size_t i = 0; i < depth; i++) {
    uint32_t function = b->frames[frames[i]].function;
    if (!b->functions[function].wrapper) return function;
  }
  return b->frames[frames[depth - 1]].function;
}

void lupe__add_stack(lupe__builder *b, uint32_t id, bool with_site) {
  const uint32_t *frames;
  size_t depth;
  if (b->stack_of[id] != LUPE__NONE || lupe_stack_table_get(b->a->stacks, id, &frames, &depth) != LUPE_OK)
    return;
  b->id_of[b->stack_count] = id;
  b->site_of[b->stack_count] = LUPE__NONE;
  if (with_site) {
    uint32_t function = site_function_of(b, frames, depth);
    if (b->site_index[function] == LUPE__NONE) {
      b->function_of[b->site_count] = function;
      b->site_index[function] = b->site_count++;
    }
    b->site_of[b->stack_count] = b->site_index[function];
  }
  b->stack_of[id] = b->stack_count++;
  b->depth_sum += depth;
}

/* Numbers the stacks: those of the heap and of leak proofs, then those that only samples have. */
static lupe_status number_stacks(lupe__builder *b) {
  lupe_status status = lupe_frame_names_update(b->a->names);
  if (status != LUPE_OK) return status;
  status =
      lupe__sample_owners(b->a, b->targets, b->target_count, b->merged, b->tree, &b->owners, &b->owner_count);
  if (status == LUPE_OK) status = lupe__collect_spans(b);
  if (status != LUPE_OK) return status;
  lupe__number_span_totals(b);
  b->frames = lupe_frame_names_frames(b->a->names, &b->frame_count);
  b->functions = lupe_frame_names_functions(b->a->names, &b->function_count);
  b->lines = lupe_frame_names_lines(b->a->names);
  b->module_count = lupe_module_table_count(b->a->modules);
  uint32_t ids = lupe_stack_table_stacks(b->a->stacks);
  b->stack_of = malloc(ids * sizeof *b->stack_of);
  b->id_of = malloc(ids * sizeof *b->id_of);
  b->site_of = malloc(ids * sizeof *b->site_of);
  b->site_index = malloc((b->function_count + 1) * sizeof *b->site_index);
  b->function_of = malloc((b->function_count + 1) * sizeof *b->function_of);
  if (!b->stack_of || !b->id_of || !b->site_of || !b->site_index || !b->function_of) return LUPE_ENOMEM;
  for (uint32_t i = 0; i < ids; i++) b->stack_of[i] = LUPE__NONE;
  for (uint32_t i = 0; i < b->function_count; i++) b->site_index[i] = LUPE__NONE;
  lupe__number_heap_stacks(b);
  lupe__number_proof_stacks(b);
  b->heap_stack_count = b->stack_count;
  return lupe__collect_samples(b);
}

/* -- where it goes ---------------------------------------------------------------------------- */

size_t lupe__string_bytes(const char *text) {
  return *text ? strlen(text) + 1 : 0;
}

static size_t strings_bytes(const lupe__builder *b) {
  size_t bytes = 1; /* "" */
  for (size_t i = 0; i < b->target_count; i++)
    bytes += lupe__string_bytes(b->target_names[i]) + lupe__string_bytes(b->target_allocators[i]);
  for (uint32_t i = 0; i < b->module_count; i++)
    bytes += lupe__string_bytes(lupe_module_table_path(b->a->modules, (uint16_t)i)) +
             lupe__string_bytes(lupe_frame_names_build_id(b->a->names, (uint16_t)i));
  for (uint32_t i = 0; i < b->function_count; i++) bytes += lupe__string_bytes(b->functions[i].name);
  return bytes + b->lines->texts.text_bytes + lupe__sample_string_bytes(b) + lupe__span_string_bytes(b);
}

static void place(lupe_snapshot_header *h, lupe_snapshot_column *c, uint64_t count, size_t element_bytes) {
  c->count = count;
  c->offset = h->total_bytes;
  h->total_bytes = (h->total_bytes + count * element_bytes + 7) & ~UINT64_C(7);
}

static void lay_out(lupe__builder *b) {
  lupe_snapshot_header *h = &b->header;
  uint64_t stacks = b->stack_count, sites = b->site_count;
  h->magic = LUPE_SNAPSHOT_MAGIC;
  h->version = LUPE_SNAPSHOT_VERSION;
  h->header_bytes = sizeof *h;
  h->tick_count = (uint32_t)(b->a->ticks - b->first_tick);
  h->total_bytes = sizeof *h;
  place(h, &h->strings, strings_bytes(b), 1);
  place(h, &h->targets, b->target_count, sizeof(lupe_snapshot_target));
  place(h, &h->modules, b->module_count, sizeof(lupe_snapshot_module));
  place(h, &h->functions, b->function_count, sizeof(lupe_snapshot_function));
  place(h, &h->frames, b->frame_count, sizeof(lupe_snapshot_frame));
  place(h, &h->classes, b->class_count, sizeof(lupe_snapshot_size_class));
  place(h, &h->memory, b->memory_count, sizeof(lupe_memory_figures));
  place(h, &h->stack_first, stacks + 1, sizeof(uint32_t));
  place(h, &h->stack_frames, b->depth_sum, sizeof(uint32_t));
  place(h, &h->stack_site, stacks, sizeof(uint32_t));
  place(h, &h->site_function, sites, sizeof(uint32_t));
  place(h, &h->site_top_stack, sites, sizeof(uint32_t));
  lupe_snapshot_column *ticks[] = {&h->tick_time_ms, &h->tick_inuse_space, &h->tick_allocated};
  lupe_snapshot_column *of_stacks[] = {&h->stack_inuse_space, &h->stack_inuse_objects, &h->stack_alloc_space,
                                       &h->stack_alloc_objects};
  lupe_snapshot_column *of_sites[] = {&h->site_inuse_space,   &h->site_inuse_objects, &h->site_alloc_space,
                                      &h->site_alloc_objects, &h->site_first_seen_ms, &h->site_last_grown_ms};
  for (size_t i = 0; i < 3; i++) place(h, ticks[i], h->tick_count, sizeof(double));
  for (size_t i = 0; i < 4; i++) place(h, of_stacks[i], stacks, sizeof(double));
  for (size_t i = 0; i < 6; i++) place(h, of_sites[i], sites, sizeof(double));
  place(h, &h->site_history_space, sites * h->tick_count, sizeof(float));
  place(h, &h->site_history_objects, sites * h->tick_count, sizeof(float));
  place(h, &h->site_history_alloc, sites * h->tick_count, sizeof(float));
  place(h, &h->inlines, b->lines->inline_count, sizeof(lupe_snapshot_inline));
  place(h, &h->threads, b->thread_count, sizeof(lupe_snapshot_thread));
  place(h, &h->sample_stack, b->sample_count, sizeof(uint32_t));
  place(h, &h->sample_thread, b->sample_count, sizeof(uint32_t));
  place(h, &h->sample_state, b->sample_count, sizeof(uint32_t));
  place(h, &h->sample_count, b->sample_count, sizeof(double));
  place(h, &h->sample_ns, b->sample_count, sizeof(double));
  place(h, &h->spans, b->span_count, sizeof(lupe_snapshot_span));
  place(h, &h->span_buckets, b->span_count * LUPE_SNAPSHOT_SPAN_BUCKETS, sizeof(double));
  place(h, &h->span_totals, b->span_total_count, sizeof(lupe_snapshot_span_total));
  place(h, &h->proofs, b->proof_count, sizeof(lupe_snapshot_proof));
  place(h, &h->proof_rows, b->proof_row_count, sizeof(lupe_snapshot_proof_row));
}

/* -- and in it goes --------------------------------------------------------------------------- */

uint32_t lupe__put_string(lupe__builder *b, const char *text) {
  size_t bytes = strlen(text) + 1;
  if (bytes == 1) return 0;
  uint32_t at = b->string_at;
  memcpy((char *)lupe__column(b, &b->header.strings) + at, text, bytes);
  b->string_at += (uint32_t)bytes;
  return at;
}

static void fill_names(lupe__builder *b) {
  const lupe_snapshot_header *h = &b->header;
  b->string_at = 1;
  for (size_t i = 0; i < b->target_count; i++) {
    b->target_rows[i].name = lupe__put_string(b, b->target_names[i]);
    b->target_rows[i].allocator = lupe__put_string(b, b->target_allocators[i]);
  }
  memcpy(lupe__column(b, &h->targets), b->target_rows, b->target_count * sizeof *b->target_rows);
  memcpy(lupe__column(b, &h->classes), b->classes, b->class_count * sizeof *b->classes);
  memcpy(lupe__column(b, &h->memory), b->memory, b->memory_count * sizeof *b->memory);
  lupe_snapshot_module *modules = lupe__column(b, &h->modules);
  for (uint32_t i = 0; i < b->module_count; i++) {
    modules[i].path = lupe__put_string(b, lupe_module_table_path(b->a->modules, (uint16_t)i));
    modules[i].build_id = lupe__put_string(b, lupe_frame_names_build_id(b->a->names, (uint16_t)i));
  }
}

/* Texts of the lines all go in once, and are known by their place. */
static void fill_lines(lupe__builder *b) {
  const lupe_snapshot_header *h = &b->header;
  const lupe_frame_lines *lines = b->lines;
  const lupe_text_store *texts = &lines->texts;
  uint32_t *places = b->text_places;
  places[0] = 0;
  for (uint32_t i = 1; i <= texts->count; i++) places[i] = lupe__put_string(b, lupe_text_store_at(texts, i));
  lupe_snapshot_function *functions = lupe__column(b, &h->functions);
  for (uint32_t i = 0; i < b->function_count; i++) {
    const lupe_function *f = &b->functions[i];
    functions[i] = (lupe_snapshot_function){.name = lupe__put_string(b, f->name),
                                            .module = f->module,
                                            .named = f->named,
                                            .wrapper = f->wrapper,
                                            .start = f->start,
                                            .file = places[f->file],
                                            .line = f->line};
  }
  lupe_snapshot_frame *frames = lupe__column(b, &h->frames);
  for (uint32_t i = 0; i < b->frame_count; i++) {
    const lupe_named_frame *f = &b->frames[i];
    const lupe_frame_line *line = &lines->rows[i];
    frames[i] = (lupe_snapshot_frame){.function = f->function,
                                      .module = f->module,
                                      .address = f->address,
                                      .file = places[line->file],
                                      .line = line->line,
                                      .inline_first = line->inline_first,
                                      .inline_count = line->inline_count};
  }
  lupe_snapshot_inline *inlines = lupe__column(b, &h->inlines);
  for (uint32_t i = 0; i < lines->inline_count; i++) {
    const lupe_inlined *call = &lines->inlines[i];
    inlines[i] = (lupe_snapshot_inline){places[call->name], places[call->file], call->line};
  }
}

static void fill_stacks(lupe__builder *b) {
  const lupe_snapshot_header *h = &b->header;
  uint32_t *first = lupe__column(b, &h->stack_first), *frames = lupe__column(b, &h->stack_frames);
  uint32_t at = 0;
  for (uint32_t i = 0; i < b->stack_count; i++) {
    const uint32_t *from;
    size_t depth;
    first[i] = at;
    if (lupe_stack_table_get(b->a->stacks, b->id_of[i], &from, &depth) != LUPE_OK)
      continue; /* it was there */
    memcpy(frames + at, from, depth * sizeof *frames);
    at += (uint32_t)depth;
  }
  first[b->stack_count] = at;
  memcpy(lupe__column(b, &h->stack_site), b->site_of, b->stack_count * sizeof *b->site_of);
  memcpy(lupe__column(b, &h->site_function), b->function_of, b->site_count * sizeof *b->function_of);
}

static void clear(lupe__builder *b) {
  free(b->targets);
  free(b->target_rows);
  free(b->target_names);
  free(b->target_allocators);
  free(b->memory);
  free(b->stack_of);
  free(b->id_of);
  free(b->site_of);
  free(b->site_index);
  free(b->function_of);
  free(b->text_places);
  lupe__clear_samples(b);
  lupe__clear_spans(b);
}

static lupe_status build(lupe__builder *b, lupe_snapshot **out) {
  for (size_t i = 0; i < b->target_count; i++) {
    /* No later dump will take them in. */
    if (!b->target_rows[i].live) lupe__target_absorb(b->targets[i]);
  }
  if (lupe_unwanted()) return LUPE_EAGAIN;
  lupe_status status = number_stacks(b);
  if (status != LUPE_OK) return status;
  b->text_places = malloc((b->lines->texts.count + 1) * sizeof *b->text_places);
  if (!b->text_places) return LUPE_ENOMEM;
  lay_out(b);
  if (lupe_unwanted()) return LUPE_EAGAIN;
  if (b->header.strings.count > UINT32_MAX || b->depth_sum > UINT32_MAX) return LUPE_ENOMEM;
  lupe_snapshot *snapshot;
  void *block;
  status = lupe__snapshot_create(b->header.total_bytes, &snapshot, &block);
  if (status != LUPE_OK) return status;
  b->block = block;
  memcpy(block, &b->header, sizeof b->header);
  fill_names(b);
  fill_lines(b);
  fill_stacks(b);
  lupe__fill_heap(b);
  lupe__fill_proofs(b);
  lupe__fill_samples(b);
  lupe__fill_spans(b);
  status = lupe__snapshot_seal(snapshot);
  if (status != LUPE_OK) {
    lupe_snapshot_release(snapshot);
    return status;
  }
  *out = snapshot;
  return LUPE_OK;
}

lupe_status lupe_aggregator_snapshot(lupe_aggregator *a, int32_t pid, double time_ms, uint32_t window_ms,
                                     lupe_snapshot **out) {
  lupe__builder *b = calloc(1, sizeof *b);
  if (!b) return LUPE_ENOMEM;
  b->a = a;
  b->header.time_ms = isfinite(time_ms) && time_ms > 0 ? time_ms : 0;
  pthread_mutex_lock(&a->work);
  lupe__absorb_records(a);
  lupe__rates rates = lupe__rates_now(a);
  lupe__sample_window(a, &rates, b->header.time_ms, window_ms, &b->window);
  lupe__span_window(a, b->header.time_ms, window_ms, &b->span_window);
  b->header.span_from_ms = b->span_window.from_ms;
  b->header.span_to_ms = b->span_window.to_ms;
  b->header.mark_names_lost = a->mark_names_lost;
  b->header.spans_lost = a->spans_lost;
  b->merged = pid <= 0 || is_tree(pid);
  b->tree = is_tree(pid);
  b->header.profile_from_ms = b->window.from_ms;
  b->header.profile_to_ms = b->window.to_ms;
  b->header.cpu_hz = rates.cpu_hz;
  b->header.wall_hz = rates.wall_hz;
  lupe_status status = collect(b, pid);
  if (status == LUPE_OK) status = build(b, out);
  lupe__targets_evict(a);
  pthread_mutex_unlock(&a->work);
  clear(b);
  free(b);
  return status;
}

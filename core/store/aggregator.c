#include "core/store/aggregator.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/store/run.h"
#include "core/wire/record.h"

enum {
  HEAP_INTERVAL_MS = 1000,
  SERIES_ROWS = 1000,
  SERIES_ROWS_ALL = 32768, /* of all targets together: 4 MB */
  STACK_BYTES = 24 << 20,
};

lupe_status lupe_aggregator_create(lupe_aggregator **out, const lupe_aggregator_options *options) {
  static const lupe_aggregator_options defaults;
  const lupe_aggregator_options *o = options ? options : &defaults;
  lupe_aggregator *a = calloc(1, sizeof *a);
  if (!a) return LUPE_ENOMEM;
  a->heap_interval_ms = o->heap_interval_ms ? o->heap_interval_ms : HEAP_INTERVAL_MS;
  a->series_capacity = o->series_capacity ? o->series_capacity : SERIES_ROWS;
  a->started_ms = isfinite(o->started_ms) && o->started_ms > 0 ? o->started_ms : 0;
  a->next_tick = 1;
  a->swept_from = INT64_MIN;
  a->rates = (lupe__rates){o->cpu_hz, o->wall_hz, a->started_ms, a->started_ms};
  a->endless = o->endless;
  lupe_status status = LUPE_ENOMEM;
  if (pthread_mutex_init(&a->work, NULL) != 0) goto fail_work;
  if (pthread_mutex_init(&a->lock, NULL) != 0) goto fail_lock;
  if (pthread_mutex_init(&a->lines, NULL) != 0) goto fail_lines;
  status = lupe_stack_table_create(&a->stacks, o->stack_bytes ? o->stack_bytes : STACK_BYTES);
  if (status != LUPE_OK) goto fail_stacks;
  status = lupe_module_table_create(&a->modules);
  if (status != LUPE_OK) goto fail_modules;
  status = lupe_series_create(&a->series, a->series_capacity);
  if (status != LUPE_OK) goto fail_series;
  status = lupe_frame_names_create(&a->names, a->stacks, a->modules);
  if (status != LUPE_OK) goto fail_names;
  status = lupe_sample_log_create(&a->samples);
  if (status != LUPE_OK) goto fail_samples;
  status = lupe_span_log_create(&a->spans);
  if (status != LUPE_OK) goto fail_spans;
  *out = a;
  return LUPE_OK;

fail_spans:
  lupe_sample_log_free(a->samples);
fail_samples:
  lupe_frame_names_free(a->names);
fail_names:
  lupe_series_free(a->series);
fail_series:
  lupe_module_table_free(a->modules);
fail_modules:
  lupe_stack_table_free(a->stacks);
fail_stacks:
  pthread_mutex_destroy(&a->lines);
fail_lines:
  pthread_mutex_destroy(&a->lock);
fail_lock:
  pthread_mutex_destroy(&a->work);
fail_work:
  free(a);
  return status;
}

void lupe_aggregator_free(lupe_aggregator *a) {
  if (!a) return;
  while (a->first) {
    lupe_target *t = a->first;
    a->first = t->next;
    lupe_target_release(t);
  }
  lupe_span_log_free(a->spans);
  free(a->span_totals);
  lupe_sample_log_free(a->samples);
  lupe_frame_names_free(a->names);
  lupe_text_store_clear(&a->mark_names);
  lupe_series_free(a->series);
  lupe_module_table_free(a->modules);
  lupe_stack_table_free(a->stacks);
  pthread_mutex_destroy(&a->lines);
  pthread_mutex_destroy(&a->lock);
  pthread_mutex_destroy(&a->work);
  free(a);
}

lupe_status lupe_aggregator_set_wrappers(lupe_aggregator *a, const lupe_wrapper *wrappers, size_t count) {
  pthread_mutex_lock(&a->work);
  lupe_status status = lupe_frame_names_set_wrappers(a->names, wrappers, count);
  pthread_mutex_unlock(&a->work);
  return status;
}

/* -- targets ---------------------------------------------------------------------------------- */

lupe_target *lupe_target_retain(lupe_target *t) {
  atomic_fetch_add_explicit(&t->references, 1, memory_order_relaxed);
  return t;
}

void lupe_target_release(lupe_target *t) {
  if (!t || atomic_fetch_sub_explicit(&t->references, 1, memory_order_acq_rel) != 1) return;
  lupe_heap_profile_free(t->profile);
  lupe_proof_clear(&t->proof.complete);
  lupe_address_map_free(t->map);
  lupe_pending_samples_clear(&t->pending);
  lupe_record_queue_clear(&t->queue);
  if (t->new_maps >= 0) close(t->new_maps);
  if (t->maps >= 0) close(t->maps);
  lupe_marks_reader_free(t->new_marks);
  lupe_marks_reader_free(t->marks);
  free(t->mark_numbers);
  lupe_series_free(t->series);
  free(t->classes);
  free(t);
}

lupe_target *lupe__target_next(lupe_aggregator *a, lupe_target *t) {
  pthread_mutex_lock(&a->lock);
  lupe_target *next = t ? t->next : a->first;
  pthread_mutex_unlock(&a->lock);
  return next;
}

lupe_target *lupe__target_find(const lupe_aggregator *a, int32_t pid) {
  lupe_target *found = NULL;
  for (lupe_target *t = a->first; t; t = t->next) {
    if (t->status.pid != pid) continue;
    found = t;
    if (t->status.live) break;
  }
  return found;
}

static lupe_target *make_target(lupe_aggregator *a, const lupe_target_info *i) {
  lupe_target *t = calloc(1, sizeof *t);
  if (!t || lupe_series_create(&t->series, a->series_capacity) != LUPE_OK) {
    free(t);
    return NULL;
  }
  atomic_init(&t->references, 1);
  t->aggregator = a;
  t->maps = t->new_maps = -1;
  t->forked = i->forked;
  if (i->memory_functions) memcpy(t->memory_functions, i->memory_functions, sizeof t->memory_functions);
  t->status.pid = i->pid;
  t->status.start_ticks = i->start_ticks;
  snprintf(t->status.name, sizeof t->status.name, "%s", i->name ? i->name : "");
  t->status.first_ms = isfinite(i->time_ms) && i->time_ms > 0 ? i->time_ms : 0;
  return t;
}

/* What of the CPU time and faults of a dead target stays in the sums (`sign` 1), or goes with it (-1). */
static void retire(lupe_aggregator *a, const lupe_memory_figures *f, int sign) {
  uint64_t s = (uint64_t)(int64_t)sign;
  a->retired.user_ns += s * f->user_ns;
  a->retired.system_ns += s * f->system_ns;
  a->retired.minor_faults += s * f->minor_faults;
  a->retired.major_faults += s * f->major_faults;
}

static void set_root(lupe_target *t, int32_t pid, uint64_t ticks) {
  t->status.root_pid = pid;
  t->status.root_ticks = ticks;
}

/* A program may have connected after those that it started: they had been told of a new socket first. Caller
 * holds `lock`. */
static void find_root(lupe_aggregator *a, lupe_target *fresh, int32_t ppid) {
  set_root(fresh, fresh->status.pid, fresh->status.start_ticks);
  for (const lupe_target *t = a->first; t; t = t->next) {
    bool is_parent = t->status.live && t->status.pid == ppid;
    bool was_itself =
        t->status.pid == fresh->status.pid && t->status.start_ticks == fresh->status.start_ticks;
    if (is_parent || was_itself) set_root(fresh, t->status.root_pid, t->status.root_ticks);
    if (is_parent) break;
  }
  for (const lupe_target *child = a->first; child; child = child->next) {
    bool adopted = child->status.live && child->status.ppid == fresh->status.pid &&
                   child->status.root_pid == child->status.pid && child->status.pid != fresh->status.root_pid;
    if (!adopted) continue;
    int32_t pid = child->status.root_pid;
    uint64_t ticks = child->status.root_ticks;
    for (lupe_target *t = a->first; t; t = t->next) {
      if (t->status.root_pid == pid && t->status.root_ticks == ticks)
        set_root(t, fresh->status.root_pid, fresh->status.root_ticks);
    }
  }
}

lupe_status lupe_aggregator_add(lupe_aggregator *a, const lupe_target_info *info, lupe_target **out) {
  if (info->pid <= 0) return LUPE_EINVAL;
  lupe_target *fresh = make_target(a, info); /* outside of the lock, though it may not be needed */
  if (!fresh) return LUPE_ENOMEM;
  pthread_mutex_lock(&a->lock);
  if (a->live_count == LUPE_TARGETS_LIVE_MAX) {
    pthread_mutex_unlock(&a->lock);
    lupe_target_release(fresh);
    return LUPE_ENOMEM;
  }
  lupe_target *t = fresh;
  for (lupe_target *old = a->first; old; old = old->next) {
    if (old->status.live || old->superseded || old->status.pid != info->pid ||
        old->status.start_ticks != info->start_ticks)
      continue;
    if (strcmp(old->status.name, fresh->status.name) == 0) {
      t = old;
      if (t->has_figures) retire(a, &t->figures, -1);
      a->dead_count--;
      break;
    }
    old->superseded = true; /* it became another program: what the old one had is gone */
  }
  if (t == fresh) {
    t->number = a->next_number++;
    find_root(a, t, info->ppid);
    if (a->last)
      a->last->next = t;
    else
      a->first = t;
    a->last = t;
    fresh = NULL;
  }
  a->live_count++;
  t->status.live = 1;
  t->status.left = 0;
  t->status.ppid = info->ppid;
  t->status.heap_state = info->heap_state;
  t->status.sample_period_bytes = info->sample_period_bytes;
  t->status.last_ms = t->status.last_ms > t->status.first_ms ? t->status.last_ms : t->status.first_ms;
  snprintf(t->status.allocator, sizeof t->status.allocator, "%s", info->allocator ? info->allocator : "");
  pthread_mutex_unlock(&a->lock);
  lupe_target_release(fresh);
  *out = t;
  return LUPE_OK;
}

void lupe_target_leaves(lupe_target *t) {
  pthread_mutex_lock(&t->aggregator->lock);
  t->status.left = 1;
  pthread_mutex_unlock(&t->aggregator->lock);
}

void lupe_target_died(lupe_target *t, double time_ms) {
  lupe_aggregator *a = t->aggregator;
  bool many = false;
  pthread_mutex_lock(&a->lock);
  if (t->status.live) {
    t->status.live = 0;
    t->died_ms = isfinite(time_ms) ? time_ms : 0;
    if (t->died_ms > t->status.last_ms) t->status.last_ms = t->died_ms;
    if (t->has_figures) retire(a, &t->figures, 1);
    a->live_count--;
    a->dead_count++;
    many = a->dead_count > LUPE_TARGETS_DEAD_MAX;
  }
  pthread_mutex_unlock(&a->lock);
  if (many) lupe__targets_evict_some(a);
}

void lupe_target_sample(lupe_target *t, const uint64_t *addresses, size_t depth, uint32_t weight) {
  const uint64_t nothing = 0;
  if (depth == 0) addresses = &nothing; /* as the parser has it */
  if (depth == 0) depth = 1;
  if (depth > LUPE_MAX_FRAMES) depth = LUPE_MAX_FRAMES;
  pthread_mutex_lock(&t->aggregator->lock);
  uint64_t lost = t->pending.lost_weight;
  lupe_pending_samples_add(&t->pending, addresses, depth, weight);
  t->status.pending_drops += t->pending.lost_weight - lost;
  pthread_mutex_unlock(&t->aggregator->lock);
}

/* -- figures ---------------------------------------------------------------------------------- */

void lupe_target_figures(lupe_target *t, const lupe_memory_figures *figures) {
  pthread_mutex_lock(&t->aggregator->lock);
  t->figures = *figures;
  if (!isfinite(t->figures.time_ms) || t->figures.time_ms < 0) t->figures.time_ms = 0;
  t->has_figures = true;
  t->figures.sampling_bytes = t->sampling_bytes;
  pthread_mutex_unlock(&t->aggregator->lock);
}

void lupe_target_classes(lupe_target *t, const lupe_snapshot_size_class *classes, size_t count) {
  if (count > LUPE_SIZE_CLASSES_MAX) count = LUPE_SIZE_CLASSES_MAX;
  lupe_snapshot_size_class *copy = count ? malloc(count * sizeof *copy) : NULL;
  if (count && !copy) return; /* the former ones stay */
  if (count) memcpy(copy, classes, count * sizeof *copy);
  pthread_mutex_lock(&t->aggregator->lock);
  lupe_snapshot_size_class *old = t->classes;
  t->classes = copy;
  t->class_count = count;
  pthread_mutex_unlock(&t->aggregator->lock);
  free(old);
}

void lupe__figures_add(lupe_memory_figures *sum, const lupe_memory_figures *f) {
  if (f->time_ms > sum->time_ms) sum->time_ms = f->time_ms;
  sum->rss_bytes += f->rss_bytes;
  sum->virtual_bytes += f->virtual_bytes;
  sum->shared_bytes += f->shared_bytes;
  sum->allocated_bytes += f->allocated_bytes;
  sum->active_bytes += f->active_bytes;
  sum->metadata_bytes += f->metadata_bytes;
  sum->resident_bytes += f->resident_bytes;
  sum->mapped_bytes += f->mapped_bytes;
  sum->retained_bytes += f->retained_bytes;
  sum->cached_bytes += f->cached_bytes;
  sum->sampling_bytes += f->sampling_bytes;
  sum->user_ns += f->user_ns;
  sum->system_ns += f->system_ns;
  sum->minor_faults += f->minor_faults;
  sum->major_faults += f->major_faults;
  sum->threads += f->threads;
  sum->has_allocator |= f->has_allocator;
}

bool lupe__memory_sum(const lupe_aggregator *a, lupe_memory_figures *out) {
  lupe_memory_figures sum = a->retired;
  bool any = false;
  for (const lupe_target *t = a->first; t; t = t->next) {
    if (!t->status.live || !t->has_figures) continue;
    lupe__figures_add(&sum, &t->figures);
    any = true;
  }
  if (any) *out = sum;
  return any;
}

void lupe_aggregator_record_memory(lupe_aggregator *a, double time_ms) {
  if (!isfinite(time_ms) || time_ms < 0) return;
  lupe_memory_figures sum;
  pthread_mutex_lock(&a->lock);
  for (lupe_target *t = a->first; t; t = t->next) {
    if (!t->status.live || !t->has_figures) continue;
    size_t room = lupe_series_room(t->series);
    (void)lupe_series_append(t->series, &t->figures, a->series_rows < SERIES_ROWS_ALL);
    a->series_rows += lupe_series_room(t->series) - room;
  }
  if (lupe__memory_sum(a, &sum)) {
    sum.time_ms = time_ms;
    (void)lupe_series_append(a->series, &sum, true);
  }
  pthread_mutex_unlock(&a->lock);
}

void lupe_aggregator_set_losses(lupe_aggregator *a, uint64_t dropped_records, uint64_t truncated_stacks) {
  pthread_mutex_lock(&a->lock);
  a->dropped_records = dropped_records;
  a->truncated_stacks = truncated_stacks;
  pthread_mutex_unlock(&a->lock);
}

/* -- questions -------------------------------------------------------------------------------- */

size_t lupe_aggregator_targets(lupe_aggregator *a, lupe_target_status *rows, size_t capacity) {
  size_t count = 0;
  pthread_mutex_lock(&a->lock);
  for (uint32_t live = 2; live-- > 0;) {
    for (const lupe_target *t = a->first; t; t = t->next) {
      if (t->status.live != live) continue;
      if (count < capacity) rows[count] = t->status;
      count++;
    }
  }
  pthread_mutex_unlock(&a->lock);
  return count;
}

lupe_status lupe_aggregator_memory(lupe_aggregator *a, int32_t pid, lupe_memory_figures *out) {
  lupe_status status = LUPE_ENOENT;
  pthread_mutex_lock(&a->lock);
  if (pid == LUPE_TARGET_ALL_LIVE) {
    if (lupe__memory_sum(a, out)) status = LUPE_OK;
  } else {
    const lupe_target *t = lupe__target_find(a, pid);
    if (t && t->has_figures) {
      *out = t->figures;
      status = LUPE_OK;
    }
  }
  pthread_mutex_unlock(&a->lock);
  return status;
}

lupe_status lupe_aggregator_series(lupe_aggregator *a, int32_t pid, lupe_memory_figures *rows,
                                   size_t capacity, size_t *out_count) {
  lupe_status status = LUPE_ENOENT;
  pthread_mutex_lock(&a->lock);
  const lupe_target *t = pid == LUPE_TARGET_ALL_LIVE ? NULL : lupe__target_find(a, pid);
  if (t || pid == LUPE_TARGET_ALL_LIVE) {
    *out_count = lupe_series_copy(t ? t->series : a->series, rows, capacity);
    status = LUPE_OK;
  }
  pthread_mutex_unlock(&a->lock);
  return status;
}

void lupe__classes_add(lupe_snapshot_size_class *rows, size_t *count, size_t capacity,
                       const lupe_snapshot_size_class *more, size_t more_count) {
  for (size_t i = 0; i < more_count; i++) {
    size_t at = *count;
    while (at > 0 && rows[at - 1].size_bytes > more[i].size_bytes) at--;
    if (at > 0 && rows[at - 1].size_bytes == more[i].size_bytes) {
      rows[at - 1].live_count += more[i].live_count;
    } else if (*count < capacity) {
      memmove(&rows[at + 1], &rows[at], (*count - at) * sizeof *rows);
      rows[at] = more[i];
      ++*count;
    }
  }
}

uint32_t lupe_aggregator_heap_interval_ms(lupe_aggregator *a) {
  pthread_mutex_lock(&a->lock);
  uint32_t interval = a->heap_interval_ms;
  pthread_mutex_unlock(&a->lock);
  return interval;
}

uint64_t lupe_aggregator_stack_overflows(lupe_aggregator *a) {
  return lupe_stack_table_overflows(a->stacks);
}

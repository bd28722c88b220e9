/* The part of a snapshot that tells one program apart: which processes are its own, and their memory figures
 * on one time line. */
#include <stdlib.h>

#include "core/store/snapshot_build.h"

static bool is_of(const lupe__tree *tree, const lupe_target *t) {
  return t->status.root_pid == tree->root_pid && t->status.root_ticks == tree->root_ticks;
}

bool lupe__tree_find(const lupe_aggregator *a, int32_t root_pid, lupe__tree *out) {
  lupe__tree tree = {.root_pid = root_pid};
  bool found = false;
  for (const lupe_target *t = a->first; t; t = t->next) { /* a pid that was used again: the newer one */
    if (t->status.root_pid != root_pid || (found && t->status.root_ticks < tree.root_ticks)) continue;
    tree.root_ticks = t->status.root_ticks;
    found = true;
  }
  for (const lupe_target *t = a->first; found && t; t = t->next) {
    if (!is_of(&tree, t)) continue;
    if (tree.first_ms == 0 || t->status.first_ms < tree.first_ms) tree.first_ms = t->status.first_ms;
    if (t->died_ms > tree.died_ms) tree.died_ms = t->died_ms;
    tree.live |= t->status.live != 0;
  }
  if (found) *out = tree;
  return found;
}

/* Of one that ended, as in the report at a run's exit: not what children left that ended long before. */
bool lupe__tree_shows(const lupe_aggregator *a, const lupe__tree *tree, const lupe_target *t) {
  if (!is_of(tree, t)) return false;
  if (tree->live) return t->status.live;
  return !t->superseded && !(t->forked && tree->died_ms - t->died_ms > a->heap_interval_ms);
}

void lupe__tree_times(const lupe__tree *tree, lupe_snapshot_header *h) {
  h->started_ms = tree->first_ms;
  if (h->profile_to_ms <= h->profile_from_ms) return; /* no samples are taken */
  if (h->profile_from_ms < tree->first_ms) h->profile_from_ms = tree->first_ms;
  if (!tree->live && tree->died_ms > 0 && h->profile_to_ms > tree->died_ms) h->profile_to_ms = tree->died_ms;
  if (h->profile_to_ms < h->profile_from_ms) h->profile_to_ms = h->profile_from_ms;
}

static int by_time(const void *one, const void *other) {
  double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

/* The moments at which a process was read: processes are read one after the other, so times that are close
 * are one. Returns how many. */
static size_t moments_of(double *times, size_t count) {
  size_t filled = 0;
  qsort(times, count, sizeof *times, by_time);
  for (size_t i = 0; i < count; i++) {
    if (filled > 0 && times[i] - times[filled - 1] < LUPE__MOMENT_MS)
      times[filled - 1] = times[i];
    else
      times[filled++] = times[i];
  }
  return filled;
}

/* Adds a process to the sums: what it was at each moment, and from its end on the time that it had used, so
 * that sums of that never go back. `rows`: room for its series. */
static void add_process(const lupe_target *t, lupe_memory_figures *sums, size_t count,
                        lupe_memory_figures *rows) {
  size_t of_it = lupe_series_copy(t->series, rows, lupe_series_count(t->series)), next = 0;
  for (size_t i = 0; i < count; i++) {
    double time_ms = sums[i].time_ms;
    while (next < of_it && rows[next].time_ms <= time_ms) next++;
    if (next == 0) continue; /* before its time */
    const lupe_memory_figures *row = &rows[next - 1];
    if (!t->status.live && next == of_it && time_ms - row->time_ms >= LUPE__MOMENT_MS) {
      lupe_memory_figures spent = {.user_ns = row->user_ns,
                                   .system_ns = row->system_ns,
                                   .minor_faults = row->minor_faults,
                                   .major_faults = row->major_faults};
      lupe__figures_add(&sums[i], &spent);
    } else {
      lupe__figures_add(&sums[i], row);
    }
    sums[i].time_ms = time_ms;
  }
}

lupe_status lupe__tree_memory(const lupe_aggregator *a, const lupe__tree *tree, lupe_memory_figures **out,
                              size_t *out_count) {
  size_t capacity = 0, count = 0;
  for (const lupe_target *t = a->first; t; t = t->next) {
    if (is_of(tree, t)) capacity += lupe_series_count(t->series);
  }
  lupe_memory_figures *rows = calloc(capacity + 1, sizeof *rows), *sums = calloc(capacity + 1, sizeof *sums);
  double *times = calloc(capacity + 1, sizeof *times);
  lupe_status status = rows && sums && times ? LUPE_OK : LUPE_ENOMEM;
  if (status != LUPE_OK) goto out;
  for (const lupe_target *t = a->first; t; t = t->next) {
    if (!is_of(tree, t)) continue;
    size_t of_it = lupe_series_copy(t->series, rows, lupe_series_count(t->series));
    for (size_t i = 0; i < of_it; i++) times[count++] = rows[i].time_ms;
  }
  count = moments_of(times, count);
  for (size_t i = 0; i < count; i++) sums[i].time_ms = times[i];
  for (const lupe_target *t = a->first; t; t = t->next) {
    if (is_of(tree, t)) add_process(t, sums, count, rows);
  }
  *out = sums;
  *out_count = count;
  sums = NULL;
out:
  free(rows);
  free(sums);
  free(times);
  return status;
}

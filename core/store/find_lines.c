/* Looking for the lines of a run's frames: what takes long is done without the aggregator's locks. */
#include "core/clock.h"
#include "core/store/run.h"

enum {
  FRAMES_AT_ONCE = 4096,
  FILE_NS = 1000000000, /* in one file at a time, after it was read */
};

/* Caller holds `lines`. */
static lupe_status find_some(lupe_aggregator *a, lupe_lines_sought sought, int64_t deadline_ns) {
  lupe_line_batch *batch = NULL;
  pthread_mutex_lock(&a->work);
  lupe_status status = lupe_frame_names_update(a->names);
  if (status == LUPE_OK)
    status = lupe_frame_names_unlocated(a->names, sought == LUPE_LINES_WANTED, FRAMES_AT_ONCE, &batch);
  pthread_mutex_unlock(&a->work);
  if (status != LUPE_OK) return status;
  if (!batch) return LUPE_ENOENT;

  lupe_line_batch_resolve(batch, deadline_ns, FILE_NS);
  pthread_mutex_lock(&a->work);
  lupe_frame_names_locate(a->names, batch);
  pthread_mutex_unlock(&a->work);
  return LUPE_OK;
}

lupe_status lupe_aggregator_find_lines(lupe_aggregator *a, lupe_lines_sought sought, int64_t deadline_ns) {
  pthread_mutex_lock(&a->lines);
  lupe_status status = find_some(a, sought, deadline_ns);
  while (sought == LUPE_LINES_ALL && status == LUPE_OK && lupe_clock_ns(CLOCK_MONOTONIC) < deadline_ns)
    status = find_some(a, sought, deadline_ns);
  pthread_mutex_unlock(&a->lines);
  return status;
}

void lupe_aggregator_line_figures(lupe_aggregator *a, lupe_line_figures *out) {
  pthread_mutex_lock(&a->work);
  lupe_frame_names_line_figures(a->names, out);
  pthread_mutex_unlock(&a->work);
}

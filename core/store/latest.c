#include "core/store/latest.h"

#include <stdio.h>

#include "core/clock.h"

enum {
  SAMPLES_AGE_MS = 5000, /* of the newest snapshot, however rare rounds have become; and it is built anew */
  BUILD_SHARE = 200,     /* for at most one part of the time */
};

void lupe_latest_publish(lupe_latest *l, const lupe_job *j) {
  if (j->status != LUPE_OK) {
    if (!l->closed) fprintf(stderr, "lupe: no snapshot could be built: %s\n", lupe_status_text(j->status));
    return;
  }
  double pause_ms = j->elapsed_ms * BUILD_SHARE;
  l->refresh_ms = lupe_unix_ms() + (pause_ms > SAMPLES_AGE_MS ? pause_ms : SAMPLES_AGE_MS);
  lupe_snapshot_release(l->snapshot);
  l->snapshot = j->snapshot;
  if (!l->closed) l->on_snapshot(l->arg, l->snapshot);
}

static void after_refresh(void *arg, const lupe_job *j) {
  lupe_latest_publish(arg, j);
}

void lupe_latest_refresh(lupe_latest *l) {
  if (!l->unseen || !lupe_jobs_idle(l->jobs) || lupe_unix_ms() < l->refresh_ms) return;
  lupe_job job = {.kind = LUPE_JOB_SNAPSHOT,
                  .pid = LUPE_TARGET_ALL_LIVE,
                  .window_ms = LUPE_WINDOW_MS,
                  .done = after_refresh,
                  .arg = l};
  if (lupe_jobs_add(l->jobs, &job) == LUPE_OK) l->unseen = false;
}

void lupe_latest_close(lupe_latest *l) {
  l->closed = true;
}

void lupe_latest_release(lupe_latest *l) {
  lupe_snapshot_release(l->snapshot);
  l->snapshot = NULL;
}

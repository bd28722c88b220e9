/* latest.h -- the newest snapshot of all live processes, and when it is built anew: each round ends with one;
 * where rounds are far apart, what was seen since is shown all the same, for a fixed share of the time.
 * Owner: the collector. Thread: the loop; no function waits. */
#ifndef LUPE_STORE_LATEST_H
#define LUPE_STORE_LATEST_H

#include <stdbool.h>

#include "core/lupe.h"
#include "core/store/jobs.h"
#include "core/store/snapshot.h"

/* Embedded in its owner, who fills in the first three; all zero behind them is none yet. */
typedef struct lupe_latest {
  lupe_jobs *jobs;
  void (*on_snapshot)(void *arg, lupe_snapshot *latest); /* a newer one is there; until it is closed */
  void *arg;
  lupe_snapshot *snapshot; /* NULL: none yet */
  double refresh_ms;       /* Unix time when it may be built anew for what it lacks */
  bool unseen; /* there are samples, or a leak proof, that neither it nor a round's end will have */
  bool closed;
} lupe_latest;

/* Takes over what a job has built, or tells that it could not. */
void lupe_latest_publish(lupe_latest *l, const lupe_job *j);
/* Has it built anew where there is something that it lacks, no job runs, and the last time is long ago. */
void lupe_latest_refresh(lupe_latest *l);
/* What is published from now on is kept without a word. */
void lupe_latest_close(lupe_latest *l);
/* No job that publishes may be left. */
void lupe_latest_release(lupe_latest *l);

#endif

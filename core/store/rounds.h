/* rounds.h -- heap profiles, in rounds: one asks every process for its profile at once, has what comes read
 * on the pool, and ends with a snapshot. Rounds come every heap interval, and less often where taking
 * profiles would cost more than its share of the overhead budget. Owner: the collector. Thread: the loop; no
 * function waits. */
#ifndef LUPE_STORE_ROUNDS_H
#define LUPE_STORE_ROUNDS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "core/lupe.h"
#include "core/store/aggregator.h"
#include "core/store/connections.h"
#include "core/store/jobs.h"
#include "core/store/latest.h"
#include "core/store/session.h"
#include "core/store/snapshot.h"

typedef struct lupe_rounds lupe_rounds;

/* The caller's, all of them, and there until the rounds are freed. */
typedef struct lupe_rounds_options {
  lupe_aggregator *aggregator;
  lupe_connections *connections;
  lupe_jobs *jobs;
  lupe_latest *latest;
  double profile_budget;   /* share of one core that taking profiles may cost, 0..1 */
  void (*idle)(void *arg); /* a handle has been closed: lupe_rounds_idle may be true now */
  void *arg;
} lupe_rounds_options;

/* No round begins before `start`. LUPE_ENOMEM. */
lupe_status lupe_rounds_create(lupe_rounds **out, const lupe_rounds_options *options);
void lupe_rounds_start(lupe_rounds *r, uv_loop_t *loop);
void lupe_rounds_close(lupe_rounds *r);
bool lupe_rounds_idle(const lupe_rounds *r); /* closed, or never started: no handle is left. Jobs may be */
void lupe_rounds_free(lupe_rounds *r);       /* it must be idle, and its jobs; NULL is a no-op */

/* A profile came (`fd` is its text, which this takes over), or could not be taken (-1). */
void lupe_rounds_profiled(lupe_rounds *r, lupe_session *s, const lupe_profile_reply *reply, int fd);
/* A session has ended: it is not waited for. */
void lupe_rounds_left(lupe_rounds *r);

/* The last one, of all targets, those too that ended: asks those that still run for a profile (at most two
 * seconds) once the round that is open is over. No rounds come after it, so for its snapshot lines are looked
 * for that are not known yet, for `lines_ms` at most. `done` is called once on the loop; on LUPE_OK
 * `snapshot` is the callee's to release, else NULL. */
void lupe_rounds_finish(lupe_rounds *r, uint32_t lines_ms,
                        void (*done)(void *arg, lupe_status status, lupe_snapshot *snapshot), void *arg);

/* Whether a snapshot comes of one soon: one is open, or it is the last. */
bool lupe_rounds_open(const lupe_rounds *r);
uint64_t lupe_rounds_interval_ms(const lupe_rounds *r); /* between two now, budget included */

#endif

#include "core/store/jobs.h"

#include <stdlib.h>
#include <unistd.h>

#include "core/clock.h"

typedef struct entry {
  lupe_work work;
  struct entry *next;
  lupe_jobs *queue;
  double time_ms; /* of what is asked */
  lupe_job job;
} entry;

struct lupe_jobs {
  lupe_pool *pool;
  lupe_aggregator *aggregator;
  entry *first, *last; /* the first one runs */
  uint32_t counts[LUPE_JOB_KINDS];
  void (*idle)(void *arg);
  void *arg;
};

lupe_status lupe_jobs_create(lupe_jobs **out, lupe_pool *pool, lupe_aggregator *a, void (*idle)(void *arg),
                             void *arg) {
  lupe_jobs *q = calloc(1, sizeof *q);
  if (!q) return LUPE_ENOMEM;
  q->pool = pool;
  q->aggregator = a;
  q->idle = idle;
  q->arg = arg;
  *out = q;
  return LUPE_OK;
}

void lupe_jobs_free(lupe_jobs *q) {
  free(q);
}

static void run(lupe_work *w) {
  entry *e = w->data;
  lupe_aggregator *a = e->queue->aggregator;
  lupe_job *j = &e->job;
  double start_ms = lupe_unix_ms();
  switch (j->kind) {
    case LUPE_JOB_INGEST:
      j->status = lupe_target_ingest(j->target, j->fd, j->tick, &j->why);
      break;
    case LUPE_JOB_ABSORB:
      lupe_aggregator_absorb(a);
      break;
    case LUPE_JOB_END_ROUND:
      lupe_aggregator_end_round(a);
      if (j->lines_ms > 0)
        (void)lupe_aggregator_find_lines(a, LUPE_LINES_ALL,
                                         lupe_monotonic_ns() + (int64_t)j->lines_ms * 1000000);
      j->status = lupe_aggregator_snapshot(a, j->pid, e->time_ms, j->window_ms, &j->snapshot);
      break;
    case LUPE_JOB_SNAPSHOT:
      j->status = lupe_aggregator_snapshot(a, j->pid, e->time_ms, j->window_ms, &j->snapshot);
      break;
    case LUPE_JOB_PROOF:
      j->status = lupe_target_take_proof(j->target, &j->proof, j->fd, j->proof_why, sizeof j->proof_why);
      break;
    case LUPE_JOB_KINDS: /* how many there are */
      break;
  }
  j->elapsed_ms = lupe_unix_ms() - start_ms;
}

static void after_run(lupe_work *w, lupe_status status);

static void run_first(lupe_jobs *q) {
  if (q->first) lupe_pool_queue(q->pool, &q->first->work, run, after_run);
}

static void after_run(lupe_work *w, lupe_status status) {
  entry *e = w->data;
  lupe_jobs *q = e->queue;
  lupe_job *j = &e->job;
  if (status != LUPE_OK) j->status = status;
  q->first = e->next;
  if (!q->first) q->last = NULL;
  q->counts[j->kind]--;
  run_first(q);

  if (j->done) j->done(j->arg, j);
  if (j->target) {
    lupe_target_release(j->target);
    if (j->fd >= 0) close(j->fd);
  }
  free(e);
  if (!q->first) q->idle(q->arg);
}

lupe_status lupe_jobs_add(lupe_jobs *q, const lupe_job *job) {
  static const uint32_t most[LUPE_JOB_KINDS] = {
      [LUPE_JOB_INGEST] = LUPE_TARGETS_LIVE_MAX, /* one of each live target */
      [LUPE_JOB_ABSORB] = 2,                     /* one runs, and one takes in all that comes meanwhile */
      [LUPE_JOB_END_ROUND] = UINT32_MAX,         /* never refused: no other round could begin */
      [LUPE_JOB_SNAPSHOT] = 1024,                /* twice as many as HTTP serves requests at once */
      [LUPE_JOB_PROOF] = LUPE_TARGETS_LIVE_MAX,  /* one of each live target */
  };
  if (q->counts[job->kind] >= most[job->kind]) return LUPE_EFULL;
  entry *e = calloc(1, sizeof *e);
  if (!e) return LUPE_ENOMEM;
  e->job = *job;
  e->queue = q;
  e->work.data = e;
  e->time_ms = lupe_unix_ms();
  q->counts[job->kind]++;
  if (q->last)
    q->last->next = e;
  else
    q->first = e;
  q->last = e;
  if (q->first == e) run_first(q);
  return LUPE_OK;
}

uint32_t lupe_jobs_count(const lupe_jobs *q, lupe_job_kind kind) {
  return q->counts[kind];
}

bool lupe_jobs_idle(const lupe_jobs *q) {
  return !q->first;
}

/* jobs.h -- what the collector has the pool do: one job at a time, in the order in which they were asked
 * for, so that the loop is never held by them. Owner and thread: the loop; `run` alone is called on a thread
 * of the pool. */
#ifndef LUPE_STORE_JOBS_H
#define LUPE_STORE_JOBS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/pool.h"
#include "core/store/aggregator.h"
#include "core/store/snapshot.h"

typedef enum lupe_job_kind {
  LUPE_JOB_INGEST,
  LUPE_JOB_ABSORB,
  LUPE_JOB_END_ROUND,
  LUPE_JOB_SNAPSHOT,
  LUPE_JOB_PROOF,
  LUPE_JOB_KINDS
} lupe_job_kind;

enum { LUPE_JOB_WHY_BYTES = 128 };

typedef struct lupe_job lupe_job;

/* Called on the loop when the job has ended; `j` is freed afterwards. */
typedef void (*lupe_job_cb)(void *arg, const lupe_job *j);

/* What is asked, and what came of it. */
struct lupe_job {
  lupe_job_kind kind;
  lupe_target *target;    /* INGEST, PROOF; the job's reference */
  int fd;                 /* INGEST, PROOF (or -1); owned */
  uint64_t tick;          /* INGEST */
  lupe_proof_reply proof; /* PROOF */
  int32_t pid;            /* END_ROUND, SNAPSHOT */
  uint32_t window_ms;     /* END_ROUND, SNAPSHOT */
  uint32_t lines_ms;      /* END_ROUND: so long, at most, all lines are looked for that are not known yet */
  lupe_job_cb done;
  void *arg;

  double elapsed_ms;                  /* how long it ran */
  lupe_status status;                 /* LUPE_EAGAIN: it was never started */
  const char *why;                    /* INGEST; valid as long as `target` */
  char proof_why[LUPE_JOB_WHY_BYTES]; /* PROOF; terminated */
  lupe_snapshot *snapshot;            /* END_ROUND, SNAPSHOT; on LUPE_OK for `done` to take over */
};

typedef struct lupe_jobs lupe_jobs;

/* `idle` is called whenever the last one has ended. */
lupe_status lupe_jobs_create(lupe_jobs **out, lupe_pool *pool, lupe_aggregator *a, void (*idle)(void *arg),
                             void *arg);
/* No job may be waiting or running. NULL is a no-op. */
void lupe_jobs_free(lupe_jobs *q);

/* Copies the question, and takes over what it owns on LUPE_OK. LUPE_EFULL: too many of its kind wait. */
lupe_status lupe_jobs_add(lupe_jobs *q, const lupe_job *job);
/* How many of a kind wait or run. */
uint32_t lupe_jobs_count(const lupe_jobs *q, lupe_job_kind kind);
bool lupe_jobs_idle(const lupe_jobs *q);

#endif

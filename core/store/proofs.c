#include "core/store/proofs.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/clock.h"

lupe_status lupe_proofs_ask(lupe_proofs *p, lupe_session *s, const lupe_proof_limits *limits,
                            lupe_proof_cb done, void *arg) {
  lupe_waiter *place = lupe_waiting_place(&p->waiting);
  if (!place) return LUPE_EFULL;
  const lupe_proof_request request = {.serial = ++p->waiting.serial, .limits = *limits};
  lupe_status status = lupe_session_prove(s, &request);
  if (status != LUPE_OK) return status;
  double wait_ms = (double)limits->interval_ms + 2.0 * limits->max_ms + LUPE_PROOF_ANSWER_GRACE_MS;
  *place = (lupe_waiter){.session = s,
                         .serial = request.serial,
                         .deadline_ms = lupe_unix_ms() + wait_ms,
                         .done.proof = done,
                         .arg = arg};
  return LUPE_OK;
}

static void complain(pid_t pid, lupe_status status, const char *why) {
  fprintf(stderr, "lupe: process %d: its leak proof was lost: %s%s%s\n", (int)pid, lupe_status_text(status),
          *why ? ": " : "", why);
}

/* A reply on its way through the pool. */
typedef struct passage {
  lupe_waiter waiter;
  pid_t pid;
} passage;

static void after_proof(void *arg, const lupe_job *j) {
  passage p = *(passage *)arg;
  free(arg);
  bool refused = j->status != LUPE_OK;
  if (p.waiter.done.proof)
    p.waiter.done.proof(p.waiter.arg, j->status, refused ? NULL : &j->proof, j->proof_why);
  else if (refused)
    complain(p.pid, j->status, j->proof_why);
}

void lupe_proofs_answered(lupe_proofs *p, lupe_jobs *jobs, lupe_session *s, const lupe_proof_reply *reply,
                          int fd) {
  lupe_waiter waiter = {0};
  (void)lupe_waiting_answered(&p->waiting, s, reply->serial, &waiter);
  lupe_status status = LUPE_ENOMEM;
  passage *way = malloc(sizeof *way);
  if (!way) goto lost;
  *way = (passage){waiter, lupe_session_pid(s)};
  lupe_job job = {
      .kind = LUPE_JOB_PROOF,
      .target = lupe_target_retain(lupe_session_target(s)),
      .fd = fd,
      .proof = *reply,
      .done = after_proof,
      .arg = way,
  };
  status = lupe_jobs_add(jobs, &job);
  if (status == LUPE_OK) return;
  lupe_target_release(job.target);
  free(way);
lost:
  if (fd >= 0) close(fd);
  if (waiter.done.proof)
    waiter.done.proof(waiter.arg, status, NULL, "");
  else
    complain(lupe_session_pid(s), status, "");
}

void lupe_proofs_forget(lupe_proofs *p, const lupe_session *s) {
  lupe_waiter w;
  while (lupe_waiting_forgotten(&p->waiting, s, &w)) w.done.proof(w.arg, LUPE_ENOENT, NULL, "");
}

void lupe_proofs_expire(lupe_proofs *p, double now_ms) {
  lupe_waiter w;
  while (lupe_waiting_expired(&p->waiting, now_ms, &w)) w.done.proof(w.arg, LUPE_EAGAIN, NULL, "");
}

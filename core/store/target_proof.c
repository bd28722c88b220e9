/* The aggregator's leak proofs: of each target the newest outcome, and what the newest complete one found. */
#include <stdio.h>
#include <string.h>

#include "core/store/run.h"

enum { ROWS_MAX = 1 << 18 /* of all targets together: 24 MB. The oldest proofs go first */ };

/* Until there is room for `more` rows beside those of other targets than `t`. Caller holds `work`. */
static void make_room(lupe_target *t, size_t more) {
  for (;;) {
    lupe_target *oldest = NULL;
    size_t rows = more;
    for (lupe_target *other = NULL; (other = lupe__target_next(t->aggregator, other));) {
      if (other == t || other->proof.complete.count == 0) continue;
      rows += other->proof.complete.count;
      if (!oldest || other->proof.complete.head.time_ms < oldest->proof.complete.head.time_ms) oldest = other;
    }
    if (rows <= ROWS_MAX || !oldest) return;
    /* All of it: without its rows it would say that nothing was found. */
    lupe_proof_clear(&oldest->proof.complete);
    oldest->proof = (lupe__target_proof){0};
  }
}

static lupe_status read_block(lupe_target *t, int fd, lupe_proof *out, char *why, size_t why_bytes) {
  if (fd < 0) {
    snprintf(why, why_bytes, "leak proof: complete, and without its block");
    return LUPE_ECORRUPT;
  }
  lupe_status status = lupe__target_read_maps(t);
  if (status != LUPE_OK) return status;
  return lupe_proof_read(fd, t->map, t->aggregator->stacks, out, why, why_bytes);
}

lupe_status lupe_target_take_proof(lupe_target *t, const lupe_proof_reply *reply, int fd, char *why,
                                   size_t why_bytes) {
  snprintf(why, why_bytes, "%s", "");
  if (reply->outcome >= LUPE_PROOF_OUTCOMES) {
    snprintf(why, why_bytes, "leak proof: outcome %u is not known", reply->outcome);
    return LUPE_ECORRUPT;
  }
  lupe_status status = LUPE_OK;
  pthread_mutex_lock(&t->aggregator->work);
  if (reply->outcome == LUPE_PROOF_COMPLETE) {
    lupe_proof fresh;
    status = read_block(t, fd, &fresh, why, why_bytes);
    if (status == LUPE_OK) {
      make_room(t, fresh.count);
      lupe_proof_clear(&t->proof.complete);
      t->proof.complete = fresh;
      t->proof.proven = true;
    }
  }
  if (status == LUPE_OK) {
    t->proof.newest = *reply;
    t->proof.answered = true;
  }
  pthread_mutex_unlock(&t->aggregator->work);
  return status;
}

void lupe__proofs_mark_stacks(lupe_aggregator *a, uint32_t *ids) {
  for (lupe_target *t = NULL; (t = lupe__target_next(a, t));) {
    const lupe_proof *p = &t->proof.complete;
    for (size_t i = 0; i < p->count; i++) ids[p->rows[i].stack] = 1; /* the others are among these */
  }
}

void lupe__proofs_renumber_stacks(lupe_aggregator *a, const uint32_t *ids) {
  for (lupe_target *t = NULL; (t = lupe__target_next(a, t));) lupe_proof_renumber(&t->proof.complete, ids);
}

/* waiting.h -- who waits for an agent's answer, and how long. Bounded; no allocation. One room for each kind
 * of question, so that an answer of another kind is never taken for the right one. Owner: commands.h,
 * proofs.h. Thread: the loop. */
#ifndef LUPE_STORE_WAITING_H
#define LUPE_STORE_WAITING_H

#include <stdbool.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/session.h"
#include "core/wire/message.h"

enum { LUPE_WAITERS_MAX = 32 /* in one room, for all agents */ };

/* Called once on the loop. LUPE_OK: the agent's `reply`; LUPE_EAGAIN: it has not answered in time (and may
 * carry it out yet); LUPE_ENOENT: it is gone. `reply` is NULL but for the first. */
typedef void (*lupe_command_cb)(void *arg, lupe_status status, const lupe_command_reply *reply);

/* Called once on the loop. LUPE_OK: the agent's `reply`, which may be a refusal; where it is complete, the
 * next snapshot has what it found. LUPE_EAGAIN and LUPE_ENOENT as above, without a reply. Else the reply
 * could not be taken in: LUPE_ECORRUPT (`why` tells), LUPE_EFULL, LUPE_ENOMEM, LUPE_EIO. `why` is ""
 * otherwise, and valid during the call. */
typedef void (*lupe_proof_cb)(void *arg, lupe_status status, const lupe_proof_reply *reply, const char *why);

typedef struct lupe_waiter {
  lupe_session *session; /* NULL: a free place */
  uint64_t serial;
  double deadline_ms; /* Unix time */
  union {
    lupe_command_cb command;
    lupe_proof_cb proof;
  } done;
  void *arg;
} lupe_waiter;

/* All zeros: nobody waits. */
typedef struct lupe_waiting {
  uint64_t serial; /* the last one given out */
  lupe_waiter waiters[LUPE_WAITERS_MAX];
} lupe_waiting;

/* A free place, for the caller to fill in; NULL: there is none. */
lupe_waiter *lupe_waiting_place(lupe_waiting *w);
/* These take one waiter out, so that whoever is called back may ask again; false: there is none (any more).
 */
bool lupe_waiting_answered(lupe_waiting *w, const lupe_session *s, uint64_t serial, lupe_waiter *out);
bool lupe_waiting_forgotten(lupe_waiting *w, const lupe_session *s,
                            lupe_waiter *out); /* of an ended session */
bool lupe_waiting_expired(lupe_waiting *w, double now_ms, lupe_waiter *out);

#endif

/* proofs.h -- leak proofs: asking agents for them, and having what comes, asked for or not, taken in on the
 * pool. Bounded. Owner: the collector. Thread: the loop; no function waits. */
#ifndef LUPE_STORE_PROOFS_H
#define LUPE_STORE_PROOFS_H

#include "core/lupe.h"
#include "core/store/jobs.h"
#include "core/store/session.h"
#include "core/store/waiting.h"
#include "core/wire/message.h"

enum { LUPE_PROOF_ANSWER_GRACE_MS = 5000 /* for the answer, beyond what the limits let it take */ };

/* All zeros: none is under way. */
typedef struct lupe_proofs {
  lupe_waiting waiting;
} lupe_proofs;

/* Asks for one. LUPE_EFULL: too many are under way; LUPE_EAGAIN: the agent does not read, or two are
 * unanswered; LUPE_ENOENT, LUPE_EIO. Then `done` is not called. */
lupe_status lupe_proofs_ask(lupe_proofs *p, lupe_session *s, const lupe_proof_limits *limits,
                            lupe_proof_cb done, void *arg);
/* One came, with its block or -1, which it takes over: a job takes it in, and then whoever waits for it is
 * told. What nobody waits for (unasked as the program exits, or too late) is taken in likewise; what is wrong
 * with it is logged. */
void lupe_proofs_answered(lupe_proofs *p, lupe_jobs *jobs, lupe_session *s, const lupe_proof_reply *reply,
                          int fd);
/* The session has ended. What came before that is still taken in, and told. */
void lupe_proofs_forget(lupe_proofs *p, const lupe_session *s);
/* Gives up on those whose time is over. To be called now and then. */
void lupe_proofs_expire(lupe_proofs *p, double now_ms);

#endif

/* proof.h -- a leak proof, as the program's own process sees it: whether it may be made, two forks some
 * seconds apart, and the wait for their children. The program stands still for the forks alone. Thread: the
 * agent's only, for every function; none waits but for a fork. */
#ifndef LUPE_AGENT_PROOF_H
#define LUPE_AGENT_PROOF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/wire/message.h"
#include "core/wire/proof.h"

enum { LUPE_PROOF_GRACE_MS = 500 /* beyond max_ms, before a child is killed */ };

typedef enum lupe_proof_phase {
  LUPE_PROOF_IDLE = 0,
  LUPE_PROOF_FIRST,  /* its child scans */
  LUPE_PROOF_PAUSED, /* between the two */
  LUPE_PROOF_SECOND,
  LUPE_PROOF_ENDED, /* `reply` is to be given, and `block_fd` with it where it is complete */
} lupe_proof_phase;

/* Who asks, and what is to be known for it. */
typedef struct lupe_proof_asked {
  uint64_t serial;
  lupe_proof_limits limits;
  uint64_t sample_period_bytes; /* 0: nothing is sampled */
  const pid_t *own;             /* the agent's threads */
  size_t own_count;
  const void *first_frame; /* frame address of this thread's first function */
} lupe_proof_asked;

/* All zeros but the descriptors: idle. */
typedef struct lupe_proof {
  lupe_proof_phase phase;
  lupe_proof_asked asked;
  lupe_proof_reply reply;
  pid_t child;
  int progress_fd, seen_fd, block_fd; /* -1: none */
  int64_t start_ns, due_ms;           /* due_ms: lupe_session_now_ms(), when to call lupe_proof_step */
  int64_t kill_ms;                    /* when the child has taken too long to say so itself */
  int64_t room_ms;                    /* when to look at the memory that is left */
  lupe_proof_outcome stopped_for;     /* why the child was ended; COMPLETE: it was not */
  uint64_t child_cpu_ns;              /* of the children so far */
} lupe_proof;

#define LUPE_PROOF_INIT ((lupe_proof){.progress_fd = -1, .seen_fd = -1, .block_fd = -1})

/* From idle only. Afterwards it is in its first scan, or ended: refused. */
void lupe_proof_begin(lupe_proof *p, const lupe_proof_asked *asked);

/* When to call lupe_proof_step; INT64_MAX: never. */
int64_t lupe_proof_due_ms(const lupe_proof *p);
void lupe_proof_step(lupe_proof *p, int64_t now_ms);

/* Ends what is under way, with LUPE_PROOF_LEAVING. */
void lupe_proof_abandon(lupe_proof *p);

/* The reply was given: closes everything, and is idle again. */
void lupe_proof_clear(lupe_proof *p);

#endif

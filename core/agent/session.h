/* session.h -- one conversation with the runtime: the words of message.h, from the agent's side.
 * Thread: the agent's only, for every function. None waits longer than a second for the runtime. */
#ifndef LUPE_AGENT_SESSION_H
#define LUPE_AGENT_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/agent/own_threads.h"
#include "core/agent/proof.h"
#include "core/agent/sampler.h"
#include "core/lupe.h"
#include "core/wire/message.h"
#include "core/wire/record.h"

typedef struct lupe_session {
  int socket;            /* -1: none */
  lupe_segment *segment; /* from lupe_session_open on; stays mapped when the session ends, since other
                            threads may be writing to it: control.c unmaps it */
  bool has_profiles;     /* heap profiling is on in this program */
  bool welcomed;         /* the runtime has said so; sampling is as it wants */
  bool comes_back;       /* the runtime has said so, of itself */
  bool enabled;          /* the runtime wants something; true until it says otherwise */
  int64_t figures_interval_ms;
  int64_t figures_due_ms;     /* lupe_session_now_ms() */
  bool busy;                  /* with `command`, which has more to do */
  lupe_agent_command command; /* the last one */
  uint32_t arena;             /* of the command: the next one */
  int64_t command_ns;         /* when it began; CLOCK_MONOTONIC */
  lupe_sampler sampler;       /* of CPU and wall */
  lupe_proof proof;           /* the one that was asked for */
  bool proof_at_exit;
  lupe_proof_limits exit_limits; /* of that */
  uint64_t sample_period_bytes;  /* 0 unless heap profiling is on */
  pid_t own[LUPE_OWN_THREADS];   /* own_threads.h, when a proof began */
  const void *first_frame;       /* frame address of this thread's first function */
  _Atomic int64_t
      *proves_until; /* written while a proof at exit is under way: when it ends at the latest; then
                        0 */
} lupe_session;

/* CLOCK_MONOTONIC in milliseconds. */
int64_t lupe_session_now_ms(void);

/* A file in memory does not change any more: the runtime may map it. LUPE_EIO. */
lupe_status lupe_session_seal(int fd);

/* Gives the calling thread an empty descriptor table of its own. LUPE_EUNSUPPORTED: this kernel cannot
 * (before 5.9) or a filter forbids it. */
lupe_status lupe_session_own_descriptors(void);

/* Connects, and looks whose the other end is: ours or root's, else LUPE_EPERM. A full queue is tried again
 * for 40 ms. */
lupe_status lupe_session_connect(lupe_session *se, const char *path);

/* Makes the segments, says HELLO, has spans counted and the heap sampled; the sampling of CPU and wall begins
 * with the runtime's WELCOME. */
lupe_status lupe_session_open(lupe_session *se, const lupe_hello *hello);

/* Takes one message and does what it says. LUPE_OK also when there is none; else the conversation is over.
 * Afterwards the session may be busy: then not to be called. */
lupe_status lupe_session_answer(lupe_session *se);

/* Does the next part of what the session is busy with, and answers after the last one. As above. */
lupe_status lupe_session_go_on(lupe_session *se);

/* Reads the allocator's figures into the segment, and what this thread has cost; measures the clock of spans.
 */
void lupe_session_refresh(lupe_session *se);

/* When to call lupe_session_prove_on; INT64_MAX: never. */
int64_t lupe_session_proof_due_ms(const lupe_session *se);
/* Goes on with a proof that was asked for, and answers when it has ended. As lupe_session_answer. */
lupe_status lupe_session_prove_on(lupe_session *se, int64_t now_ms);

/* The last samples, a leak proof where one is wanted at exit and this is it, a last profile and GOODBYE. */
void lupe_session_farewell(lupe_session *se, bool exiting);

/* Switches sampling off, leaves jemalloc as it was before, and hangs up. */
void lupe_session_close(lupe_session *se);

#endif

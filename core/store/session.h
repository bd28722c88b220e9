/* session.h -- one agent's connection: its handshake, its ring and its counters, fed into the aggregator.
 * Owner: connections.h. Thread: the loop; no function waits. */
#ifndef LUPE_STORE_SESSION_H
#define LUPE_STORE_SESSION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/lupe.h"
#include "core/store/aggregator.h"
#include "core/wire/message.h"
#include "core/wire/record.h"

typedef struct lupe_session lupe_session;

/* Whose programs may connect, beside lupe's own user's. */
typedef struct lupe_peers {
  bool anyone;
  const uid_t *uids; /* of `count`; the caller's, for as long as connections are taken */
  size_t count;
} lupe_peers;

/* What the agents count about themselves, as plain numbers; summed over sessions. */
typedef struct lupe_agent_cost {
  uint64_t heap_samples, dropped_records, truncated_stacks;
  uint64_t cpu_samples, wall_looks;
  uint64_t wall_moved;                         /* looks at a thread that ran on meanwhile */
  uint64_t hook_ns, handler_ns, thread_cpu_ns; /* time in the allocation hook and in the signal handler; CPU
                                                  time of the agents' own threads and of the
                                                  children of leak proofs */
  uint64_t profiles, profile_ns;               /* prof.dump: how many, and how long they took */
  uint64_t corruptions;                        /* ring contents that broke the format */
  uint64_t own_heap_bytes; /* what lupe's threads hold of the programs' allocators now; of live sessions */
} lupe_agent_cost;

typedef struct lupe_session_events {
  /* A heap profile came (status 0: `fd` is its text, now the callee's), or could not be taken. */
  void (*profiled)(void *arg, lupe_session *s, const lupe_profile_reply *reply, int fd);
  /* A command was carried out, or not. */
  void (*commanded)(void *arg, lupe_session *s, const lupe_command_reply *reply);
  /* A leak proof is over (`fd` is its block, now the callee's), or did not begin (-1). */
  void (*proved)(void *arg, lupe_session *s, const lupe_proof_reply *reply, int fd);
  /* Its mappings came: they can be absorbed. */
  void (*mapped)(void *arg);
  void *arg;
} lupe_session_events;

/* Takes `fd` over. LUPE_EPERM: the peer is a user's who is not among `peers` (NULL: lupe's own only), and fd
 * is closed. */
lupe_status lupe_session_create(lupe_session **out, int fd, lupe_aggregator *a, const lupe_welcome *welcome,
                                lupe_session_events events, const lupe_peers *peers);
/* Drains what is left, tells the aggregator that the target died, closes. NULL is a no-op. */
void lupe_session_free(lupe_session *s);

/* Reads the messages that are there, up to a bound: where more wait, the socket stays readable. LUPE_ENOENT:
 * the agent is gone (or broke the protocol, logged): free it. */
lupe_status lupe_session_receive(lupe_session *s);
/* Moves samples and figures from the shared segment into the aggregator; bounded by what the ring holds. */
void lupe_session_drain(lupe_session *s);
/* Reads the process's memory figures (/proc and the allocator's) into the aggregator. */
void lupe_session_measure(lupe_session *s);
/* Asks for a heap profile; `serial` is not 0. LUPE_EUNSUPPORTED: this one cannot; LUPE_EAGAIN: the last one
 * is still to come (or its socket is full); LUPE_ENOENT, LUPE_EIO. */
lupe_status lupe_session_request_profile(lupe_session *s, uint64_t serial);
/* Whether it was asked for that one, and the answer is still to come. */
bool lupe_session_awaits_profile(const lupe_session *s, uint64_t serial);

/* Sends a command, whose serial is above those before; what comes of it is told by `commanded`. LUPE_EAGAIN:
 * its socket is full, one is overdue, or it has not said HELLO; LUPE_ENOENT, LUPE_EIO. */
lupe_status lupe_session_command(lupe_session *s, const lupe_agent_command *command);
/* The command of that serial is not waited for any more. Until its answer comes there are no others: not a
 * pile of them for when a process that is stopped goes on. */
void lupe_session_overdue(lupe_session *s, uint64_t serial);
/* What it is asked for from now on: in its WELCOME, or else by a command. LUPE_EAGAIN: its socket is full, or
 * the last such command is unanswered, so it is to be tried again; LUPE_ENOENT, LUPE_EIO. */
lupe_status lupe_session_set_rates(lupe_session *s, uint32_t cpu_hz, uint32_t wall_hz);

/* Asks for a leak proof; what comes of it is told by `proved`. LUPE_EAGAIN: its socket is full, it has not
 * said HELLO, or two are unanswered (the second one's answer will be that it is busy): not a pile of them for
 * when a process that is stopped goes on; LUPE_ENOENT, LUPE_EIO. */
lupe_status lupe_session_prove(lupe_session *s, const lupe_proof_request *request);
/* Whether it is to prove as it exits, from now on: in its WELCOME, which is sent again where it has one.
 * NULL: no. LUPE_EAGAIN: its socket is full, so it is to be tried again; LUPE_ENOENT, LUPE_EIO. */
lupe_status lupe_session_set_proof_at_exit(lupe_session *s, const lupe_proof_limits *limits);

pid_t lupe_session_pid(const lupe_session *s);
uid_t lupe_session_uid(const lupe_session *s);
lupe_target *lupe_session_target(const lupe_session *s); /* NULL before HELLO */
/* Adds this session's counts to *sum. */
void lupe_session_add_cost(const lupe_session *s, lupe_agent_cost *sum);
/* The allocator's newest figures. LUPE_EAGAIN: none yet. */
lupe_status lupe_session_allocator(const lupe_session *s, lupe_allocator_figures *out);

#endif

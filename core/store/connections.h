/* connections.h -- the agents that are connected: listens on their socket, takes them in as sessions, tells
 * them what they are asked for, and sees them out. Who connects and says nothing is not kept for long.
 * Owner: the collector. Thread: the loop; no function waits. */
#ifndef LUPE_STORE_CONNECTIONS_H
#define LUPE_STORE_CONNECTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "core/lupe.h"
#include "core/store/aggregator.h"
#include "core/store/session.h"
#include "core/wire/message.h"

typedef struct lupe_connections lupe_connections;
typedef struct lupe_connection lupe_connection;

typedef struct lupe_connections_events {
  lupe_session_events session; /* of all of them; its `arg` is everybody's */
  /* A session ends: it is not found any more, and will be freed. */
  void (*leaving)(void *arg, const lupe_session *s);
  void (*left)(void *arg); /* and now it is gone */
  void (*idle)(void *arg); /* a handle has been closed: lupe_connections_idle may be true now */
} lupe_connections_events;

typedef struct lupe_connections_options {
  const char *socket_path; /* made by create, removed by free */
  lupe_peers peers;        /* whose programs are taken in beside those of lupe's own user */
  uint32_t hello_wait_ms;  /* who has said nothing for so long is disconnected; 0: 10 s */
  lupe_welcome welcome;    /* what an agent is told when it comes */
  lupe_connections_events events;
} lupe_connections_options;

/* Nobody is taken in before `start`. LUPE_EINUSE or LUPE_EIO for the socket, LUPE_ENOMEM. */
lupe_status lupe_connections_create(lupe_connections **out, uv_loop_t *loop, lupe_aggregator *a,
                                    const lupe_connections_options *options);
void lupe_connections_start(lupe_connections *c);
/* Ends all sessions, and takes no more in. */
void lupe_connections_close(lupe_connections *c);
bool lupe_connections_idle(const lupe_connections *c); /* closed, or never started: no handle is left */
void lupe_connections_free(lupe_connections *c);       /* it must be idle; NULL is a no-op */

/* Reads what is there to read now, from those too that only knock. */
void lupe_connections_receive(lupe_connections *c);
/* To be called every so often: disconnects who has been silent for too long, moves what is in the rings into
 * the aggregator, and tells again what an agent had no room for. */
void lupe_connections_tend(lupe_connections *c);
/* Moves what is in the rings into the aggregator. */
void lupe_connections_drain(lupe_connections *c);
/* Reads figures into the aggregator: those of `pid`, or of all for LUPE_TARGET_ALL_LIVE. */
void lupe_connections_measure(lupe_connections *c, int32_t pid);

/* One session after the other: *at is NULL before the first one. NULL: there are no more. Sessions may end
 * meanwhile. */
lupe_session *lupe_connections_next(const lupe_connections *c, lupe_connection **at);
/* The one whose agent speaks for `pid`; NULL. */
lupe_session *lupe_connections_find(const lupe_connections *c, pid_t pid);

/* What all agents are asked for from now on, those that connect later too. */
void lupe_connections_set_rates(lupe_connections *c, uint32_t cpu_hz, uint32_t wall_hz);
/* Whether all programs are to prove as they exit, those that connect later too; NULL: no. */
void lupe_connections_set_proof_at_exit(lupe_connections *c, const lupe_proof_limits *limits);

/* Summed over all sessions, those that ended included. */
void lupe_connections_cost(const lupe_connections *c, lupe_agent_cost *out);
/* How many were not taken in, or not kept: of users who are not to connect, without a word for too long, or
 * beyond the 256 such ones that each user but lupe's own may have. */
uint64_t lupe_connections_refused(const lupe_connections *c);

#endif

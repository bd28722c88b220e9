/* collector.h -- gathers one run: agents connect (connections.h), their rings are drained, heap profiles are
 * taken in rounds (rounds.h), and the newest snapshot is kept (latest.h).
 * Dumps are read and snapshots built on the pool, one job at a time (jobs.h), so the loop is never held by
 * them. Owner and thread: the loop. */
#ifndef LUPE_STORE_COLLECTOR_H
#define LUPE_STORE_COLLECTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "core/lupe.h"
#include "core/pool.h"
#include "core/store/aggregator.h"
#include "core/store/commands.h"
#include "core/store/proofs.h"
#include "core/store/session.h"
#include "core/store/snapshot.h"

typedef struct lupe_collector lupe_collector;

typedef struct lupe_collector_options {
  const char *socket_path;     /* made by create, removed by close */
  lupe_peers peers;            /* whose programs it takes in beside its own user's */
  uint32_t memory_interval_ms; /* between two rows of the memory series */
  double profile_budget;       /* share of one core that taking profiles may cost, 0..1 */
  uint32_t cpu_hz, wall_hz; /* what the agents are asked for at first; 0: off. As the aggregator knows them */
  uint32_t hello_wait_ms;   /* who has said nothing for so long is disconnected; 0: 10 s */
  bool comes_back;          /* programs are to look for it again when it has gone away */
  uint32_t proof_at_exit;   /* 1: programs are to prove as they exit, within `proof` */
  lupe_proof_limits proof;
  /* After a round, and every few seconds between two while there are CPU and wall samples, or a leak proof;
   * the collector keeps `latest`. Called on the loop. */
  void (*on_snapshot)(void *arg, lupe_snapshot *latest);
  void *arg;
} lupe_collector_options;

/* Called once on the loop; on LUPE_OK `snapshot` is the callee's to release, else NULL. */
typedef void (*lupe_collector_snapshot_cb)(void *arg, lupe_status status, lupe_snapshot *snapshot);
typedef void (*lupe_collector_close_cb)(void *arg);

/* LUPE_EINUSE or LUPE_EIO for the socket, LUPE_ENOMEM. `a` and `pool` stay the caller's, and are
 * there until it is closed. */
lupe_status lupe_collector_create(lupe_collector **out, uv_loop_t *loop, lupe_pool *pool, lupe_aggregator *a,
                                  const lupe_collector_options *options);

/* The newest merged snapshot, borrowed, with the samples of its last minute; NULL before the first round
 * ended. */
lupe_snapshot *lupe_collector_latest(const lupe_collector *c);
/* Builds one now, as lupe_aggregator_snapshot: for a pid, LUPE_TARGET_ALL_LIVE or LUPE_TARGET_ALL, with CPU
 * and wall samples up to this moment. LUPE_EFULL: too many are waiting; LUPE_ENOMEM. */
lupe_status lupe_collector_snapshot(lupe_collector *c, int32_t pid, uint32_t window_ms,
                                    lupe_collector_snapshot_cb done, void *arg);

/* The last round of a run: takes in what the ending processes `left`, their leak proofs too, asks those that
 * still run for a profile (at most two seconds), and gives the snapshot of all targets. No rounds come after
 * it, so for that snapshot lines are looked for that are not known yet, for `lines_ms` at most. */
void lupe_collector_finish(lupe_collector *c, uint32_t lines_ms, lupe_collector_snapshot_cb done, void *arg);

/* What all agents are asked for from now on, those that connect later too. */
void lupe_collector_set_rates(lupe_collector *c, uint32_t cpu_hz, uint32_t wall_hz);
/* Has the agent of one process carry a command out; see lupe_commands_send. LUPE_ENOENT: no agent speaks for
 * `pid`. */
lupe_status lupe_collector_command(lupe_collector *c, pid_t pid, const lupe_agent_command *what,
                                   lupe_command_cb done, void *arg);

/* Whether all programs are to prove as they exit, those that connect later too; NULL: no. */
void lupe_collector_set_proof_at_exit(lupe_collector *c, const lupe_proof_limits *limits);
/* Has one process prove what it has leaked. `done` is called once that was taken in; see lupe_proofs_ask.
 * Several processes may do so at once. LUPE_ENOENT: no agent speaks for `pid`. */
lupe_status lupe_collector_prove(lupe_collector *c, pid_t pid, const lupe_proof_limits *limits,
                                 lupe_proof_cb done, void *arg);

/* Reads figures into the aggregator now: those of `pid`, or of all for LUPE_TARGET_ALL_LIVE. */
void lupe_collector_measure(lupe_collector *c, int32_t pid);
/* Summed over all agents of the run, those that left included. */
void lupe_collector_cost(const lupe_collector *c, lupe_agent_cost *out);
/* The allocator's figures of one process, or of the first that has some (pid 0). LUPE_ENOENT. */
lupe_status lupe_collector_allocator(const lupe_collector *c, int32_t pid, lupe_allocator_figures *out);
bool lupe_collector_connected(const lupe_collector *c, pid_t pid); /* whether an agent speaks for it now */
/* Connections that were not taken in, or not kept: of users who are not to connect, without a word for too
 * long, or beyond the 256 such ones that each user but lupe's own may have. */
uint64_t lupe_collector_refused(const lupe_collector *c);
uint32_t lupe_collector_round_interval_ms(const lupe_collector *c); /* between rounds now, budget included */

/* Closes the socket and all sessions; running jobs end first. Frees `c`, then calls `done`. */
void lupe_collector_close(lupe_collector *c, lupe_collector_close_cb done, void *arg);

#endif

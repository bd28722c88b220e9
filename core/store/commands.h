/* commands.h -- commands to agents, each until its answer is there: who waits for it, and how long.
 * Bounded; no allocation. Owner: the collector. Thread: the loop; no function waits. */
#ifndef LUPE_STORE_COMMANDS_H
#define LUPE_STORE_COMMANDS_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/session.h"
#include "core/wire/message.h"

enum {
  LUPE_COMMANDS_MAX = 32,       /* under way, to all agents */
  LUPE_COMMAND_WAIT_MS = 15000, /* for the answer: a process may be stopped or swapped out, or have tens of
                                   gigabytes to give back */
};

/* Called once on the loop. LUPE_OK: the agent's `reply`; LUPE_EAGAIN: it has not answered in time (and may
 * carry it out yet); LUPE_ENOENT: it is gone. `reply` is NULL but for the first. */
typedef void (*lupe_command_cb)(void *arg, lupe_status status, const lupe_command_reply *reply);

typedef struct lupe_waiting_command {
  lupe_session *session; /* NULL: free */
  uint64_t serial;
  double deadline_ms; /* Unix time */
  lupe_command_cb done;
  void *arg;
} lupe_waiting_command;

/* All zeros: none is under way. */
typedef struct lupe_commands {
  uint64_t serial;
  lupe_waiting_command waiting[LUPE_COMMANDS_MAX];
} lupe_commands;

/* Sends `what` (its serial is filled in here). LUPE_EFULL: too many are under way; LUPE_EAGAIN: the agent
 * does not read, or one that was given up on is unanswered still; LUPE_ENOENT, LUPE_EIO. Then `done` is not
 * called. */
lupe_status lupe_commands_send(lupe_commands *c, lupe_session *s, const lupe_agent_command *what,
                               lupe_command_cb done, void *arg);
/* An answer came. One that nobody waits for (any more) is passed over. */
void lupe_commands_answered(lupe_commands *c, const lupe_session *s, const lupe_command_reply *reply);
/* The session has ended. */
void lupe_commands_forget(lupe_commands *c, const lupe_session *s);
/* Gives up on those whose time is over. To be called now and then. */
void lupe_commands_expire(lupe_commands *c, double now_ms);

#endif

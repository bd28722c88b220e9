/* commands.h -- commands to agents, each until its answer is there.
 * Bounded; no allocation. Owner: the collector. Thread: the loop; no function waits. */
#ifndef LUPE_STORE_COMMANDS_H
#define LUPE_STORE_COMMANDS_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/session.h"
#include "core/store/waiting.h"
#include "core/wire/message.h"

enum {
  LUPE_COMMAND_WAIT_MS = 15000, /* for the answer: a process may be stopped or swapped out, or have tens of
                                   gigabytes to give back */
};

/* All zeros: none is under way. */
typedef struct lupe_commands {
  lupe_waiting waiting;
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

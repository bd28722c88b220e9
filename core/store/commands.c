#include "core/store/commands.h"

#include "core/clock.h"

lupe_status lupe_commands_send(lupe_commands *c, lupe_session *s, const lupe_agent_command *what,
                               lupe_command_cb done, void *arg) {
  lupe_waiting_command *place = c->waiting;
  while (place < c->waiting + LUPE_COMMANDS_MAX && place->session) place++;
  if (place == c->waiting + LUPE_COMMANDS_MAX) return LUPE_EFULL;
  lupe_agent_command numbered = *what;
  numbered.serial = ++c->serial;
  lupe_status status = lupe_session_command(s, &numbered);
  if (status != LUPE_OK) return status;
  *place = (lupe_waiting_command){s, numbered.serial, lupe_unix_ms() + LUPE_COMMAND_WAIT_MS, done, arg};
  return LUPE_OK;
}

static void finish(lupe_waiting_command *w, lupe_status status, const lupe_command_reply *reply) {
  lupe_waiting_command ended = *w;
  w->session = NULL; /* first: who is called may send the next one */
  ended.done(ended.arg, status, reply);
}

void lupe_commands_answered(lupe_commands *c, const lupe_session *s, const lupe_command_reply *reply) {
  for (lupe_waiting_command *w = c->waiting; w < c->waiting + LUPE_COMMANDS_MAX; w++) {
    if (w->session != s || w->serial != reply->serial) continue;
    finish(w, LUPE_OK, reply);
    return;
  }
}

void lupe_commands_forget(lupe_commands *c, const lupe_session *s) {
  for (lupe_waiting_command *w = c->waiting; w < c->waiting + LUPE_COMMANDS_MAX; w++) {
    if (w->session == s) finish(w, LUPE_ENOENT, NULL);
  }
}

void lupe_commands_expire(lupe_commands *c, double now_ms) {
  for (lupe_waiting_command *w = c->waiting; w < c->waiting + LUPE_COMMANDS_MAX; w++) {
    if (!w->session || w->deadline_ms >= now_ms) continue;
    lupe_session_overdue(w->session, w->serial);
    finish(w, LUPE_EAGAIN, NULL);
  }
}

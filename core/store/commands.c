#include "core/store/commands.h"

#include "core/clock.h"

lupe_status lupe_commands_send(lupe_commands *c, lupe_session *s, const lupe_agent_command *what,
                               lupe_command_cb done, void *arg) {
  lupe_waiter *place = lupe_waiting_place(&c->waiting);
  if (!place) return LUPE_EFULL;
  lupe_agent_command numbered = *what;
  numbered.serial = ++c->waiting.serial;
  lupe_status status = lupe_session_command(s, &numbered);
  if (status != LUPE_OK) return status;
  *place = (lupe_waiter){.session = s,
                         .serial = numbered.serial,
                         .deadline_ms = lupe_unix_ms() + LUPE_COMMAND_WAIT_MS,
                         .done.command = done,
                         .arg = arg};
  return LUPE_OK;
}

void lupe_commands_answered(lupe_commands *c, const lupe_session *s, const lupe_command_reply *reply) {
  lupe_waiter w;
  if (lupe_waiting_answered(&c->waiting, s, reply->serial, &w)) w.done.command(w.arg, LUPE_OK, reply);
}

void lupe_commands_forget(lupe_commands *c, const lupe_session *s) {
  lupe_waiter w;
  while (lupe_waiting_forgotten(&c->waiting, s, &w)) w.done.command(w.arg, LUPE_ENOENT, NULL);
}

void lupe_commands_expire(lupe_commands *c, double now_ms) {
  lupe_waiter w;
  while (lupe_waiting_expired(&c->waiting, now_ms, &w)) {
    lupe_session_overdue(w.session, w.serial);
    w.done.command(w.arg, LUPE_EAGAIN, NULL);
  }
}

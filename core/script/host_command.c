/* host_command.c -- what the agents are asked to do: how often to sample, and to have the allocator give
 * back. */
#include <lauxlib.h>
#include <string.h>

#include "core/script/host_internal.h"

enum { HZ_MAX = 1000 };

/* set_rates(cpu_hz, wall_hz) */
static int set_rates(lua_State *L) {
  lua_Integer cpu_hz = luaL_checkinteger(L, 1), wall_hz = luaL_checkinteger(L, 2);
  luaL_argcheck(L, cpu_hz >= 0 && cpu_hz <= HZ_MAX, 1, "not from 0 to 1000");
  luaL_argcheck(L, wall_hz >= 0 && wall_hz <= HZ_MAX, 2, "not from 0 to 1000");
  lupe_collector_set_rates(lupe__host_of(L)->services.collector, (uint32_t)cpu_hz, (uint32_t)wall_hz);
  return 0;
}

/* -- command(pid, { name, dirty_ms, muzzy_ms }, callback(error, elapsed_ms, code)) -------------- */

typedef struct outcome {
  lupe_status status;
  const lupe_command_reply *reply;
} outcome;

static const char *failure_of(const outcome *o) {
  if (o->status == LUPE_ENOENT) return "the process has no agent: it has ended, or was never profiled";
  if (o->status == LUPE_EAGAIN) return "the process does not answer: it may be stopped";
  if (o->status != LUPE_OK) return lupe_status_text(o->status);
  return strerrordesc_np(o->reply->status);
}

static int push_outcome(lua_State *L, lupe__task *t) {
  const outcome *o = t->arg;
  if (o->status == LUPE_OK && o->reply->status == 0) {
    lua_pushnil(L);
    lua_pushnumber(L, (double)o->reply->elapsed_ns / 1e6);
    return 2;
  }
  const char *name = o->status == LUPE_OK ? strerrorname_np(o->reply->status) : NULL;
  const char *why = failure_of(o);
  lua_pushstring(L, why ? why : "the agent refused");
  if (!name) return 1;
  lua_pushnil(L);
  lua_pushstring(L, name);
  return 3;
}

static void on_done(void *arg, lupe_status status, const lupe_command_reply *reply) {
  outcome o = {status, reply};
  lupe__task_finish(arg, push_outcome, &o);
}

/* A time in the table at `index`; nil: as it is. */
static int32_t decay_field(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  lua_Number ms = luaL_optnumber(L, -1, LUPE_DECAY_SAME);
  lua_pop(L, 1);
  if (ms < LUPE_DECAY_SAME || ms > LUPE_DECAY_MAX_MS) luaL_error(L, "%s: not from -1 to a day", name);
  return (int32_t)ms;
}

static int command(lua_State *L) {
  static const char *const names[] = {"purge", "decay", NULL};
  lua_Integer pid = luaL_checkinteger(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_getfield(L, 2, "name");
  bool purge = luaL_checkoption(L, -1, NULL, names) == 0;
  lupe_agent_command what = {.kind = purge ? LUPE_COMMAND_PURGE : LUPE_COMMAND_DECAY};
  if (!purge) {
    what.dirty_decay_ms = decay_field(L, 2, "dirty_ms");
    what.muzzy_decay_ms = decay_field(L, 2, "muzzy_ms");
  }
  lupe__task *t = lupe__task_create(L, 3);
  lupe_status status = lupe_collector_command(t->host->services.collector, (pid_t)pid, &what, on_done, t);
  if (status != LUPE_OK) {
    outcome o = {.status = status};
    lupe__task_abandon(L, t);
    lua_pushvalue(L, 3);
    lua_pushstring(L, failure_of(&o));
    lua_call(L, 1, 0);
  }
  return 0;
}

const luaL_Reg lupe__host_commands[] = {
    {"set_rates", set_rates},
    {"command", command},
    {NULL, NULL},
};

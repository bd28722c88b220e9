/* host_proof.c -- leak proofs: asking a process for one, and having programs make one as they exit. */
#include <lauxlib.h>

#include "core/script/host_internal.h"

#define BYTES_MAX 9007199254740992.0 /* what a number holds exactly */
enum { MS_MAX = 24 * 3600 * 1000, SHARE_MAX = 1000 };

/* -- limits ----------------------------------------------------------------------------------- */

static double limit(lua_State *L, int index, const char *name, double least, double most) {
  lua_getfield(L, index, name);
  if (!lua_isnumber(L, -1)) luaL_error(L, "%s: a number is expected", name);
  double value = lua_tonumber(L, -1);
  lua_pop(L, 1);
  if (!(value >= least && value <= most)) luaL_error(L, "%s: not from %.0f to %.0f", name, least, most);
  return value;
}

/* { interval_ms, max_ms, max_heap_bytes, max_table_bytes, min_free_bytes, min_free_share } */
static lupe_proof_limits limits_argument(lua_State *L, int index) {
  luaL_checktype(L, index, LUA_TTABLE);
  return (lupe_proof_limits){
      .interval_ms = (uint32_t)limit(L, index, "interval_ms", 0, MS_MAX),
      .max_ms = (uint32_t)limit(L, index, "max_ms", 1, MS_MAX),
      .max_heap_bytes = (uint64_t)limit(L, index, "max_heap_bytes", 0, BYTES_MAX),
      .max_table_bytes = (uint64_t)limit(L, index, "max_table_bytes", 0, BYTES_MAX),
      .min_free_bytes = (uint64_t)limit(L, index, "min_free_bytes", 0, BYTES_MAX),
      .min_free_share = limit(L, index, "min_free_share", 0, SHARE_MAX),
  };
}

/* set_proof_at_exit(limits | nil) */
static int set_proof_at_exit(lua_State *L) {
  lupe_collector *c = lupe__host_of(L)->services.collector;
  if (lua_isnoneornil(L, 1)) {
    lupe_collector_set_proof_at_exit(c, NULL);
  } else {
    lupe_proof_limits limits = limits_argument(L, 1);
    lupe_collector_set_proof_at_exit(c, &limits);
  }
  return 0;
}

/* -- prove(pid, limits, callback(error, reply)) ------------------------------------------------- */

typedef struct result {
  lupe_status status;
  const lupe_proof_reply *reply;
  const char *why;
} result;

static const char *failure_of(const result *r) {
  if (r->status == LUPE_ENOENT) return "the process has no agent: it has ended, or was never profiled";
  if (r->status == LUPE_EAGAIN) return "the process does not answer: it may be stopped";
  if (r->status == LUPE_EFULL) return "too many leak proofs are under way";
  return r->why[0] ? r->why : lupe_status_text(r->status);
}

static void set_number(lua_State *L, const char *name, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, name);
}

static int push_result(lua_State *L, lupe__task *t) {
  const result *r = t->arg;
  if (r->status != LUPE_OK) {
    lua_pushstring(L, failure_of(r));
    return 1;
  }
  const lupe_proof_reply *reply = r->reply;
  lua_pushnil(L);
  lua_createtable(L, 0, 7);
  set_number(L, "outcome", reply->outcome);
  set_number(L, "error", reply->error);
  set_number(L, "elapsed_ms", (double)reply->elapsed_ns / 1e6);
  set_number(L, "pause_ms", (double)reply->pause_ns / 1e6);
  set_number(L, "anonymous_bytes", (double)reply->anonymous_bytes);
  set_number(L, "read_bytes", (double)reply->read_bytes);
  return 2;
}

static void on_done(void *arg, lupe_status status, const lupe_proof_reply *reply, const char *why) {
  result r = {status, reply, why};
  lupe__task_finish(arg, push_result, &r);
}

static int prove(lua_State *L) {
  lua_Integer pid = luaL_checkinteger(L, 1);
  lupe_proof_limits limits = limits_argument(L, 2);
  lupe__task *t = lupe__task_create(L, 3);
  lupe_status status = lupe_collector_prove(t->host->services.collector, (pid_t)pid, &limits, on_done, t);
  if (status != LUPE_OK) {
    result r = {.status = status, .why = ""};
    lupe__task_abandon(L, t);
    lua_pushvalue(L, 3);
    lua_pushstring(L, failure_of(&r));
    lua_call(L, 1, 0);
  }
  return 0;
}

const luaL_Reg lupe__host_proofs[] = {
    {"prove", prove},
    {"set_proof_at_exit", set_proof_at_exit},
    {NULL, NULL},
};

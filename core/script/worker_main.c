#include "core/script/worker_main.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/script/confine.h"
#include "core/script/guard.h"
#include "core/script/vm.h"
#include "core/script/worker.h"
#include "core/store/snapshot.h"
#include "core/wire/frame.h"

enum {
  STATE_BYTES = 512 << 20, /* what the state may hold while no rule runs */
  OPEN_FILES = 64,
  SNAPSHOTS_MAX = 8,       /* mapped at a time: the newest, and those that Lua still looks at */
  LARGE_SNAPSHOT = 1 << 20 /* bytes */
};

#define SNAPSHOT_TYPE "lupe.worker.snapshot"
#define SNAPSHOT_KEY "lupe.worker.snapshot.newest"
#define BASE_KEY "lupe.worker.snapshot.base"

/* One request on its way through Lua, and what lives from one to the next. */
static struct {
  lupe_vm *vm;
  lupe__frame frame;
  int mapped;             /* snapshots */
  int handler_ref;        /* registry: lua/lupe/worker.lua's function */
  const char *unconfined; /* why the process is not confined; NULL: it is */
  lupe_status sent;
} worker;

/* What worker.lua is given ---------------------------------------------------------------------- */

/* limits[name] as a number from 1 to `most`. */
static lua_Number limit_of(lua_State *L, int limits, const char *name, lua_Number most) {
  lua_getfield(L, limits, name);
  lua_Number value = lua_tonumber(L, -1);
  lua_pop(L, 1);
  if (!(value >= 1 && value <= most)) luaL_error(L, "limits.%s: expected a number from 1 to %f", name, most);
  return value;
}

/* guarded(file, limits, f, ...) calls f(...) under guard.h's limits: { deadline_ms, memory_bytes,
 * instructions }.
 * -> true, its first result, microseconds, those of CPU time; or false, "FILE:LINE: message", likewise twice,
 * kind: "error", "instructions", "deadline", "memory", and microseconds until that limit was passed */
static int host_guarded(lua_State *L) {
  const char *file = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  luaL_argcheck(L, L == lupe_vm_state(worker.vm), 3, "not in a coroutine");
  const lupe_guard_limits limits = {
      .deadline_ms = (uint64_t)limit_of(L, 2, "deadline_ms", 1e9),
      .memory_bytes = (size_t)limit_of(L, 2, "memory_bytes", STATE_BYTES),
      .instructions = (uint64_t)limit_of(L, 2, "instructions", 1e15),
  };
  char error[LUPE_VM_ERROR_BYTES];
  lupe_guard_arm(worker.vm, file, &limits);
  lupe_status status = lupe_vm_call(worker.vm, lua_gettop(L) - 3, 1, error, sizeof error);
  uint64_t cpu_us;
  lua_Number elapsed_us = (lua_Number)lupe_guard_disarm(worker.vm, STATE_BYTES, &cpu_us);
  const char *tripped = lupe_guard_tripped(L);
  lua_pushboolean(L, status == LUPE_OK);
  lua_insert(L, 3); /* before the result */
  if (status == LUPE_OK) {
    lua_pushnumber(L, elapsed_us);
    lua_pushnumber(L, (lua_Number)cpu_us);
    return 4;
  }
  const char *kind = tripped ? tripped : status == LUPE_ENOMEM ? "memory" : "error";
  if (tripped) {
    lua_pushstring(L, lupe_guard_message()); /* where it tripped first, whatever the rule made of that */
  } else if (status == LUPE_ENOMEM) {
    lua_pushfstring(L, "%s: %s", file, error);
  } else {
    lua_pushstring(L, error);
  }
  lua_pushnumber(L, elapsed_us);
  lua_pushnumber(L, (lua_Number)cpu_us);
  lua_pushstring(L, kind);
  lua_pushnumber(L, (lua_Number)lupe_guard_limit_us());
  return 6;
}

/* tripped() -> "FILE:LINE: ..." once the guard has tripped, else nil */
static int host_tripped(lua_State *L) {
  lua_pushstring(L, lupe_guard_tripped(L) ? lupe_guard_message() : NULL);
  return 1;
}

static int release_snapshot(lua_State *L) {
  lupe_snapshot **box = luaL_checkudata(L, 1, SNAPSHOT_TYPE);
  if (*box) worker.mapped--;
  lupe_snapshot_release(*box);
  *box = NULL;
  return 0;
}

/* Where in the registry the first argument's snapshot is: "snapshot" (where nothing is said) or "base". */
static const char *key_of(lua_State *L) {
  static const char *const names[] = {"snapshot", "base", NULL};
  return luaL_checkoption(L, 1, names[0], names) == 0 ? SNAPSHOT_KEY : BASE_KEY;
}

/* map(name?) -> true: the descriptor that came with this request is the snapshot, or the base, from now on;
 * or nil, "ENAME: text": EMFILE where too many older ones are still in use */
static int host_map(lua_State *L) {
  const char *key = key_of(L);
  if (worker.frame.fd < 0) {
    lua_pushnil(L);
    lua_pushliteral(L, "EINVAL: no descriptor came with the request");
    return 2;
  }
  if (worker.mapped >= SNAPSHOTS_MAX) lua_gc(L, LUA_GCCOLLECT, 0);
  if (worker.mapped >= SNAPSHOTS_MAX) {
    lua_pushnil(L);
    lua_pushfstring(L, "EMFILE: %d older snapshots are still in use", worker.mapped - 1);
    return 2;
  }
  lupe_snapshot **box = lua_newuserdata(L, sizeof *box), *fresh;
  *box = NULL;
  luaL_getmetatable(L, SNAPSHOT_TYPE);
  lua_setmetatable(L, -2);
  lupe_status status = lupe_snapshot_map(worker.frame.fd, false, &fresh);
  if (status != LUPE_OK) {
    lua_pushnil(L);
    lua_pushfstring(L, "%s: the snapshot: %s", status == LUPE_EVERSION ? "EVERSION" : "ECORRUPT",
                    lupe_status_text(status));
    return 2;
  }
  *box = fresh;
  lua_setfield(L, LUA_REGISTRYINDEX, key);
  /* The one before is a few bytes to Lua's collector, whatever it weighs. */
  if (++worker.mapped > 2 && lupe_snapshot_bytes(fresh) > LARGE_SNAPSHOT) lua_gc(L, LUA_GCCOLLECT, 0);
  lua_pushboolean(L, 1);
  return 1;
}

/* snapshot(name?) -> address (light userdata), bytes, what keeps it mapped; nil: none */
static int host_snapshot(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, key_of(L));
  lupe_snapshot **newest = lua_touserdata(L, -1);
  if (!newest) return 0;
  lua_pushlightuserdata(L, (void *)lupe_snapshot_block(*newest));
  lua_pushnumber(L, (lua_Number)lupe_snapshot_bytes(*newest));
  lua_pushvalue(L, -3);
  return 3;
}

/* write(text) -> true: all of it went to the descriptor that came with this request; or nil, "ENAME: text" */
static int host_write(lua_State *L) {
  size_t bytes;
  const char *text = luaL_checklstring(L, 1, &bytes);
  while (bytes > 0) {
    ssize_t n = write(worker.frame.fd, text, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      int error = errno;
      const char *name = strerrorname_np(error);
      lua_pushnil(L);
      lua_pushfstring(L, "%s: %s", name ? name : "EIO", strerror(error));
      return 2;
    }
    text += n;
    bytes -= (size_t)n;
  }
  lua_pushboolean(L, 1);
  return 1;
}

/* confined() -> true; or false, why not. Known when the first request comes. */
static int host_confined(lua_State *L) {
  lua_pushboolean(L, worker.unconfined == NULL);
  lua_pushstring(L, worker.unconfined);
  return 2;
}

/* memory() -> bytes that the state holds */
static int host_memory(lua_State *L) {
  lua_pushnumber(L, (lua_Number)lupe_vm_memory_bytes(worker.vm));
  return 1;
}

static int load_worker(lua_State *L) {
  static const luaL_Reg functions[] = {{"guarded", host_guarded},   {"tripped", host_tripped},
                                       {"map", host_map},           {"snapshot", host_snapshot},
                                       {"write", host_write},       {"memory", host_memory},
                                       {"confined", host_confined}, {NULL, NULL}};
  luaL_newmetatable(L, SNAPSHOT_TYPE);
  lua_pushcfunction(L, release_snapshot);
  lua_setfield(L, -2, "__gc");
  lua_pushboolean(L, 0); /* a script that gets at one gets no further */
  lua_setfield(L, -2, "__metatable");
  lua_pop(L, 1);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "lupe.worker");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "new");
  lua_newtable(L);
  luaL_register(L, NULL, functions);
  lua_call(L, 1, 1);
  worker.handler_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

static int handle_request(lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, worker.handler_ref);
  lua_pushlstring(L, worker.frame.body, worker.frame.bytes);
  lua_call(L, 1, 1);
  size_t bytes, sent = 0;
  const char *reply = luaL_checklstring(L, -1, &bytes);
  if (bytes == 0 || bytes > LUPE_FRAME_MAX_BYTES) return luaL_error(L, "a reply of %d bytes", (int)bytes);
  worker.sent = lupe__frame_write(LUPE_WORKER_FD, reply, (uint32_t)bytes, -1, &sent, true);
  return 0;
}

/* The process ------------------------------------------------------------------------------------ */

static void set_limit(int resource, rlim_t value) {
  const struct rlimit limit = {value, value};
  setrlimit(resource, &limit); /* lowering is always allowed */
}

/* A rule is not expected to get at any of this; it is the second wall. */
static int limit_process(void) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  if (close_range(LUPE_WORKER_FD + 1, ~0U, 0) != 0) {
    struct rlimit open;
    if (getrlimit(RLIMIT_NOFILE, &open) != 0) return -1;
    for (int fd = LUPE_WORKER_FD + 1; fd < (int)open.rlim_cur; fd++) close(fd);
  }
  set_limit(RLIMIT_CORE, 0);
  set_limit(RLIMIT_NOFILE, OPEN_FILES);
  set_limit(RLIMIT_NPROC, 0);
  fcntl(LUPE_WORKER_FD, F_SETFD, FD_CLOEXEC);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  signal(SIGINT, SIG_IGN); /* Ctrl-C goes to the whole terminal; the runtime says when to end */
  signal(SIGQUIT, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  return 0;
}

static int serve(void) {
  char error[LUPE_VM_ERROR_BYTES];
  size_t sent = 0;
  if (lupe__frame_write(LUPE_WORKER_FD, NULL, 0, -1, &sent, true) != LUPE_OK) return 0; /* "ready" */
  for (;;) {
    lupe__frame_clear(&worker.frame);
    lupe_status status = lupe__frame_read(&worker.frame, LUPE_WORKER_FD, true);
    if (status == LUPE_ENOENT) return 0;
    if (status != LUPE_OK || worker.frame.bytes == 0) {
      fprintf(stderr, "lupe worker: a request that can't be read: %s\n", lupe_status_text(status));
      return 1;
    }
    status = lupe_vm_run(worker.vm, handle_request, NULL, error, sizeof error);
    if (status != LUPE_OK) {
      fprintf(stderr, "lupe worker: %s\n", error);
      return 1;
    }
    if (worker.sent != LUPE_OK) return 0;
  }
}

int lupe_worker_main(const char *lua_dir) {
  char error[LUPE_VM_ERROR_BYTES];
  int code = 1;
  worker.frame.fd = -1;
  if (limit_process() != 0) {
    fprintf(stderr, "lupe worker: cannot limit itself: %s\n", strerror(errno));
    return 1;
  }
  lupe_status status = lupe_vm_create(&worker.vm, lua_dir, STATE_BYTES);
  if (status != LUPE_OK) {
    fprintf(stderr, "lupe worker: no Lua state for %s: %s\n", lua_dir, lupe_status_text(status));
    return 1;
  }
  if (lupe_vm_run(worker.vm, load_worker, NULL, error, sizeof error) != LUPE_OK) {
    fprintf(stderr, "lupe worker: %s\n", error);
  } else {
    worker.unconfined = lupe_confine();
    code = serve();
  }
  lupe__frame_clear(&worker.frame);
  lupe_vm_free(worker.vm);
  return code;
}

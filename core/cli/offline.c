#include "core/cli/offline.h"

#include <errno.h>
#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "core/cli/output.h"
#include "core/pool.h"
#include "core/runtime.h"
#include "core/script/host.h"
#include "core/script/worker.h"

enum { EXIT_LUPE_FAILED = 125 };

typedef struct offline {
  const lupe_paths *paths;
  const lupe_command *command;
  uv_loop_t loop;
  lupe_pool *pool;
  lupe_worker *worker;
  lupe_host *host;
  bool done;
  int exit_code;
} offline;

static int write_text(const lupe_command *command, const char *text, size_t bytes) {
  const char *path = command->output;
  int error = path ? lupe_output_file(path, text, bytes) : lupe_output_all(STDOUT_FILENO, text, bytes);
  if (error == 0 || (error == EPIPE && !path)) return 0; /* whoever closed stdout has read enough */
  fprintf(stderr, "lupe: %s: %s\n", path ? path : "stdout", strerror(error));
  return error;
}

/* done(text | nil, exit code). Ends the loop whatever it is given. */
static int take_result(lua_State *L) {
  offline *o = lua_touserdata(L, lua_upvalueindex(1));
  if (o->done) return luaL_error(L, "a command ends once");
  o->done = true;
  lupe_host_close(o->host);
  lupe_worker_close(o->worker, NULL, NULL);
  o->worker = NULL;
  size_t bytes = 0;
  const char *text = luaL_optlstring(L, 1, NULL, &bytes);
  int exit_code = (int)luaL_checkinteger(L, 2);
  if (!text || write_text(o->command, text, bytes) == 0) o->exit_code = exit_code;
  return 0;
}

static int call_lua(lua_State *L) {
  offline *o = lua_touserdata(L, 1);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "lupe.offline");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "run");
  lua_getglobal(L, "lupe_host");
  lua_getfield(L, LUA_REGISTRYINDEX, LUPE_CONFIG_KEY);
  lua_setfield(L, -2, "config");
  lua_pushstring(L, o->paths->rules);
  lua_setfield(L, -2, "rules_dir");
  lua_getfield(L, LUA_REGISTRYINDEX, LUPE_OFFLINE_KEY);
  lua_pushinteger(L, (lua_Integer)lupe_output_columns(STDOUT_FILENO));
  lua_setfield(L, -2, "columns");
  lua_pushboolean(L, !o->command->output && lupe_output_colors(STDOUT_FILENO));
  lua_setfield(L, -2, "color");
  lua_createtable(L, 0, 2);
  lua_pushstring(L, o->paths->agent);
  lua_setfield(L, -2, "agent");
  lua_pushstring(L, o->paths->jemalloc[0] ? o->paths->jemalloc : NULL);
  lua_setfield(L, -2, "jemalloc");
  lua_setfield(L, -2, "paths");
  lua_pushlightuserdata(L, o);
  lua_pushcclosure(L, take_result, 1);
  lua_call(L, 3, 0);
  return 0;
}

int lupe_offline(lupe_vm *vm, const lupe_paths *paths, const lupe_command *command) {
  char error[LUPE_VM_ERROR_BYTES];
  offline o = {.paths = paths, .command = command, .exit_code = EXIT_LUPE_FAILED};
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  if (uv_loop_init(&o.loop) != 0) {
    fprintf(stderr, "lupe: no event loop: %s\n", strerror(errno));
    return EXIT_LUPE_FAILED;
  }
  const char *worker[] = {paths->executable, "worker", NULL};
  lupe_status status = lupe_pool_create(&o.pool, &o.loop, 1, NULL); /* one command, one task at a time */
  if (status != LUPE_OK) {
    fprintf(stderr, "lupe: no threads: %s\n", lupe_status_text(status));
    goto no_pool;
  }
  status = lupe_worker_create(&o.worker, &o.loop, worker);
  if (status != LUPE_OK) {
    fprintf(stderr, "lupe: no worker: %s\n", lupe_status_text(status));
    goto no_worker;
  }
  lupe_host_services services = {.vm = vm, .loop = &o.loop, .pool = o.pool, .worker = o.worker};
  status = lupe_host_create(&o.host, &services, error, sizeof error);
  if (status == LUPE_OK) status = lupe_vm_run(vm, call_lua, &o, error, sizeof error);
  if (status != LUPE_OK) {
    fprintf(stderr, "lupe: %s\n", error);
    lupe_host_close(o.host);
    lupe_worker_close(o.worker, NULL, NULL);
  }
  uv_run(&o.loop, UV_RUN_DEFAULT);
  lupe_host_free(o.host);
no_worker:
  lupe_pool_close(o.pool, NULL, NULL);
  uv_run(&o.loop, UV_RUN_DEFAULT);
no_pool:
  uv_loop_close(&o.loop);
  return o.exit_code;
}

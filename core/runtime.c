#include "core/runtime.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/agents_socket.h"
#include "core/clock.h"
#include "core/http_bridge.h"
#include "core/net/http_server.h"
#include "core/pool.h"
#include "core/script/host.h"
#include "core/script/worker.h"
#include "core/store/aggregator.h"
#include "core/store/collector.h"

enum {
  TICK_MS = 1000,
  FURTHER_PORTS = 100,
  /* What is done at once: a job of the collector, the line finder, and an export, a recording or a file that
   * is synced. More would only take the program's cores from it. */
  POOL_THREADS = 3,
};
/* Of the overhead budget (1 % of a core by default), the half that taking heap profiles may use. */
#define PROFILE_BUDGET 0.005

struct lupe_runtime {
  uv_loop_t *loop;
  lupe_vm *vm;
  lupe_agents_socket socket;
  bool serves;
  lupe_pool *pool;
  uint16_t port;
  lupe_aggregator *aggregator;
  lupe_collector *collector;
  lupe_worker *worker, *routes_worker;
  lupe_http_server *http;
  lupe_host *host;
  uv_timer_t tick;
  bool refused; /* the settings name what is not there */
  bool closing;
  unsigned open_parts; /* while it closes */
  int app;             /* registry reference of what lua/lupe/server.lua made */
  const lupe_paths *paths;
  const lupe_ending *ending; /* during lupe_runtime_report */
  lupe_snapshot *last;
  lupe_report_cb reported;
  void *reported_arg;
  lupe_runtime_close_cb closed;
  void *closed_arg;
};

/* -- into Lua --------------------------------------------------------------------------------- */

void lupe_runtime_push(const lupe_runtime *r, lua_State *L) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, r->app);
}

static void push_app_function(lua_State *L, const lupe_runtime *r, const char *name) {
  lupe_runtime_push(r, L);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
}

static void set_string(lua_State *L, const char *name, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

static void run(lupe_runtime *r, lua_CFunction body, void *arg) {
  char error[LUPE_VM_ERROR_BYTES];
  if (lupe_vm_run(r->vm, body, arg, error, sizeof error) != LUPE_OK) fprintf(stderr, "lupe: %s\n", error);
}

static int make_app(lua_State *L) {
  lupe_runtime *r = lua_touserdata(L, 1);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "lupe.server");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "new");
  lua_getglobal(L, "lupe_host");
  lua_getfield(L, LUA_REGISTRYINDEX, LUPE_CONFIG_KEY);
  lua_setfield(L, -2, "config");
  lua_pushstring(L, r->paths->rules);
  lua_setfield(L, -2, "rules_dir");
  lua_pushinteger(L, r->port);
  lua_setfield(L, -2, "port");
  lua_pushboolean(L, r->serves);
  lua_setfield(L, -2, "serves");
  lua_call(L, 1, 2);
  r->refused = lua_isnil(L, -2);
  if (r->refused) return lua_error(L); /* what is wrong with the settings */
  lua_pop(L, 1);
  r->app = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

static int call_tick(lua_State *L) {
  push_app_function(L, lua_touserdata(L, 1), "tick");
  lua_call(L, 0, 0);
  return 0;
}

static void on_tick(uv_timer_t *timer) {
  run(timer->data, call_tick, timer->data);
}

static int call_on_snapshot(lua_State *L) {
  push_app_function(L, lua_touserdata(L, 1), "on_snapshot");
  lua_call(L, 0, 0);
  return 0;
}

static void on_snapshot(void *arg, lupe_snapshot *latest) {
  lupe_runtime *r = arg;
  (void)latest; /* Lua asks for it when it wants it */
  if (!r->closing) run(r, call_on_snapshot, r);
}

/* -- HTTP ------------------------------------------------------------------------------------- */

static void on_request(void *arg, lupe_http_request *request) {
  lupe_runtime *r = arg;
  lupe_http_bridge_handle(r->vm, r->app, request);
}

static void http_figures(void *arg, lupe_http_figures *out) {
  lupe_runtime *r = arg;
  lupe_http_counters c;
  if (!r->http) return;
  lupe_http_server_counters(r->http, &c);
  *out = (lupe_http_figures){c.requests, c.responses, c.aborted, c.pending};
}

/* Of what has just failed. */
static const char *text_of(lupe_status status) {
  return status == LUPE_EIO ? strerror(errno) : lupe_status_text(status);
}

static lupe_status listen_on(lupe_runtime *r, const lupe_runtime_options *o, char *error,
                             size_t error_bytes) {
  lupe_status status = LUPE_EINUSE;
  int last = o->port + (o->port_given || o->port == 0 ? 0 : FURTHER_PORTS);
  for (int port = o->port; status == LUPE_EINUSE && port <= last && port <= UINT16_MAX; port++) {
    status = lupe_http_server_create(&r->http, o->loop, o->host, (uint16_t)port, on_request, r);
  }
  if (status == LUPE_OK) {
    r->port = lupe_http_server_port(r->http);
  } else {
    snprintf(error, error_bytes, "cannot listen on %s port %u: %s%s", o->host, o->port, text_of(status),
             status == LUPE_EINUSE
                 ? "; choose another by listen=ADDRESS:PORT (as --listen, in LUPE_LISTEN, or as a "
                   "setting of lupe_start), port 0 for any free one"
                 : "");
  }
  return status;
}

/* -- the report ------------------------------------------------------------------------------- */

static int give_report(lua_State *L) {
  lupe_runtime *r = lua_touserdata(L, lua_upvalueindex(1));
  size_t bytes;
  const char *text = luaL_checklstring(L, 1, &bytes);
  lupe_report_cb reported = r->reported;
  r->reported = NULL;
  if (reported) reported(r->reported_arg, text, bytes);
  return 0;
}

static int call_exit_report(lua_State *L) {
  lupe_runtime *r = lua_touserdata(L, 1);
  const lupe_ending *e = r->ending;
  push_app_function(L, r, "exit_report");
  lua_createtable(L, 0, 8);
  if (e->unknown) {
    set_string(L, "unknown_end", e->unknown);
  } else if (e->signal) {
    lua_pushinteger(L, e->signal);
    lua_setfield(L, -2, "signal");
    set_string(L, "signal_name", sigabbrev_np(e->signal));
  } else {
    lua_pushinteger(L, e->exit_code);
    lua_setfield(L, -2, "exit_code");
  }
  lua_pushinteger(L, e->pid);
  lua_setfield(L, -2, "pid");
  lua_newtable(L);
  for (int i = 0; e->argv && e->argv[i]; i++) {
    lua_pushstring(L, e->argv[i]);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "argv");
  if (e->reason) set_string(L, "reason", e->reason);
  lua_pushboolean(L, e->timed_out);
  lua_setfield(L, -2, "timed_out");
  lua_pushboolean(L, lupe_runtime_saw(r, e->pid));
  lua_setfield(L, -2, "connected");
  lua_pushboolean(L, e->color);
  lua_setfield(L, -2, "color");
  lua_pushinteger(L, (lua_Integer)e->columns);
  lua_setfield(L, -2, "columns");
  if (r->last) {
    lua_createtable(L, 0, 3);
    int top = lua_gettop(L);
    lupe_host_push_snapshot(L, r->last);
    r->last = NULL;
    lua_setfield(L, top, "keepalive");
    lua_setfield(L, top, "size");
    lua_setfield(L, top, "address");
    lua_setfield(L, -2, "snapshot");
  }
  lua_pushlightuserdata(L, r);
  lua_pushcclosure(L, give_report, 1);
  lua_call(L, 2, 0);
  return 0;
}

static void on_last_snapshot(void *arg, lupe_status status, lupe_snapshot *snapshot) {
  lupe_runtime *r = arg;
  if (r->closing) {
    lupe_snapshot_release(snapshot);
    if (r->reported) r->reported(r->reported_arg, NULL, 0);
    return;
  }
  if (status != LUPE_OK) fprintf(stderr, "lupe: no last snapshot: %s\n", lupe_status_text(status));
  r->last = snapshot;
  char error[LUPE_VM_ERROR_BYTES];
  if (lupe_vm_run(r->vm, call_exit_report, r, error, sizeof error) != LUPE_OK && r->reported) {
    fprintf(stderr, "lupe: the report could not be made: %s\n", error);
    r->reported(r->reported_arg, NULL, 0);
  }
  lupe_snapshot_release(r->last);
  r->last = NULL;
}

void lupe_runtime_report(lupe_runtime *r, const lupe_ending *ending, uint32_t lines_ms, lupe_report_cb done,
                         void *arg) {
  r->ending = ending;
  r->reported = done;
  r->reported_arg = arg;
  lupe_collector_finish(r->collector, lines_ms, on_last_snapshot, r);
}

/* -- life ------------------------------------------------------------------------------------- */

static bool lets_others_in(const lupe_runtime_options *o) {
  return o->peers.anyone || o->peers.count > 0;
}

static lupe_status find_socket(lupe_runtime *r, const lupe_runtime_options *o, char *error,
                               size_t error_bytes) {
  if (!o->socket) return lupe_agents_socket_make(&r->socket, error, error_bytes);
  return lupe_agents_socket_claim(&r->socket, o->socket, lets_others_in(o), error, error_bytes);
}

/* One of the parts that close by themselves has done so. */
static void on_part_closed(void *arg) {
  lupe_runtime *r = arg;
  if (--r->open_parts > 0) return;
  lupe_agents_socket_release(&r->socket);
  lupe_aggregator_free(r->aggregator);
  lupe_runtime_close_cb closed = r->closed;
  void *closed_arg = r->closed_arg;
  free(r);
  if (closed) closed(closed_arg);
}

static void on_collector_closed(void *arg) {
  lupe_runtime *r = arg;
  lupe_pool_close(r->pool, on_part_closed, r);
}

/* From the loop, so no Lua is running that could still ask the host for something. */
static void on_tick_closed(uv_handle_t *handle) {
  lupe_runtime *r = handle->data;
  lupe_host_free(r->host);
  lupe_pool_stop(r->pool);
  lupe_collector_close(r->collector, on_collector_closed, r);
}

void lupe_runtime_close(lupe_runtime *r, lupe_runtime_close_cb done, void *arg) {
  r->closed = done;
  r->closed_arg = arg;
  r->closing = true; /* a job that ends now is not told to Lua any more */
  lupe_host_close(r->host);
  lupe_http_server_close(r->http);
  r->http = NULL;
  r->open_parts = 3; /* two workers; and what follows the tick: the collector, then the pool */
  lupe_worker_close(r->worker, on_part_closed, r);
  lupe_worker_close(r->routes_worker, on_part_closed, r);
  uv_close((uv_handle_t *)&r->tick, on_tick_closed);
}

lupe_status lupe_runtime_create(lupe_runtime **out, const lupe_runtime_options *o, char *error,
                                size_t error_bytes) {
  lupe_status status = LUPE_ENOMEM;
  snprintf(error, error_bytes, "%s", lupe_status_text(status));
  lupe_runtime *r = calloc(1, sizeof *r);
  if (!r) return status;
  r->loop = o->loop;
  r->vm = o->vm;
  r->paths = o->paths;
  double started_ms = lupe_unix_ms();

  r->serves = o->serves;
  status = find_socket(r, o, error, error_bytes);
  if (status != LUPE_OK) goto no_folder;
  lupe_aggregator_options aggregator = {
      .heap_interval_ms = o->heap_interval_ms,
      .started_ms = started_ms,
      .cpu_hz = o->cpu_hz,
      .wall_hz = o->wall_hz,
      .endless = o->serves,
  };
  status = lupe_aggregator_create(&r->aggregator, &aggregator);
  if (status != LUPE_OK) goto no_aggregator;
  status = lupe_pool_create(&r->pool, o->loop, POOL_THREADS, o->pool_hooks);
  if (status != LUPE_OK) goto no_pool;
  const char *worker[] = {o->paths->executable, "worker", NULL};
  status = lupe_worker_create(&r->worker, o->loop, worker);
  if (status != LUPE_OK) goto no_worker;
  status = lupe_worker_create(&r->routes_worker, o->loop, worker);
  if (status != LUPE_OK) goto no_routes_worker;
  status = listen_on(r, o, error, error_bytes);
  if (status != LUPE_OK) goto no_http;
  lupe_collector_options collector = {
      .socket_path = r->socket.path,
      .peers = o->peers,
      .comes_back = o->serves,
      .memory_interval_ms = o->memory_interval_ms,
      .profile_budget = PROFILE_BUDGET,
      .cpu_hz = o->cpu_hz,
      .wall_hz = o->wall_hz,
      .on_snapshot = on_snapshot,
      .arg = r,
  };
  status = lupe_collector_create(&r->collector, o->loop, r->pool, r->aggregator, &collector);
  if (status != LUPE_OK) {
    snprintf(error, error_bytes, "%s: %s", r->socket.path, text_of(status));
    goto no_collector;
  }
  /* It was made 0600; whoever may reach its folder may connect, and is looked at then. */
  if (lets_others_in(o) && chmod(r->socket.path, 0666) != 0)
    fprintf(stderr, "lupe: %s: %s; other users' programs cannot connect\n", r->socket.path, strerror(errno));

  lupe_host_services services = {
      .vm = o->vm,
      .loop = o->loop,
      .pool = r->pool,
      .embedded = o->embedded,
      .aggregator = r->aggregator,
      .collector = r->collector,
      .worker = r->worker,
      .routes_worker = r->routes_worker,
      .http_figures = http_figures,
      .http_arg = r,
      .started_ms = started_ms,
  };
  uv_timer_init(o->loop, &r->tick);
  r->tick.data = r;
  status = lupe_host_create(&r->host, &services, error, error_bytes);
  if (status == LUPE_OK) status = lupe_vm_run(o->vm, make_app, r, error, error_bytes);
  if (r->refused) status = LUPE_EINVAL;
  if (status != LUPE_OK) {
    lupe_runtime_close(r, NULL, NULL); /* frees r as the loop runs on */
    return status;
  }
  uv_timer_start(&r->tick, on_tick, TICK_MS, TICK_MS);
  *out = r;
  return LUPE_OK;

no_collector:
  lupe_http_server_close(r->http);
no_http:
  lupe_worker_close(r->routes_worker, NULL, NULL);
no_routes_worker:
  lupe_worker_close(r->worker, NULL, NULL);
no_worker:
  lupe_pool_close(r->pool, NULL, NULL);
no_pool:
  lupe_aggregator_free(r->aggregator);
no_aggregator:
  lupe_agents_socket_release(&r->socket);
no_folder:
  free(r);
  return status;
}

const char *lupe_runtime_socket(const lupe_runtime *r) {
  return r->socket.path;
}
uint16_t lupe_runtime_port(const lupe_runtime *r) {
  return r->port;
}

bool lupe_runtime_saw(const lupe_runtime *r, pid_t pid) {
  size_t count = lupe_aggregator_targets(r->aggregator, NULL, 0);
  lupe_target_status *rows = calloc(count + 1, sizeof *rows);
  if (!rows) return false;
  bool saw = false;
  count = lupe_aggregator_targets(r->aggregator, rows, count);
  for (size_t i = 0; i < count; i++) saw |= rows[i].pid == pid;
  free(rows);
  return saw;
}

#include "core/script/host.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/script/host_internal.h"
#include "core/store/cgroup.h"
#include "core/store/process.h"
#include "core/store/threads.h"

enum {
  CHECKPOINT_MS = 30000,
  THREADS_MAX = 512, /* of one process */
};

#define HELD_KEY "lupe.snapshots held"

static const char *const heap_states[] = {
    [LUPE_HEAP_ON] = "on",
    [LUPE_HEAP_NO_JEMALLOC] = "no_jemalloc",
    [LUPE_HEAP_NO_PROFILING] = "no_profiling",
    [LUPE_HEAP_PROF_DISABLED] = "prof_disabled",
    [LUPE_HEAP_NO_HOOK] = "no_hook",
    [LUPE_HEAP_SWITCHED_OFF] = "switched_off",
};

static const char *const sampling_states[] = {
    [LUPE_SAMPLING_OFF] = "off",
    [LUPE_SAMPLING_ON] = "on",
    [LUPE_SAMPLING_FOREIGN] = "foreign",
    [LUPE_SAMPLING_REFUSED] = "refused",
    [LUPE_SAMPLING_UNREADABLE] = "unreadable",
    [LUPE_SAMPLING_UNSUPPORTED] = "unsupported",
};

lupe_host *lupe__host_of(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(1));
}

static double clock_ms(clockid_t clock) {
  return (double)lupe_clock_ns(clock) / 1e6;
}

/* nil, 0 or absent: all live targets. */
static int32_t pid_argument(lua_State *L, int index) {
  return (int32_t)luaL_optinteger(L, index, LUPE_TARGET_ALL_LIVE);
}

static void set_number(lua_State *L, const char *name, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, name);
}

static void set_boolean(lua_State *L, const char *name, int value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, name);
}

static void set_string(lua_State *L, const char *name, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

static int nil_because(lua_State *L, const char *reason) {
  lua_pushnil(L);
  lua_pushstring(L, reason);
  return 2;
}

static int now_ms(lua_State *L) {
  lua_pushnumber(L, lupe_unix_ms());
  return 1;
}

static int monotonic_ms(lua_State *L) {
  lua_pushnumber(L, clock_ms(CLOCK_MONOTONIC));
  return 1;
}

static int log_line(lua_State *L) {
  const char *level = luaL_checkstring(L, 1), *message = luaL_checkstring(L, 2);
  if (strcmp(level, "info") == 0) {
    fprintf(stderr, "lupe: %s\n", message);
  } else {
    fprintf(stderr, "lupe: %s: %s\n", level, message);
  }
  return 0;
}

static int targets(lua_State *L) {
  lupe_host *h = lupe__host_of(L);
  size_t capacity = lupe_aggregator_targets(h->services.aggregator, NULL, 0);
  lupe_target_status *rows = lua_newuserdata(L, (capacity + 1) * sizeof *rows);
  size_t count = lupe_aggregator_targets(h->services.aggregator, rows, capacity);
  lua_createtable(L, (int)count, 0);
  for (size_t i = 0; i < count && i < capacity; i++) {
    const lupe_target_status *t = &rows[i];
    lua_createtable(L, 0, 21);
    set_number(L, "pid", t->pid);
    set_number(L, "ppid", t->ppid);
    set_number(L, "root_pid", t->root_pid);
    set_number(L, "root_ticks", (double)t->root_ticks);
    set_boolean(L, "left", t->left != 0);
    set_string(L, "name", t->name);
    set_boolean(L, "live", t->live != 0);
    set_string(L, "heap_state",
               t->heap_state <= LUPE_HEAP_SWITCHED_OFF ? heap_states[t->heap_state] : "unknown");
    set_string(L, "allocator", t->allocator);
    set_number(L, "sample_period_bytes", (double)t->sample_period_bytes);
    set_number(L, "first_ms", t->first_ms);
    set_number(L, "last_ms", t->last_ms);
    set_number(L, "pending_drops", (double)t->pending_drops);
    set_number(L, "bad_profiles", (double)t->bad_profiles);
    set_string(L, "cpu_state", sampling_states[t->sampling.cpu_state]);
    set_string(L, "wall_state", sampling_states[t->sampling.wall_state]);
    set_number(L, "threads_untimed", t->sampling.threads_untimed);
    set_number(L, "threads_unread", t->sampling.threads_unread);
    set_number(L, "sample_drops", (double)t->sample_drops);
    set_boolean(L, "connected", t->live && lupe_collector_connected(h->services.collector, t->pid));
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static void push_memory(lua_State *L, const lupe_memory_figures *m) {
  lua_createtable(L, 0, 16);
  set_number(L, "time_ms", m->time_ms);
  set_number(L, "rss_bytes", (double)m->rss_bytes);
  set_number(L, "virtual_bytes", (double)m->virtual_bytes);
  set_number(L, "shared_bytes", (double)m->shared_bytes);
  set_number(L, "allocated_bytes", (double)m->allocated_bytes);
  set_number(L, "active_bytes", (double)m->active_bytes);
  set_number(L, "metadata_bytes", (double)m->metadata_bytes);
  set_number(L, "resident_bytes", (double)m->resident_bytes);
  set_number(L, "mapped_bytes", (double)m->mapped_bytes);
  set_number(L, "retained_bytes", (double)m->retained_bytes);
  set_number(L, "cached_bytes", (double)m->cached_bytes);
  set_number(L, "sampling_bytes", (double)m->sampling_bytes);
  set_number(L, "user_ns", (double)m->user_ns);
  set_number(L, "system_ns", (double)m->system_ns);
  set_number(L, "minor_faults", (double)m->minor_faults);
  set_number(L, "major_faults", (double)m->major_faults);
  set_number(L, "threads", m->threads);
  set_boolean(L, "has_allocator", m->has_allocator != 0);
}

static int memory(lua_State *L) {
  lupe_host *h = lupe__host_of(L);
  lupe_memory_figures figures;
  int32_t pid = pid_argument(L, 1);
  lupe_collector_measure(h->services.collector, pid);
  if (lupe_aggregator_memory(h->services.aggregator, pid, &figures) != LUPE_OK) {
    return nil_because(L, "no live process");
  }
  push_memory(L, &figures);
  return 1;
}

static int series(lua_State *L) {
  lupe_host *h = lupe__host_of(L);
  int32_t pid = pid_argument(L, 1);
  double since_ms = luaL_optnumber(L, 2, 0);
  const lupe_memory_figures *rows = h->rows;
  size_t count = 0;
  if (lupe_aggregator_series(h->services.aggregator, pid, h->rows, LUPE__SERIES_ROWS, &count) != LUPE_OK) {
    return nil_because(L, "no such process");
  }
  size_t first = 0;
  while (first < count && rows[first].time_ms < since_ms) first++;
  lua_createtable(L, (int)(count - first), 0);
  for (size_t i = first; i < count; i++) {
    push_memory(L, &rows[i]);
    lua_rawseti(L, -2, (int)(i - first) + 1);
  }
  return 1;
}

static int allocator(lua_State *L) {
  lupe_host *h = lupe__host_of(L);
  lupe_allocator_figures f;
  if (lupe_collector_allocator(h->services.collector, pid_argument(L, 1), &f) != LUPE_OK) {
    return nil_because(L, "jemalloc's figures are not known");
  }
  lua_createtable(L, 0, 8);
  set_number(L, "arena_count", f.arena_count);
  set_number(L, "dirty_bytes", (double)f.dirty_bytes);
  set_number(L, "muzzy_bytes", (double)f.muzzy_bytes);
  set_number(L, "dirty_decay_ms", (double)f.dirty_decay_ms);
  set_number(L, "muzzy_decay_ms", (double)f.muzzy_decay_ms);
  set_boolean(L, "background_thread", f.background_thread != 0);
  set_boolean(L, "thread_cache", f.thread_cache != 0);
  set_number(L, "age_ms", lupe_unix_ms() - (double)f.time_ms);
  return 1;
}

/* A pid to look up in /proc: the one asked for, or the first live target. */
static pid_t any_live_pid(lupe_host *h, int32_t pid) {
  if (pid > 0) return pid;
  lupe_target_status first;
  return lupe_aggregator_targets(h->services.aggregator, &first, 1) > 0 && first.live ? first.pid : 0;
}

static int cgroup(lua_State *L) {
  pid_t pid = any_live_pid(lupe__host_of(L), pid_argument(L, 1));
  lupe_cgroup_memory c;
  if (pid == 0 || lupe_cgroup_memory_read(pid, &c) != LUPE_OK)
    return nil_because(L, "no memory cgroup is visible");
  lua_createtable(L, 0, 3);
  if (c.limit_bytes) set_number(L, "limit_bytes", (double)c.limit_bytes);
  set_number(L, "used_bytes", (double)c.used_bytes);
  set_number(L, "reclaimable_bytes", (double)c.reclaimable_bytes);
  return 1;
}

static void push_threads(lua_State *L, pid_t pid, int *count) {
  lupe_thread_figures rows[THREADS_MAX];
  size_t found = 0;
  if (lupe_threads_read(pid, rows, THREADS_MAX, &found) != LUPE_OK) return; /* it has just ended */
  for (size_t i = 0; i < found; i++) {
    lua_createtable(L, 0, 5);
    set_number(L, "pid", pid);
    set_number(L, "tid", rows[i].tid);
    set_string(L, "name", rows[i].name);
    set_number(L, "user_ns", (double)rows[i].user_ns);
    set_number(L, "system_ns", (double)rows[i].system_ns);
    lua_rawseti(L, -2, ++*count);
  }
}

static int threads(lua_State *L) {
  lupe_host *h = lupe__host_of(L);
  int32_t pid = pid_argument(L, 1);
  size_t capacity = lupe_aggregator_targets(h->services.aggregator, NULL, 0);
  lupe_target_status *rows = lua_newuserdata(L, (capacity + 1) * sizeof *rows);
  size_t targets_count = lupe_aggregator_targets(h->services.aggregator, rows, capacity);
  int count = 0;
  lua_newtable(L);
  for (size_t i = 0; i < targets_count && i < capacity; i++) {
    if (rows[i].live && (pid <= 0 || rows[i].pid == pid)) push_threads(L, rows[i].pid, &count);
  }
  return 1;
}

static int load(lua_State *L) {
  lupe_host_load l;
  if (lupe_host_load_read(&l) != LUPE_OK) return nil_because(L, "/proc/loadavg cannot be read");
  lua_createtable(L, 0, 4);
  set_number(L, "one_min", l.load_1m);
  set_number(L, "five_min", l.load_5m);
  set_number(L, "fifteen_min", l.load_15m);
  set_number(L, "cores", l.cores);
  return 1;
}

/* CPU time of all that is lupe's but the agents. In a process of somebody else's its threads are told apart:
 * this one and those of the pool. */
static double own_cpu_ns(const lupe_host_services *s) {
  uint64_t workers_ns = lupe_worker_cpu_ns(s->worker) + lupe_worker_cpu_ns(s->routes_worker);
  double threads_ns = s->embedded
                          ? (double)lupe_clock_ns(CLOCK_THREAD_CPUTIME_ID) + (double)lupe_pool_cpu_ns(s->pool)
                          : (double)lupe_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  return threads_ns + (double)workers_ns;
}

static void set_own_memory(lua_State *L, const lupe_host_services *s) {
  lupe_memory_figures own;
  if (s->embedded) {
    set_string(L, "rss_reason", "lupe runs inside of the program: its memory is a part of the program's");
  } else if (lupe_process_read(getpid(), &own) == LUPE_OK) {
    set_number(L, "rss_bytes", (double)own.rss_bytes);
  } else {
    set_string(L, "rss_reason", "/proc/self cannot be read");
  }
}

static int profiler(lua_State *L) {
  lupe_host *h = lupe__host_of(L);
  lupe_agent_cost cost;
  lupe_collector_cost(h->services.collector, &cost);
  double now = clock_ms(CLOCK_MONOTONIC);
  double runtime_ns = own_cpu_ns(&h->services);
  double agent_ns = (double)cost.hook_ns + (double)cost.handler_ns + (double)cost.thread_cpu_ns;
  if (now - h->checkpoints[1].time_ms > CHECKPOINT_MS) {
    h->checkpoints[0] = h->checkpoints[1];
    h->checkpoints[1].time_ms = now;
    h->checkpoints[1].runtime_cpu_ns = runtime_ns;
    h->checkpoints[1].agent_cpu_ns = agent_ns;
  }
  double window_ns = (now - h->checkpoints[0].time_ms) * 1e6;
  double runtime_percent = 100 * (runtime_ns - h->checkpoints[0].runtime_cpu_ns) / window_ns;
  double agent_percent = 100 * (agent_ns - h->checkpoints[0].agent_cpu_ns) / window_ns;
  lupe_http_figures http = {0};
  h->services.http_figures(h->services.http_arg, &http);

  lua_createtable(L, 0, 16);
  set_number(L, "cpu_percent", runtime_percent + agent_percent);
  set_number(L, "runtime_cpu_percent", runtime_percent);
  set_number(L, "agent_cpu_percent", agent_percent);
  set_number(L, "runtime_cpu_ns", runtime_ns);
  set_own_memory(L, &h->services);
  set_number(L, "heap_bytes", (double)cost.own_heap_bytes);
  set_number(L, "stack_overflows", (double)lupe_aggregator_stack_overflows(h->services.aggregator));
  set_number(L, "heap_interval_ms", lupe_collector_round_interval_ms(h->services.collector));
  set_number(L, "refused_connections", (double)lupe_collector_refused(h->services.collector));
  const lupe_worker *rules = h->services.worker, *routes = h->services.routes_worker;
  set_number(L, "worker_starts", (double)(lupe_worker_starts(rules) + lupe_worker_starts(routes)));
  set_number(L, "worker_kills", (double)(lupe_worker_kills(rules) + lupe_worker_kills(routes)));
  set_number(L, "http_requests", (double)http.requests);
  set_number(L, "http_aborted", (double)http.aborted);
  set_number(L, "http_pending", (double)http.pending);
  lua_createtable(L, 0, 12);
  set_number(L, "heap_samples", (double)cost.heap_samples);
  set_number(L, "cpu_samples", (double)cost.cpu_samples);
  set_number(L, "wall_looks", (double)cost.wall_looks);
  set_number(L, "wall_moved", (double)cost.wall_moved);
  set_number(L, "hook_ns", (double)cost.hook_ns);
  set_number(L, "handler_ns", (double)cost.handler_ns);
  set_number(L, "thread_cpu_ns", (double)cost.thread_cpu_ns);
  set_number(L, "dropped_records", (double)cost.dropped_records);
  set_number(L, "truncated_stacks", (double)cost.truncated_stacks);
  set_number(L, "profiles", (double)cost.profiles);
  set_number(L, "profile_ns", (double)cost.profile_ns);
  set_number(L, "corruptions", (double)cost.corruptions);
  lua_setfield(L, -2, "agent");
  return 1;
}

/* -- snapshots -------------------------------------------------------------------------------- */

/* How many references Lua holds. To its collector each is a few bytes, whatever the snapshot weighs. */
static uint32_t *held_snapshots(lua_State *L) {
  lua_getfield(L, LUA_REGISTRYINDEX, HELD_KEY);
  uint32_t *held = lua_touserdata(L, -1);
  lua_pop(L, 1);
  return held;
}

static int release_snapshot(lua_State *L) {
  lupe_snapshot **s = luaL_checkudata(L, 1, LUPE__SNAPSHOT_TYPE);
  if (*s) --*held_snapshots(L);
  lupe_snapshot_release(*s);
  *s = NULL;
  return 0;
}

void lupe_host_push_snapshot(lua_State *L, lupe_snapshot *s) {
  uint32_t *held = held_snapshots(L);
  size_t bytes = lupe_snapshot_bytes(s);
  /* So what nobody uses any more goes before a second large one, or a handful of small ones, is forgotten. */
  if (*held >= (bytes > LUPE__LARGE_SNAPSHOT ? 2 : 8)) lua_gc(L, LUA_GCCOLLECT, 0);
  lua_pushlightuserdata(L, (void *)lupe_snapshot_block(s));
  lua_pushnumber(L, (double)bytes);
  lupe_snapshot **box = lua_newuserdata(L, sizeof(lupe_snapshot *));
  *box = s;
  ++*held;
  luaL_getmetatable(L, LUPE__SNAPSHOT_TYPE);
  lua_setmetatable(L, -2);
}

static int snapshot(lua_State *L) {
  lupe_snapshot *latest = lupe_collector_latest(lupe__host_of(L)->services.collector);
  if (!latest) return nil_because(L, "no heap profile was taken yet");
  lupe_host_push_snapshot(L, lupe_snapshot_retain(latest));
  return 3;
}

/* { { kind = "name" | "prefix" | "module", text = string }, ... } */
static int set_wrappers(lua_State *L) {
  static const char *const kinds[] = {"name", "prefix", "module", NULL};
  luaL_checktype(L, 1, LUA_TTABLE);
  size_t count = lua_objlen(L, 1);
  lupe_wrapper *list = lua_newuserdata(L, (count + 1) * sizeof *list);
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, 1, (int)i + 1);
    luaL_checktype(L, -1, LUA_TTABLE);
    lua_getfield(L, -1, "kind");
    lua_getfield(L, -2, "text");
    list[i].kind = (uint32_t)luaL_checkoption(L, -2, NULL, kinds);
    list[i].text = luaL_checkstring(L, -1); /* the argument's table keeps it alive */
    lua_pop(L, 3);
  }
  lupe_status status = lupe_aggregator_set_wrappers(lupe__host_of(L)->services.aggregator, list, count);
  if (status != LUPE_OK) return luaL_error(L, "set_wrappers: %s", lupe_status_text(status));
  return 0;
}

static const luaL_Reg basics[] = {
    {"now_ms", now_ms},
    {"monotonic_ms", monotonic_ms},
    {"log", log_line},
    {NULL, NULL},
};

/* Of a run that is there. */
static const luaL_Reg questions[] = {
    {"targets", targets},   {"memory", memory},
    {"series", series},     {"allocator", allocator},
    {"cgroup", cgroup},     {"threads", threads},
    {"load", load},         {"profiler", profiler},
    {"snapshot", snapshot}, {"set_wrappers", set_wrappers},
    {NULL, NULL},
};

static void add_functions(lua_State *L, const luaL_Reg *functions, lupe_host *h) {
  for (; functions->name; functions++) {
    lua_pushlightuserdata(L, h);
    lua_pushcclosure(L, functions->func, 1);
    lua_setfield(L, -2, functions->name);
  }
}

static int build_table(lua_State *L) {
  lupe_host *h = lua_touserdata(L, 1);
  *(uint32_t *)lua_newuserdata(L, sizeof(uint32_t)) = 0;
  lua_setfield(L, LUA_REGISTRYINDEX, HELD_KEY);
  luaL_newmetatable(L, LUPE__SNAPSHOT_TYPE);
  lua_pushcfunction(L, release_snapshot);
  lua_setfield(L, -2, "__gc");
  lupe__host_add_recordings(L);
  lua_createtable(L, 0, 48);
  add_functions(L, basics, h);
  add_functions(L, lupe__host_tasks, h);
  add_functions(L, lupe__host_timers, h);
  add_functions(L, lupe__host_recordings, h);
  set_string(L, "version", LUPE_VERSION);
  if (h->services.collector) {
    add_functions(L, questions, h);
    add_functions(L, lupe__host_run_tasks, h);
    add_functions(L, lupe__host_watches, h);
    add_functions(L, lupe__host_exports, h);
    add_functions(L, lupe__host_commands, h);
    add_functions(L, lupe__host_proofs, h);
    set_number(L, "started_ms", h->services.started_ms);
  }
  lua_setglobal(L, "lupe_host");
  return 0;
}

lupe_status lupe_host_create(lupe_host **out, const lupe_host_services *services, char *error,
                             size_t error_bytes) {
  lupe_host *h = calloc(1, sizeof *h);
  if (!h) return LUPE_ENOMEM;
  h->services = *services;
  /* Before the first checkpoint is old enough, the window begins with the run. */
  h->checkpoints[0].time_ms = h->checkpoints[1].time_ms = clock_ms(CLOCK_MONOTONIC) - 1;
  lupe_status status = lupe_vm_run(services->vm, build_table, h, error, error_bytes);
  if (status != LUPE_OK) {
    free(h);
    return status;
  }
  *out = h;
  return LUPE_OK;
}

void lupe_host_close(lupe_host *h) {
  if (!h) return;
  h->closing = true;
  lupe__timers_close(h);
  lupe__watches_close(h);
}

void lupe_host_free(lupe_host *h) {
  if (!h) return;
  h->closing = h->orphaned = true;
  if (h->open_tasks == 0) free(h);
}

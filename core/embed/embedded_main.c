/* embedded_main.c -- the runtime's end of embedded.h: in a thread of an embedding program, or in a process
 * that it has started. */
#include "core/embed/embedded.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

#include "core/embed/runtime_link.h"
#include "core/paths.h"
#include "core/runtime.h"
#include "core/wire/channel.h"
#include "core/wire/frame.h"

enum {
  TEXTS_MAX = 256,
  /* With both workers and a program in it the runtime has 24 open, and more while it works. */
  DESCRIPTORS = 32,
  RECORDED_MS = 2000, /* for the last frame of a recording; of these */
  LINES_MS = 100,     /* for the source lines in it that are not known yet: the program waits */
};

typedef struct embedded {
  const lupe_embedded *given;
  lupe__runtime_link link;
  uv_loop_t loop;
  lupe_vm *vm;
  lupe_paths paths;
  lupe_runtime *runtime;
  bool stop_owed; /* STOP was asked */
  bool closing;   /* of the runtime; nothing comes after it */
  pid_t host_pid;
  lupe_ending ending;  /* what the recording's last frame says */
  uv_timer_t patience; /* with that frame */
  uint32_t op;         /* of the request that is being handled */
  int handler;         /* registry: lua/lupe/embedded.lua's function */
  char url[96];
  lua_Integer heap_interval_ms, memory_interval_ms, cpu_hz, wall_hz, port;
  bool port_given, profile, leave_allocator, records;
  char host[64];
} embedded;

/* -- Lua -------------------------------------------------------------------------------------- */

static embedded *self_of(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(1));
}

static int environment_variable(lua_State *L) {
  lua_pushstring(L, getenv(luaL_checkstring(L, 1)));
  return 1;
}

/* respond(status, text, ...): the answer to the request under way. */
static int respond(lua_State *L) {
  embedded *em = self_of(L);
  luaL_Buffer all;
  if (!em->link.busy) return luaL_error(L, "there is no request to answer");
  lupe_status status = (lupe_status)luaL_checkinteger(L, 1);
  int count = lua_gettop(L);
  luaL_buffinit(L, &all);
  for (int i = 2; i <= count; i++) {
    size_t bytes;
    const char *text = luaL_checklstring(L, i, &bytes);
    luaL_addlstring(&all, text, strnlen(text, bytes));
    luaL_addchar(&all, '\0');
  }
  luaL_pushresult(&all);
  size_t bytes;
  const char *texts = lua_tolstring(L, -1, &bytes);
  lupe__runtime_link_reply(&em->link, status, texts, bytes);
  return 0;
}

/* tell(kind, rule, severity, text, json): an event. */
static int tell(lua_State *L) {
  embedded *em = self_of(L);
  const char *texts[LUPE__EVENT_TEXTS];
  for (int i = 0; i < LUPE__EVENT_TEXTS; i++) texts[i] = luaL_checkstring(L, i + 2);
  lupe__runtime_link_tell(&em->link, (uint32_t)luaL_checkinteger(L, 1), texts);
  return 0;
}

static void push_texts(lua_State *L, const lupe__frame *frame) {
  const char *at = frame->body + sizeof(uint32_t), *end = frame->body + frame->bytes;
  lua_newtable(L);
  for (int i = 1; at < end && i <= TEXTS_MAX; i++, at += strlen(at) + 1) {
    lua_pushstring(L, at);
    lua_rawseti(L, -2, i);
  }
}

static lua_Integer integer_field(lua_State *L, const char *name, double scale) {
  lua_getfield(L, -1, name);
  lua_Integer value = (lua_Integer)(lua_tonumber(L, -1) * scale);
  lua_pop(L, 1);
  return value;
}

static bool boolean_field(lua_State *L, const char *name) {
  lua_getfield(L, -1, name);
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

static void push_embedded_function(lua_State *L, const char *name) {
  lua_getglobal(L, "require");
  lua_pushliteral(L, "lupe.embedded");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
}

/* The settings of START. What is wrong with them is its reply. */
static int configure(lua_State *L) {
  embedded *em = lua_touserdata(L, 1);
  push_embedded_function(L, "config");
  push_texts(L, &em->link.request);
  lua_pushcfunction(L, environment_variable);
  lua_call(L, 2, 2);
  if (lua_isnil(L, -2)) {
    lupe__runtime_link_reply_text(&em->link, LUPE_EINVAL, luaL_checkstring(L, -1));
    return 0;
  }
  lua_pop(L, 1);
  lua_getfield(L, -1, "listen_host");
  snprintf(em->host, sizeof em->host, "%s", luaL_checkstring(L, -1));
  lua_getfield(L, -2, "allocator");
  em->leave_allocator = strcmp(luaL_checkstring(L, -1), "system") == 0;
  lua_pop(L, 2);
  em->port = integer_field(L, "listen_port", 1);
  em->port_given = boolean_field(L, "listen_given");
  em->profile = boolean_field(L, "enable_profiling");
  em->records = boolean_field(L, "record");
  em->heap_interval_ms = integer_field(L, "heap_interval_secs", 1e3);
  em->memory_interval_ms = integer_field(L, "memory_interval_secs", 1e3);
  em->cpu_hz = integer_field(L, "cpu_hz", 1);
  em->wall_hz = integer_field(L, "wall_hz", 1);
  lua_setfield(L, LUA_REGISTRYINDEX, LUPE_CONFIG_KEY);
  return 0;
}

static int make_handler(lua_State *L) {
  embedded *em = lua_touserdata(L, 1);
  push_embedded_function(L, "new");
  lupe_runtime_push(em->runtime, L);
  lua_pushlightuserdata(L, em);
  lua_pushcclosure(L, respond, 1);
  lua_createtable(L, 0, 5);
  if (em->url[0]) lua_pushstring(L, em->url), lua_setfield(L, -2, "url");
  lua_pushstring(L, lupe_runtime_socket(em->runtime));
  lua_setfield(L, -2, "socket");
  lua_pushliteral(L, LUPE_VERSION);
  lua_setfield(L, -2, "version");
  lua_pushinteger(L, getpid());
  lua_setfield(L, -2, "pid");
  lua_pushlightuserdata(L, em);
  lua_pushcclosure(L, tell, 1);
  lua_setfield(L, -2, "tell");
  lua_call(L, 3, 1);
  em->handler = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

static int call_handler(lua_State *L) {
  embedded *em = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, em->handler);
  lua_pushinteger(L, (lua_Integer)em->op);
  push_texts(L, &em->link.request);
  lua_call(L, 2, 0);
  return 0;
}

/* -- requests --------------------------------------------------------------------------------- */

static void on_closed(void *arg) {
  (void)arg;
}

static void close_runtime(embedded *em) {
  if (em->closing) return;
  em->closing = true;
  uv_close((uv_handle_t *)&em->patience, NULL);
  lupe_runtime_close(em->runtime, on_closed, NULL);
}

static void on_recorded(void *arg, const char *text, size_t bytes) {
  (void)text; /* no report is wanted */
  (void)bytes;
  close_runtime(arg);
}

static void on_patience(uv_timer_t *timer) {
  fprintf(stderr, "lupe: the recording is without its end, which was not there within %d s\n",
          RECORDED_MS / 1000);
  close_runtime(timer->data);
}

/* Begins to end. What the program did is in the recording first, as under `lupe run`; `why` is the word in it
 * on how the program ended. */
static void stop(embedded *em, const char *why) {
  if (!em->link.open) return;
  lupe__runtime_link_close(&em->link);
  /* A program that never got as far as to be seen has nothing to replace an older recording by. */
  if (!em->records || !lupe_runtime_saw(em->runtime, em->host_pid)) {
    close_runtime(em);
    return;
  }
  em->ending = (lupe_ending){.pid = em->host_pid, .unknown = why};
  uv_timer_start(&em->patience, on_patience, RECORDED_MS, 0);
  lupe_runtime_report(em->runtime, &em->ending, LINES_MS, on_recorded, em);
}

static void on_request(void *arg, uint32_t op) {
  embedded *em = arg;
  char error[LUPE_VM_ERROR_BYTES];
  em->op = op;
  if (lupe_vm_run(em->vm, call_handler, em, error, sizeof error) == LUPE_OK) return;
  fprintf(stderr, "lupe: %s\n", error);
  if (em->link.busy) lupe__runtime_link_reply_text(&em->link, LUPE_ESCRIPT, error);
}

static void on_stop(void *arg) {
  embedded *em = arg;
  em->stop_owed = true;
  stop(em, "it stopped lupe");
}

static void on_gone(void *arg, const char *why) {
  stop(arg, why);
}

/* -- life ------------------------------------------------------------------------------------- */

static lupe_status create(embedded *em, char *error, size_t error_bytes) {
  const char *missing;
  lupe_status status = lupe_paths_find(&em->paths, &missing);
  if (status != LUPE_OK) {
    snprintf(error, error_bytes, "this installation is not whole: %s cannot be found", missing);
    return status;
  }
  status = lupe_vm_create(&em->vm, em->paths.lua, 0);
  if (status != LUPE_OK) {
    snprintf(error, error_bytes, "no Lua state: %s", lupe_status_text(status));
    return status;
  }
  status = lupe_vm_run(em->vm, configure, em, error, error_bytes);
  if (status != LUPE_OK) return status;
  if (!em->link.busy) return LUPE_EINVAL;
  const lupe_pool_hooks hooks = {em->given->thread_begins, em->given->thread_ends};
  lupe_runtime_options options = {
      .loop = &em->loop,
      .vm = em->vm,
      .paths = &em->paths,
      .host = em->host,
      .port = (uint16_t)em->port,
      .port_given = em->port_given,
      .heap_interval_ms = (uint32_t)em->heap_interval_ms,
      .memory_interval_ms = (uint32_t)em->memory_interval_ms,
      .cpu_hz = (uint32_t)em->cpu_hz,
      .wall_hz = (uint32_t)em->wall_hz,
      .embedded = em->given->thread_begins != NULL,
      .pool_hooks = &hooks,
  };
  status = lupe_runtime_create(&em->runtime, &options, error, error_bytes);
  if (status != LUPE_OK) return status;
  bool ipv6 = strchr(em->host, ':') != NULL;
  snprintf(em->url, sizeof em->url, "http://%s%s%s:%u", ipv6 ? "[" : "", em->host, ipv6 ? "]" : "",
           lupe_runtime_port(em->runtime));
  status = lupe_vm_run(em->vm, make_handler, em, error, error_bytes);
  if (status != LUPE_OK) lupe_runtime_close(em->runtime, on_closed, NULL);
  return status;
}

static void run(embedded *em) {
  char error[LUPE_VM_ERROR_BYTES] = "";
  lupe_status status = create(em, error, sizeof error);
  if (status != LUPE_OK) {
    /* A small answer to an empty socket: all of it goes at once. */
    if (em->link.busy) lupe__runtime_link_reply_text(&em->link, status, error);
  } else {
    char texts[512];
    int n = snprintf(texts, sizeof texts, "%s%c%s%c%s", em->profile ? lupe_runtime_socket(em->runtime) : "",
                     '\0', em->url, '\0', em->leave_allocator ? "system" : "jemalloc");
    uv_timer_init(&em->loop, &em->patience);
    em->patience.data = em;
    const lupe__runtime_link_events on = {.request = on_request, .stop = on_stop, .gone = on_gone, .arg = em};
    lupe__runtime_link_listen(&em->link, &em->loop, &on);
    lupe__runtime_link_reply(&em->link, LUPE_OK, texts, (size_t)n + 1);
  }
  uv_run(&em->loop, UV_RUN_DEFAULT);
  lupe_vm_free(em->vm);
}

/* Whether there is room for the runtime's descriptors: found out here, it is one sentence, and not whatever
 * the first call says that gets none. */
static bool has_descriptors(char *text, size_t text_bytes) {
  int fds[DESCRIPTORS], count = 0;
  while (count < DESCRIPTORS && (fds[count] = eventfd(0, EFD_CLOEXEC)) >= 0) count++;
  int error = errno;
  for (int i = 0; i < count; i++) close(fds[i]);
  if (count == DESCRIPTORS) return true;
  struct rlimit limit = {0};
  getrlimit(RLIMIT_NOFILE, &limit);
  snprintf(text, text_bytes,
           "the runtime needs %d descriptors of its own and gets %d: %s; RLIMIT_NOFILE is %llu (`ulimit -n`)",
           DESCRIPTORS, count, strerror(error), (unsigned long long)limit.rlim_cur);
  return false;
}

/* After START, and to the end of it all. */
static void serve(embedded *em) {
  char text[256];
  if (!has_descriptors(text, sizeof text)) {
    lupe__runtime_link_reply_text(&em->link, LUPE_EIO, text);
    return;
  }
  int error = uv_loop_init(&em->loop);
  if (error != 0) {
    snprintf(text, sizeof text, "no event loop: %s", uv_strerror(error));
    lupe__runtime_link_reply_text(&em->link, LUPE_EIO, text);
    return;
  }
  run(em);
  uv_loop_close(&em->loop);
}

void lupe_embedded_main(const lupe_embedded *given) {
  embedded em = {.given = given};
  uid_t same;
  /* The pair's maker is the program, in each mode. */
  (void)lupe_channel_peer(given->calls, &em.host_pid, &same);
  if (lupe__runtime_link_begin(&em.link, given->calls, given->events) == LUPE_EMBEDDED_START) serve(&em);
  lupe__runtime_link_end(&em.link, em.stop_owed);
}

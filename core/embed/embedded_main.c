/* embedded_main.c -- the runtime's end of embedded.h: in a thread of an embedding program, or in a process
 * that it has started. */
#include "core/embed/embedded.h"

#include <errno.h>
#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "core/paths.h"
#include "core/runtime.h"
#include "core/wire/channel.h"
#include "core/wire/frame.h"

enum {
  TEXTS_MAX = 256,
  EVENTS_MAX = 256,   /* that wait to be sent */
  RECORDED_MS = 2000, /* for the last frame of a recording */
};

typedef struct event {
  struct event *next;
  uint32_t bytes;
  char body[];
} event;

typedef struct embedded {
  const lupe_embedded *given;
  uv_loop_t loop;
  uv_poll_t calls, events;
  lupe_vm *vm;
  lupe_paths paths;
  lupe_runtime *runtime;
  lupe__frame frame; /* comes in */
  char *reply;       /* goes out; NULL: none */
  size_t reply_bytes, sent;
  bool busy;     /* a request is being worked on */
  bool stopping; /* STOP was asked, or the other side is gone */
  bool stop_owed;
  bool closing; /* of the runtime; nothing comes after it */
  pid_t host_pid;
  lupe_ending ending;  /* what the recording's last frame says */
  uv_timer_t patience; /* with that frame */
  event *first_event, **last_event;
  unsigned event_count;
  size_t event_sent; /* of the first */
  int handler;       /* registry: lua/lupe/embedded.lua's function */
  char url[96];
  lua_Integer heap_interval_ms, memory_interval_ms, cpu_hz, wall_hz, port;
  bool port_given, profile, leave_allocator, records;
  char host[64];
} embedded;

/* -- replies ---------------------------------------------------------------------------------- */

static void on_calls(uv_poll_t *poll, int status, int events);
static void stop(embedded *em, const char *why);

/* Makes `bytes` of texts, each with its NUL, the reply to what was asked last. */
static void reply(embedded *em, lupe_status status, const char *texts, size_t bytes) {
  const uint32_t number = status;
  em->busy = false;
  free(em->reply);
  em->sent = 0;
  em->reply = malloc(sizeof number + bytes);
  if (!em->reply) {
    fprintf(stderr, "lupe: an answer to the program is lost: out of memory\n");
    stop(em, "the program had no memory left for lupe");
    return;
  }
  memcpy(em->reply, &number, sizeof number);
  memcpy(em->reply + sizeof number, texts, bytes);
  em->reply_bytes = sizeof number + bytes;
}

static void reply_text(embedded *em, lupe_status status, const char *text) {
  reply(em, status, text, strlen(text) + 1);
}

/* Sends on what is to be sent, and waits for what comes next. */
static void pump(embedded *em) {
  int wanted = UV_READABLE;
  if (em->reply) {
    size_t sent = em->sent;
    lupe_status status =
        lupe__frame_write(em->given->calls, em->reply, (uint32_t)em->reply_bytes, -1, &sent, false);
    em->sent = sent;
    if (status == LUPE_EAGAIN) {
      wanted |= UV_WRITABLE;
    } else {
      free(em->reply);
      em->reply = NULL;
    }
  }
  if (!em->stopping) uv_poll_start(&em->calls, wanted, on_calls);
}

/* -- events ----------------------------------------------------------------------------------- */

static void on_events(uv_poll_t *poll, int status, int events);

static void drop_first_event(embedded *em) {
  event *e = em->first_event;
  em->first_event = e->next;
  if (!em->first_event) em->last_event = &em->first_event;
  em->event_count--;
  em->event_sent = 0;
  free(e);
}

static void send_events(embedded *em) {
  while (em->first_event) {
    const event *e = em->first_event;
    if (lupe__frame_write(em->given->events, e->body, e->bytes, -1, &em->event_sent, false) == LUPE_EAGAIN)
      break;
    drop_first_event(em); /* where nobody is there any more, that shows by reading */
  }
  if (!em->stopping) uv_poll_start(&em->events, UV_READABLE | (em->first_event ? UV_WRITABLE : 0), on_events);
}

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
  if (!em->busy) return luaL_error(L, "there is no request to answer");
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
  reply(em, status, texts, bytes);
  if (!em->stopping) pump(em);
  return 0;
}

/* tell(kind, rule, severity, text, json): an event. Where the program is slow to take them, it is lost. */
static int tell(lua_State *L) {
  embedded *em = self_of(L);
  const uint32_t kind = (uint32_t)luaL_checkinteger(L, 1);
  size_t total = sizeof kind, bytes;
  for (int i = 2; i <= 5; i++) total += strlen(luaL_checkstring(L, i)) + 1;
  if (em->event_count >= EVENTS_MAX || em->stopping || total > LUPE_FRAME_MAX_BYTES) return 0;
  event *e = malloc(sizeof *e + total);
  if (!e) return 0;
  *e = (event){.bytes = (uint32_t)total};
  memcpy(e->body, &kind, sizeof kind);
  char *at = e->body + sizeof kind;
  for (int i = 2; i <= 5; i++) {
    const char *text = lua_tolstring(L, i, &bytes);
    bytes = strlen(text) + 1;
    memcpy(at, text, bytes);
    at += bytes;
  }
  *em->last_event = e;
  em->last_event = &e->next;
  em->event_count++;
  send_events(em);
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

/* The settings of START. What is wrong with them is em->reply. */
static int configure(lua_State *L) {
  embedded *em = lua_touserdata(L, 1);
  push_embedded_function(L, "config");
  push_texts(L, &em->frame);
  lua_pushcfunction(L, environment_variable);
  lua_call(L, 2, 2);
  if (lua_isnil(L, -2)) {
    reply_text(em, LUPE_EINVAL, luaL_checkstring(L, -1));
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
  uint32_t op;
  memcpy(&op, em->frame.body, sizeof op);
  lua_rawgeti(L, LUA_REGISTRYINDEX, em->handler);
  lua_pushinteger(L, (lua_Integer)op);
  push_texts(L, &em->frame);
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
  if (em->stopping) return;
  em->stopping = true;
  uv_close((uv_handle_t *)&em->calls, NULL);
  uv_close((uv_handle_t *)&em->events, NULL);
  /* A program that never got as far as to be seen has nothing to replace an older recording by. */
  if (!em->records || !lupe_runtime_saw(em->runtime, em->host_pid)) {
    close_runtime(em);
    return;
  }
  em->ending = (lupe_ending){.pid = em->host_pid, .unknown = why};
  uv_timer_start(&em->patience, on_patience, RECORDED_MS, 0);
  lupe_runtime_report(em->runtime, &em->ending, on_recorded, em);
}

static void take_request(embedded *em) {
  char error[LUPE_VM_ERROR_BYTES];
  uint32_t op = 0;
  if (em->frame.bytes >= sizeof op) memcpy(&op, em->frame.body, sizeof op);
  if (op == LUPE_EMBEDDED_STOP) {
    if (em->busy) reply_text(em, LUPE_ENOENT, "lupe is being stopped");
    pump(em);
    em->stop_owed = true;
    stop(em, "it stopped lupe");
    return;
  }
  em->busy = true;
  if (op == 0 || em->frame.body[em->frame.bytes - 1] != '\0') {
    if (em->frame.bytes > sizeof op || op == 0) {
      reply_text(em, LUPE_EINVAL, "a request that is not whole");
      pump(em);
      return;
    }
  }
  if (lupe_vm_run(em->vm, call_handler, em, error, sizeof error) != LUPE_OK) {
    fprintf(stderr, "lupe: %s\n", error);
    if (em->busy) reply_text(em, LUPE_ESCRIPT, error);
    pump(em);
  }
}

static const char GONE[] = "it is gone, or speaks with lupe no more";

static void on_calls(uv_poll_t *poll, int status, int events) {
  embedded *em = poll->data;
  if (events & UV_WRITABLE) pump(em);
  if (!(events & UV_READABLE) && status == 0) return;
  for (;;) {
    lupe_status read = lupe__frame_read(&em->frame, em->given->calls, false);
    if (read == LUPE_EAGAIN) return;
    if (read == LUPE_OK) take_request(em);
    lupe__frame_clear(&em->frame);
    if (read != LUPE_OK) stop(em, GONE);
    if (em->stopping) return;
  }
}

/* Nobody speaks on it but us: readable means that its other end is closed. */
static void on_events(uv_poll_t *poll, int status, int events) {
  embedded *em = poll->data;
  if (status != 0 || (events & UV_READABLE)) {
    stop(em, GONE);
  } else {
    send_events(em);
  }
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
  if (em->reply) return LUPE_EINVAL;
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
  lupe__frame_clear(&em->frame); /* START's: what comes next goes there */
  if (status != LUPE_OK) {
    if (!em->reply) reply_text(em, status, error);
    em->stopping = true;
    pump(em); /* a small answer to an empty socket: all of it goes at once */
  } else {
    char texts[512];
    int n = snprintf(texts, sizeof texts, "%s%c%s%c%s", em->profile ? lupe_runtime_socket(em->runtime) : "",
                     '\0', em->url, '\0', em->leave_allocator ? "system" : "jemalloc");
    reply(em, LUPE_OK, texts, (size_t)n + 1);
    uv_poll_init(&em->loop, &em->calls, em->given->calls);
    uv_poll_init(&em->loop, &em->events, em->given->events);
    uv_timer_init(&em->loop, &em->patience);
    em->calls.data = em->events.data = em->patience.data = em;
    uv_poll_start(&em->events, UV_READABLE, on_events);
    pump(em);
  }
  uv_run(&em->loop, UV_RUN_DEFAULT);
  lupe_vm_free(em->vm);
}

void lupe_embedded_main(const lupe_embedded *given) {
  embedded em = {.given = given, .frame = {.fd = -1}};
  uid_t same;
  (void)lupe_channel_peer(given->calls, &em.host_pid,
                          &same); /* the pair's maker, the program, in each mode */
  em.last_event = &em.first_event;
  uint32_t op = 0;
  if (lupe__frame_read(&em.frame, given->calls, true) == LUPE_OK && em.frame.bytes >= sizeof op) {
    memcpy(&op, em.frame.body, sizeof op);
  }
  if (op == LUPE_EMBEDDED_START) {
    if (uv_loop_init(&em.loop) == 0) {
      run(&em);
      uv_loop_close(&em.loop);
    } else {
      reply_text(&em, LUPE_EIO, "no event loop: no descriptors are left, or a limit is reached");
      em.stopping = true;
      pump(&em);
    }
  }
  lupe__frame_clear(&em.frame);
  if (em.stop_owed) {
    const uint32_t done = LUPE_OK;
    size_t sent = 0;
    (void)lupe__frame_write(given->calls, &done, sizeof done, -1, &sent, true); /* who asked may be gone */
  }
  free(em.reply);
  while (em.first_event) drop_first_event(&em);
  close(given->calls);
  close(given->events);
}

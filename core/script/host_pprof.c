/* host_pprof.c -- what other profilers' tools ask for: snapshots in their formats, made by a thread of the
 * pool, and the command line. */
#include <fcntl.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/export/gperftools.h"
#include "core/export/pprof.h"
#include "core/script/host_internal.h"
#include "core/store/snapshot.h"

typedef enum format {
  HEAP,
  ALLOCS,
  CPU,
  WALL,
  GPERFTOOLS_HEAP,
  GPERFTOOLS_CPU,
  SYMBOLS,
} format;

typedef struct export {
  lupe_work work;
  lupe__task *task;
  lupe_snapshot *snapshot; /* a reference */
  format format;
  lupe_status status;
  char *bytes; /* the result */
  size_t count;
  size_t text_bytes;
  char text[]; /* SYMBOLS: what was asked for */
}
export;

static void write_pprof(export *e, lupe_pprof_type type) {
  uint8_t *bytes = NULL;
  e->status = lupe_pprof_encode(e->snapshot, type, &bytes, &e->count);
  e->bytes = (char *)bytes;
}

static void do_export(lupe_work *w) {
  export *e = w->data;
  switch (e->format) {
    case HEAP:
      write_pprof(e, LUPE_PPROF_HEAP);
      break;
    case ALLOCS:
      write_pprof(e, LUPE_PPROF_ALLOCS);
      break;
    case CPU:
      write_pprof(e, LUPE_PPROF_CPU);
      break;
    case WALL:
      write_pprof(e, LUPE_PPROF_WALL);
      break;
    case GPERFTOOLS_HEAP:
      e->status = lupe_gperftools_heap(e->snapshot, &e->bytes, &e->count);
      break;
    case GPERFTOOLS_CPU:
      e->status = lupe_gperftools_cpu(e->snapshot, &e->bytes, &e->count);
      break;
    case SYMBOLS:
      e->status = lupe_gperftools_symbols(e->snapshot, e->text, e->text_bytes, &e->bytes, &e->count);
  }
}

static int push_result(lua_State *L, lupe__task *t) {
  export *e = t->arg;
  if (e->status != LUPE_OK) {
    lua_pushstring(L, lupe_status_text(e->status));
    return 1;
  }
  lua_pushnil(L);
  lua_pushlstring(L, e->bytes, e->count);
  return 2;
}

static void on_exported(lupe_work *w, lupe_status status) {
  export *e = w->data;
  if (status != LUPE_OK) e->status = status;
  lupe__task_finish(e->task, push_result, e);
  lupe_snapshot_release(e->snapshot);
  free(e->bytes);
  free(e);
}

/* The snapshot's keepalive is the first argument, the callback that at `callback`. */
static int start(lua_State *L, format kind, const char *text, size_t text_bytes, int callback) {
  lupe_snapshot **s = luaL_checkudata(L, 1, LUPE__SNAPSHOT_TYPE);
  if (!*s) return luaL_error(L, "the snapshot was released");
  lupe__task *task = lupe__task_create(L, callback);
  export *e = calloc(1, sizeof *e + text_bytes + 1);
  if (!e) {
    lupe__task_abandon(L, task);
    return luaL_error(L, "out of memory");
  }
  e->work.data = e;
  e->task = task;
  e->snapshot = lupe_snapshot_retain(*s);
  e->format = kind;
  e->text_bytes = text_bytes;
  if (text_bytes > 0) memcpy(e->text, text, text_bytes);
  lupe_pool_queue(task->host->services.pool, &e->work, do_export, on_exported);
  return 0;
}

/* pprof(keepalive, format, callback(error, bytes)) */
static int pprof(lua_State *L) {
  static const char *const formats[] = {
      [HEAP] = "heap",
      [ALLOCS] = "allocs",
      [CPU] = "cpu",
      [WALL] = "wall",
      [GPERFTOOLS_HEAP] = "gperftools-heap",
      [GPERFTOOLS_CPU] = "gperftools-cpu",
      NULL,
  };
  return start(L, (format)luaL_checkoption(L, 2, NULL, formats), NULL, 0, 3);
}

/* symbols(keepalive, addresses, callback(error, text)) */
static int symbols(lua_State *L) {
  size_t bytes;
  const char *text = luaL_checklstring(L, 2, &bytes);
  return start(L, SYMBOLS, text, bytes, 3);
}

/* cmdline(pid): the words of its command line, each with a NUL behind it. */
static int cmdline(lua_State *L) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/cmdline", (int)luaL_checkinteger(L, 1));
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    ssize_t n;
    while ((n = read(fd, luaL_prepbuffer(&buffer), LUAL_BUFFERSIZE)) > 0) luaL_addsize(&buffer, (size_t)n);
    close(fd);
    luaL_pushresult(&buffer);
    if (n == 0) return 1;
  }
  lua_pushnil(L);
  lua_pushliteral(L, "no such process");
  return 2;
}

const luaL_Reg lupe__host_exports[] = {
    {"pprof", pprof},
    {"symbols", symbols},
    {"cmdline", cmdline},
    {NULL, NULL},
};

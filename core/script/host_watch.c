/* host_watch.c -- being told once that a directory changed. */
#include <lauxlib.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/script/host_internal.h"

enum { WATCHES_MAX = 64 };

typedef struct lupe__watch {
  uv_fs_event_t event; /* first: uv's handle is the struct */
  struct lupe__watch *next, *previous;
  lupe_host *host;
  lupe__task *task; /* NULL: given up, nobody is to be called back */
  uint32_t id;
  char name[NAME_MAX + 1]; /* the entry that counts; empty: all do */
} lupe__watch;

static int push_nothing(lua_State *L, lupe__task *t) {
  (void)t;
  lua_pushnil(L);
  return 1;
}

static void on_closed(uv_handle_t *handle) {
  lupe__watch *w = (lupe__watch *)handle;
  if (w->task) lupe__task_finish(w->task, push_nothing, NULL);
  free(w);
}

static void end(lupe__watch *w) {
  lupe_host *h = w->host;
  if (w->previous)
    w->previous->next = w->next;
  else
    h->watches = w->next;
  if (w->next) w->next->previous = w->previous;
  h->watch_count--;
  uv_close((uv_handle_t *)&w->event, on_closed);
}

static void on_event(uv_fs_event_t *event, const char *name, int events, int status) {
  lupe__watch *w = (lupe__watch *)event;
  (void)events;
  if (uv_is_closing((uv_handle_t *)event)) return; /* several events come at once */
  bool counts = status < 0 || !w->name[0] || (name && strcmp(name, w->name) == 0);
  if (counts) end(w);
}

void lupe__watches_close(lupe_host *h) {
  while (h->watches) end(h->watches);
}

static int failed(lua_State *L, const char *directory, int error) {
  lua_pushnil(L);
  lua_pushfstring(L, "%s: %s", directory, uv_strerror(error));
  lua_pushstring(L, uv_err_name(error));
  return 3;
}

/* watch(directory, name | nil, callback(nil)) -> id; or nil, text, code */
static int watch(lua_State *L) {
  size_t bytes;
  const char *directory = luaL_checkstring(L, 1), *name = luaL_optlstring(L, 2, "", &bytes);
  luaL_argcheck(L, bytes <= NAME_MAX, 2, "too long for a name");
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lupe_host *h = lupe__host_of(L);
  if (h->watch_count >= WATCHES_MAX) return failed(L, directory, UV_EMFILE);
  lupe__watch *w = calloc(1, sizeof *w);
  if (!w) return luaL_error(L, "out of memory");
  w->host = h;
  memcpy(w->name, name, bytes);
  int error = uv_fs_event_init(h->services.loop, &w->event);
  if (error == 0) error = uv_fs_event_start(&w->event, on_event, directory, 0);
  if (error != 0) {
    uv_close((uv_handle_t *)&w->event, on_closed);
    return failed(L, directory, error);
  }
  w->id = ++h->last_watch_id;
  w->next = h->watches;
  if (w->next) w->next->previous = w;
  h->watches = w;
  h->watch_count++;
  w->task = lupe__task_create(L, 3); /* raises for want of memory: then the host's end closes the handle */
  lua_pushnumber(L, w->id);
  return 1;
}

/* unwatch(id) -> whether it was still waiting */
static int unwatch(lua_State *L) {
  uint32_t id = (uint32_t)luaL_checknumber(L, 1);
  lupe_host *h = lupe__host_of(L);
  lupe__watch *w = h->watches;
  while (w && w->id != id) w = w->next;
  if (w) {
    if (w->task) lupe__task_abandon(L, w->task);
    w->task = NULL;
    end(w);
  }
  lua_pushboolean(L, w != NULL);
  return 1;
}

const luaL_Reg lupe__host_watches[] = {
    {"watch", watch},
    {"unwatch", unwatch},
    {NULL, NULL},
};

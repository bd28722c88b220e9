/* host_timer.c -- waiting without blocking the loop. */
#include <lauxlib.h>
#include <stdlib.h>

#include "core/script/host_internal.h"

enum { WAIT_MS_MAX = 3600 * 1000 };

static int push_nothing(lua_State *L, lupe__task *t) {
  (void)t;
  lua_pushnil(L);
  return 1;
}

static void on_closed(uv_handle_t *handle) {
  lupe__timer *t = (lupe__timer *)handle;
  if (t->task) lupe__task_finish(t->task, push_nothing, NULL);
  free(t);
}

void *lupe__timer_create(lua_State *L, int callback, size_t bytes, lupe__timer **list) {
  lupe__task *task = lupe__task_create(L, callback);
  lupe__timer *t = calloc(1, bytes);
  if (!t) {
    lupe__task_abandon(L, task);
    luaL_error(L, "out of memory");
    return NULL; /* never reached: luaL_error does not return */
  }
  t->task = task;
  t->list = list;
  t->next = *list;
  if (t->next) t->next->previous = t;
  *list = t;
  uv_timer_init(task->host->services.loop, &t->timer);
  return t;
}

void lupe__timer_end(lupe__timer *t) {
  if (t->previous)
    t->previous->next = t->next;
  else
    *t->list = t->next;
  if (t->next) t->next->previous = t->previous;
  uv_close((uv_handle_t *)&t->timer, on_closed);
}

void lupe__timers_close(lupe_host *h) {
  while (h->timers) lupe__timer_end(h->timers);
}

static void on_time(uv_timer_t *timer) {
  lupe__timer_end((lupe__timer *)timer);
}

/* after(ms, callback(nil)) */
static int after(lua_State *L) {
  lua_Number ms = luaL_checknumber(L, 1);
  luaL_argcheck(L, ms >= 0 && ms <= WAIT_MS_MAX, 1, "not between 0 and an hour");
  lupe_host *h = lupe__host_of(L);
  lupe__timer *t = lupe__timer_create(L, 2, sizeof *t, &h->timers);
  uv_update_time(
      h->services.loop); /* so that it does not end early by what this turn of the loop has taken */
  uv_timer_start(&t->timer, on_time, (uint64_t)ms, 0);
  return 0;
}

const luaL_Reg lupe__host_timers[] = {
    {"after", after},
    {NULL, NULL},
};

/* host_timer.c -- waiting without blocking the loop. */
#include <lauxlib.h>
#include <stdlib.h>

#include "core/script/host_internal.h"

enum { WAIT_MS_MAX = 3600 * 1000 };

typedef struct lupe__timer {
  uv_timer_t timer; /* first: uv's handle is the struct */
  struct lupe__timer *next, *previous;
  lupe__task *task;
} lupe__timer;

static int push_nothing(lua_State *L, lupe__task *t) {
  (void)t;
  lua_pushnil(L);
  return 1;
}

static void on_closed(uv_handle_t *handle) {
  lupe__timer *t = (lupe__timer *)handle;
  lupe__task_finish(t->task, push_nothing, NULL);
  free(t);
}

static void end(lupe__timer *t) {
  if (t->previous)
    t->previous->next = t->next;
  else
    t->task->host->timers = t->next;
  if (t->next) t->next->previous = t->previous;
  uv_close((uv_handle_t *)&t->timer, on_closed);
}

static void on_time(uv_timer_t *timer) {
  end((lupe__timer *)timer);
}

void lupe__timers_close(lupe_host *h) {
  while (h->timers) end(h->timers);
}

/* after(ms, callback(nil)) */
static int after(lua_State *L) {
  lua_Number ms = luaL_checknumber(L, 1);
  luaL_argcheck(L, ms >= 0 && ms <= WAIT_MS_MAX, 1, "not between 0 and an hour");
  lupe__task *task = lupe__task_create(L, 2);
  lupe_host *h = task->host;
  lupe__timer *t = calloc(1, sizeof *t);
  if (!t) {
    lupe__task_abandon(L, task);
    return luaL_error(L, "out of memory");
  }
  t->task = task;
  t->next = h->timers;
  if (t->next) t->next->previous = t;
  h->timers = t;
  uv_timer_init(h->services.loop, &t->timer);
  uv_update_time(
      h->services.loop); /* so that it does not end early by what this turn of the loop has taken */
  uv_timer_start(&t->timer, on_time, (uint64_t)ms, 0);
  return 0;
}

const luaL_Reg lupe__host_timers[] = {
    {"after", after},
    {NULL, NULL},
};

/* The callback of one host task: kept, called once, let go. */
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/script/host_internal.h"

lupe__task *lupe__task_create(lua_State *L, int index) {
  luaL_checktype(L, index, LUA_TFUNCTION);
  lupe__task *t = calloc(1, sizeof *t);
  if (!t) {
    luaL_error(L, "out of memory");
    return NULL; /* never reached: luaL_error does not return */
  }
  t->host = lupe__host_of(L);
  lua_pushvalue(L, index);
  t->callback = luaL_ref(L, LUA_REGISTRYINDEX);
  t->host->open_tasks++;
  return t;
}

static int call_back(lua_State *L) {
  lupe__task *t = lua_touserdata(L, 1);
  lua_rawgeti(L, LUA_REGISTRYINDEX, t->callback);
  luaL_unref(L, LUA_REGISTRYINDEX, t->callback);
  lua_call(L, t->push(L, t), 0);
  return 0;
}

void lupe__task_finish(lupe__task *t, int (*push)(lua_State *L, lupe__task *t), void *arg) {
  char error[LUPE_VM_ERROR_BYTES];
  lupe_host *h = t->host;
  t->push = push;
  t->arg = arg;
  if (!h->closing && lupe_vm_run(h->services.vm, call_back, t, error, sizeof error) != LUPE_OK) {
    fprintf(stderr, "lupe: %s\n", error);
  }
  free(t);
  if (--h->open_tasks == 0 && h->orphaned) free(h);
}

void lupe__task_abandon(lua_State *L, lupe__task *t) {
  luaL_unref(L, LUA_REGISTRYINDEX, t->callback);
  t->host->open_tasks--;
  free(t);
}

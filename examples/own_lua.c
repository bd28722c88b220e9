/* own_lua.c -- a program with a Lua 5.1 of its own, and lupe beside it.
 *
 *   build/examples/own_lua 10            runs its script for 10 s, then says what lupe saw
 *
 * It exports lua_* to modules that it loads, as redis-server does. lupe's runtime has a Lua of its own, whose
 * calls would end up in this one: so lupe_start refuses to put it into this process, and says so. As a
 * process of its own (LUPE_MODE_HELPER) it disturbs nobody; the agent that samples knows no Lua at all.
 *
 * The script keeps every order that it has ever seen: a leak in Lua, which lupe finds where Lua's memory
 * comes from, in `allocate`, under the span and the tag that the script runs in. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <lupe.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

const char *malloc_conf = "prof:true,prof_active:false,lg_prof_sample:16";

static const char SCRIPT[] =
    "local seen = {}\n"
    "function order(number)\n"
    "  local items = {}\n"
    "  for i = 1, 20 do items[i] = ('item %d of order %d'):format(i, number) end\n"
    "  seen[number] = table.concat(items, ', ')\n" /* BUG: and there it stays */
    "  return #seen[number]\n"
    "end\n";

/* Lua's allocator: all that a script holds is asked for here. */
static void *allocate(void *unused, void *block, size_t old_bytes, size_t new_bytes) {
  (void)unused;
  (void)old_bytes;
  if (new_bytes > 0) return realloc(block, new_bytes);
  free(block);
  return NULL;
}

/* One order. False: the script failed, and said why. */
static int run_order(lua_State *L, int number) {
  LUPE_SPAN("order");
  LUPE_TAG("script");
  lua_getglobal(L, "order");
  lua_pushinteger(L, number);
  if (lua_pcall(L, 1, 1, 0) != 0) {
    fprintf(stderr, "own_lua: %s\n", lua_tostring(L, -1));
    return 0;
  }
  lua_pop(L, 1);
  return 1;
}

static void start_lupe(void) {
  lupe_options options = LUPE_OPTIONS_INIT;
  lupe_status status = lupe_start(&options);
  if (status == LUPE_EUNSUPPORTED) {
    printf("own_lua: not in this process: %s\n", lupe_error());
    options.mode = LUPE_MODE_HELPER;
    status = lupe_start(&options);
  }
  char *about = NULL;
  if (status == LUPE_OK) status = lupe_about(&about);
  printf("own_lua: lupe: %s\n", status == LUPE_OK ? about : lupe_error());
  lupe_free(about);
  fflush(stdout);
}

int main(int argc, char **argv) {
  time_t end = time(NULL) + (argc > 1 ? strtol(argv[1], NULL, 10) : 10);
  lua_State *L = lua_newstate(allocate, NULL);
  if (L == NULL) return 1;
  luaL_openlibs(L);
  if (luaL_dostring(L, SCRIPT) != 0) {
    fprintf(stderr, "own_lua: %s\n", lua_tostring(L, -1));
    return 1;
  }
  start_lupe();

  const struct timespec pause = {.tv_nsec = 1000 * 1000};
  for (int number = 1; time(NULL) < end && run_order(L, number); number++) nanosleep(&pause, NULL);

  char *report = NULL;
  if (lupe_report(&report) == LUPE_OK) puts(report);
  lupe_free(report);
  lupe_stop();
  lua_close(L);
  return 0;
}

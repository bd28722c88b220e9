#include "core/cli/command.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/runtime.h"

typedef struct parse_args {
  int argc;
  char **argv;
  lupe_command command;
} parse_args;

static int environment_variable(lua_State *L) {
  lua_pushstring(L, getenv(luaL_checkstring(L, 1)));
  return 1;
}

static char *copy_string(lua_State *L, int index) {
  const char *text = lua_tostring(L, index);
  char *copy = text ? strdup(text) : NULL;
  if (text && !copy) luaL_error(L, "out of memory");
  return copy;
}

static double number_field(lua_State *L, int table, const char *name) {
  lua_getfield(L, table, name);
  double value = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return value;
}

static bool boolean_field(lua_State *L, int table, const char *name) {
  lua_getfield(L, table, name);
  bool value = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return value;
}

static void read_settings(lua_State *L, int config, lupe_command *c) {
  lua_getfield(L, config, "listen_host");
  snprintf(c->host, sizeof c->host, "%s", luaL_checkstring(L, -1));
  lua_getfield(L, config, "output");
  c->output = copy_string(L, -1);
  lua_getfield(L, config, "socket");
  c->socket = copy_string(L, -1);
  lua_getfield(L, config, "users");
  c->users = copy_string(L, -1);
  lua_pop(L, 2);
  lua_getfield(L, config, "record");
  lua_getfield(L, config, "report");
  c->end_wanted = strcmp(luaL_checkstring(L, -1), "none") != 0 || !lua_isnil(L, -2);
  lua_pop(L, 4);
  c->port = (uint16_t)number_field(L, config, "listen_port");
  c->port_given = boolean_field(L, config, "listen_given");
  c->profile = boolean_field(L, config, "enable_profiling");
  c->require = boolean_field(L, config, "require");
  c->duration_s = number_field(L, config, "duration_secs");
  c->heap_interval_ms = (uint32_t)(number_field(L, config, "heap_interval_secs") * 1e3);
  c->cpu_hz = (uint32_t)number_field(L, config, "cpu_hz");
  c->wall_hz = (uint32_t)number_field(L, config, "wall_hz");
  c->memory_interval_ms = (uint32_t)(number_field(L, config, "memory_interval_secs") * 1e3);
}

static int parse(lua_State *L) {
  parse_args *a = lua_touserdata(L, 1);
  lupe_command *c = &a->command;
  lua_getglobal(L, "require");
  lua_pushliteral(L, "lupe.cli");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "parse");
  lua_createtable(L, a->argc, 0);
  for (int i = 1; i < a->argc; i++) {
    lua_pushstring(L, a->argv[i]);
    lua_rawseti(L, -2, i);
  }
  lua_pushcfunction(L, environment_variable);
  lua_call(L, 2, 3);
  int result = lua_gettop(L) - 2;
  if (lua_isnil(L, result)) {
    const char *message = luaL_checkstring(L, result + 1);
    bool is_help = strchr(message, '\n') != NULL; /* the overview needs no "lupe:" before it */
    lua_pushfstring(L, is_help ? "%s" : "lupe: %s\n", message);
    c->text = copy_string(L, -1);
    c->exit_code = (int)luaL_checkinteger(L, result + 2);
    return 0;
  }
  lua_getfield(L, result, "command");
  const char *name = luaL_checkstring(L, -1);
  if (strcmp(name, "version") == 0) {
    c->text = strdup("lupe " LUPE_VERSION "\n");
  } else if (strcmp(name, "help") == 0) {
    lua_getfield(L, result, "text");
    c->text = copy_string(L, -1);
  } else {
    lua_getfield(L, result, "config");
    read_settings(L, lua_gettop(L), c);
    lua_setfield(L, LUA_REGISTRYINDEX, LUPE_CONFIG_KEY);
    c->serve = strcmp(name, "serve") == 0;
    c->offline = !c->serve && strcmp(name, "run") != 0;
    if (c->serve) {
      /* its settings are all there is */
    } else if (c->offline) {
      lua_pushvalue(L, result);
      lua_setfield(L, LUA_REGISTRYINDEX, LUPE_OFFLINE_KEY);
    } else {
      lua_getfield(L, result, "argv");
      c->argv = a->argv + a->argc - lua_objlen(L, -1); /* always the last words */
    }
  }
  return 0;
}

lupe_status lupe_command_parse(lupe_vm *vm, int argc, char **argv, lupe_command *out, char *error,
                               size_t error_bytes) {
  parse_args a = {.argc = argc, .argv = argv};
  lupe_status status = lupe_vm_run(vm, parse, &a, error, error_bytes);
  if (status == LUPE_OK) {
    *out = a.command;
  } else {
    lupe_command_clear(&a.command);
  }
  return status;
}

void lupe_command_clear(lupe_command *c) {
  free(c->text);
  free(c->output);
  free(c->socket);
  free(c->users);
  *c = (lupe_command){0};
}

/* -- the environment -------------------------------------------------------------------------- */

typedef struct environment_args {
  const lupe_paths *paths;
  const char *socket;
  char **environment;
  char *refusal;
} environment_args;

static void set_field(lua_State *L, const char *name, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

/* Whether the table at `set` replaces `entry` ("NAME=value"). */
static bool replaced(lua_State *L, int set, const char *entry) {
  lua_pushlstring(L, entry, strcspn(entry, "="));
  lua_rawget(L, set);
  bool found = !lua_isnil(L, -1);
  lua_pop(L, 1);
  return found;
}

static char *joined(lua_State *L, const char *name, const char *value) {
  char *entry;
  if (asprintf(&entry, "%s=%s", name, value) < 0) luaL_error(L, "out of memory");
  return entry;
}

static void build(lua_State *L, int set, environment_args *a) {
  size_t count = 0, added = 0;
  while (environ[count]) count++;
  for (lua_pushnil(L); lua_next(L, set); lua_pop(L, 1)) added++;
  a->environment = calloc(count + added + 1, sizeof *a->environment);
  if (!a->environment) {
    luaL_error(L, "out of memory");
    return; /* never reached: luaL_error does not return */
  }
  char **next = a->environment;
  for (char **entry = environ; *entry; entry++) {
    if (replaced(L, set, *entry)) continue;
    *next = strdup(*entry);
    if (!*next++) luaL_error(L, "out of memory");
  }
  for (lua_pushnil(L); lua_next(L, set); lua_pop(L, 1)) {
    *next++ = joined(L, luaL_checkstring(L, -2), luaL_checkstring(L, -1));
  }
}

static int make_environment(lua_State *L) {
  environment_args *a = lua_touserdata(L, 1);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "lupe.launch");
  lua_call(L, 1, 1);
  lua_getfield(L, -1, "environment");
  lua_getfield(L, LUA_REGISTRYINDEX, LUPE_CONFIG_KEY);
  lua_createtable(L, 0, 2);
  set_field(L, "MALLOC_CONF", getenv("MALLOC_CONF"));
  set_field(L, "LD_PRELOAD", getenv("LD_PRELOAD"));
  lua_createtable(L, 0, 3);
  set_field(L, "agent", a->paths->agent);
  set_field(L, "socket", a->socket);
  set_field(L, "jemalloc", a->paths->jemalloc[0] ? a->paths->jemalloc : NULL);
  lua_call(L, 3, 2);
  if (lua_isnil(L, -2)) {
    a->refusal = copy_string(L, -1);
    return 0;
  }
  lua_pop(L, 1);
  lua_getfield(L, -1, "warnings");
  for (size_t i = 1; i <= lua_objlen(L, -1); i++) {
    lua_rawgeti(L, -1, (int)i);
    fprintf(stderr, "lupe: %s\n", luaL_checkstring(L, -1));
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  lua_getfield(L, -1, "set");
  build(L, lua_gettop(L), a);
  return 0;
}

lupe_status lupe_command_environment(lupe_vm *vm, const lupe_paths *paths, const char *socket, char ***out,
                                     char *error, size_t error_bytes) {
  environment_args a = {.paths = paths, .socket = socket};
  lupe_status status = lupe_vm_run(vm, make_environment, &a, error, error_bytes);
  if (status == LUPE_OK && a.refusal) {
    snprintf(error, error_bytes, "%s", a.refusal);
    status = LUPE_EINVAL;
  }
  free(a.refusal);
  if (status == LUPE_OK) {
    *out = a.environment;
  } else {
    lupe_command_free_environment(a.environment);
  }
  return status;
}

void lupe_command_free_environment(char **environment) {
  if (!environment) return;
  for (char **entry = environment; *entry; entry++) free(*entry);
  free(environment);
}

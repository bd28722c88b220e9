#include "core/http_bridge.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADERS_MAX = 32 };
#define REQUEST_TYPE "lupe.request"

typedef struct call {
  int app;
  lupe_http_request *request;
} call;

/* The answer that Lua owes; a request that Lua forgets is answered when its userdata is collected. */
typedef struct owed {
  lupe_http_request *request;
} owed;

static void respond_plainly(lupe_http_request *request, int status, const char *text) {
  lupe_http_header header = {"Content-Type", "application/problem+json"};
  if (lupe_http_respond(request, status, &header, 1, text, strlen(text)) != LUPE_OK) {
    fprintf(stderr, "lupe: a request could not be answered: out of memory\n");
  }
}

static const char lost_answer[] =
    "{\"type\":\"about:blank\",\"title\":\"Internal Server Error\",\"status\":500,"
    "\"detail\":\"the route ended without an answer; lupe's log says why\"}\n";

static int collect_owed(lua_State *L) {
  owed *o = lua_touserdata(L, 1);
  if (o->request) respond_plainly(o->request, 500, lost_answer);
  o->request = NULL;
  return 0;
}

static size_t headers_of(lua_State *L, int index, lupe_http_header headers[HEADERS_MAX]) {
  size_t count = 0;
  if (lua_isnoneornil(L, index)) return 0;
  luaL_checktype(L, index, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "a header's name must be a string");
    if (count == HEADERS_MAX) luaL_error(L, "more than %d headers", HEADERS_MAX);
    lua_pushvalue(L, -1);
    headers[count].name = lua_tostring(L, -3);
    headers[count].value = luaL_checkstring(L, -1);
    count++;
    lua_pushvalue(L, -1);
    lua_rawseti(L, lua_upvalueindex(2), (int)count); /* keeps a number's text alive until it is sent */
    lua_pop(L, 1);
  }
  return count;
}

/* respond(status, headers, body string | { file = path }) */
static int respond(lua_State *L) {
  owed *o = lua_touserdata(L, lua_upvalueindex(1));
  if (!o->request) return luaL_error(L, "this request was answered already");
  int status = (int)luaL_checkinteger(L, 1);
  lupe_http_header headers[HEADERS_MAX];
  size_t count = headers_of(L, 2, headers);
  lupe_status result;
  if (lua_istable(L, 3)) {
    lua_getfield(L, 3, "file");
    const char *path = luaL_checkstring(L, -1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a fifo does not keep the loop waiting */
    if (fd < 0) return luaL_error(L, "%s: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
      close(fd);
      return luaL_error(L, "%s: not a file", path);
    }
    result = lupe_http_respond_file(o->request, status, headers, count, fd, (uint64_t)st.st_size);
    if (result != LUPE_OK) close(fd);
  } else {
    size_t bytes = 0;
    const char *body = luaL_optlstring(L, 3, "", &bytes);
    result = lupe_http_respond(o->request, status, headers, count, body, bytes);
  }
  if (result != LUPE_OK) return luaL_error(L, "cannot answer with this: %s", lupe_status_text(result));
  o->request = NULL;
  return 0;
}

static void add_header(void *arg, const char *name, const char *value) {
  lua_State *L = arg;
  char lower[128];
  size_t n = 0;
  for (; name[n] && n < sizeof lower - 1; n++) {
    lower[n] = (char)(name[n] >= 'A' && name[n] <= 'Z' ? name[n] + ('a' - 'A') : name[n]);
  }
  lua_pushlstring(L, lower, n);
  lua_rawget(L, -2);
  int known = !lua_isnil(L, -1);
  lua_pop(L, 1);
  if (known) return; /* the first of several counts */
  lua_pushlstring(L, lower, n);
  lua_pushstring(L, value);
  lua_rawset(L, -3);
}

static void set_string(lua_State *L, const char *name, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

static int call_handle(lua_State *L) {
  call *c = lua_touserdata(L, 1);
  lupe_http_request *request = c->request;
  lua_rawgeti(L, LUA_REGISTRYINDEX, c->app);
  lua_getfield(L, -1, "handle");
  lua_remove(L, -2);
  lua_createtable(L, 0, 8);
  set_string(L, "method", request->method);
  set_string(L, "path", request->path);
  set_string(L, "query", request->query);
  set_string(L, "peer", request->peer);
  lua_pushlstring(L, request->body, request->body_bytes);
  lua_setfield(L, -2, "body");
  lua_pushboolean(L, request->too_large);
  lua_setfield(L, -2, "too_large");
  lua_createtable(L, 0, 8);
  lupe_http_request_headers(request, add_header, L);
  lua_setfield(L, -2, "headers");

  owed *o = lua_newuserdata(L, sizeof *o);
  o->request = NULL;
  if (luaL_newmetatable(L, REQUEST_TYPE)) {
    lua_pushcfunction(L, collect_owed);
    lua_setfield(L, -2, "__gc");
  }
  lua_setmetatable(L, -2);
  lua_newtable(L);
  lua_pushvalue(L, -2);
  lua_insert(L, -2);
  lua_pushcclosure(L, respond, 2);
  lua_remove(L, -2);
  o->request = request;
  c->request = NULL; /* from here on it is Lua's to answer */
  lua_call(L, 2, 0);
  return 0;
}

void lupe_http_bridge_handle(lupe_vm *vm, int app, lupe_http_request *request) {
  char error[LUPE_VM_ERROR_BYTES];
  call c = {.app = app, .request = request};
  if (lupe_vm_run(vm, call_handle, &c, error, sizeof error) != LUPE_OK) fprintf(stderr, "lupe: %s\n", error);
  if (c.request) respond_plainly(c.request, 500, lost_answer);
}

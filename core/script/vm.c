#include "core/script/vm.h"

#include <fcntl.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/script/bytecode.h"

enum {
  CALLERS_SHOWN = 8,
  MODULE_MAX_BYTES = 1 << 20,
};

struct lupe_vm {
  lua_State *L;
  size_t used_bytes, soft_bytes, hard_bytes;
  lua_Hook passed; /* NULL: no soft limit, or it was passed already */
  void (*refused)(lua_State *L);
  int handler_ref; /* registry: made once, so that a call allocates nothing before it is protected */
  int trampoline_ref;
  lua_CFunction body; /* what the trampoline runs next */
  void *body_arg;
  char error[LUPE_VM_ERROR_BYTES]; /* written by the handler, which must not allocate */
};

static void *allocate(void *ud, void *block, size_t old_bytes, size_t new_bytes) {
  lupe_vm *vm = ud;
  if (new_bytes == 0) {
    free(block);
    vm->used_bytes -= old_bytes;
    return NULL;
  }
  if (!block) old_bytes = 0;
  size_t after = vm->used_bytes - old_bytes + new_bytes;
  bool grows = new_bytes > old_bytes;
  if (grows && vm->hard_bytes && after > vm->hard_bytes) {
    if (vm->refused && vm->L) vm->refused(vm->L);
    return NULL;
  }
  void *moved = realloc(block, new_bytes);
  if (!moved) return NULL;
  vm->used_bytes = after;
  if (grows && vm->passed && after > vm->soft_bytes && vm->L) {
    lua_Hook passed = vm->passed;
    vm->passed = NULL;
    lua_sethook(vm->L, passed, LUA_MASKCOUNT,
                1); /* touches no Lua memory: it may be called from signal handlers */
  }
  return moved;
}

/* Only an error of ours gets here: C that touched the state outside a protected call. */
static int panic(lua_State *L) {
  const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "(no text)";
  fprintf(stderr, "lupe: Lua error outside of any protected call: %s\n", text);
  fflush(stderr);
  abort();
}

static size_t append(char *out, size_t at, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int n = vsnprintf(out + at, LUPE_VM_ERROR_BYTES - at, format, args);
  va_end(args);
  if (n < 0) return at;
  return at + (size_t)n < LUPE_VM_ERROR_BYTES ? at + (size_t)n : LUPE_VM_ERROR_BYTES - 1;
}

static const char *source_name(const lua_Debug *ar) {
  return *ar->source == '@' || *ar->source == '=' ? ar->source + 1 : ar->short_src;
}

/* The error handler: runs where the error was raised, so it sees who called. Allocates nothing. */
static int describe_error(lua_State *L) {
  lupe_vm *vm = lupe_vm_of(L);
  int type = lua_type(L, 1);
  const char *text = type == LUA_TSTRING ? lua_tostring(L, 1) : NULL;
  size_t at = 0;
  int shown = 0;
  lua_Debug ar;
  for (int level = 1; shown < CALLERS_SHOWN + 1 && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0) continue;
    if (shown++ == 0) {
      size_t short_length = strlen(ar.short_src);
      if (!text) {
        at = append(vm->error, at, "%s:%d: (error object is a %s value)", source_name(&ar), ar.currentline,
                    lua_typename(L, type));
      } else if (strncmp(text, ar.short_src, short_length) == 0 && text[short_length] == ':') {
        at = append(vm->error, at, "%s%s", source_name(&ar), text + short_length); /* undo the shortening */
      } else if (strcmp(text, "stack overflow") == 0) { /* the one error of Lua's own without a place */
        at = append(vm->error, at, "%s:%d: %s", source_name(&ar), ar.currentline, text);
      } else {
        at = append(vm->error, at, "%s", text);
      }
    } else {
      at = append(vm->error, at, "\n  called from %s:%d", source_name(&ar), ar.currentline);
    }
  }
  if (shown == 0) {
    if (text) {
      append(vm->error, at, "%s", text);
    } else {
      append(vm->error, at, "(error object is a %s value)", lua_typename(L, type));
    }
  }
  return 0;
}

static int trampoline(lua_State *L) {
  lupe_vm *vm = lupe_vm_of(L);
  lua_CFunction body = vm->body;
  lua_settop(L, 0);
  if (vm->body_arg) {
    lua_pushlightuserdata(L, vm->body_arg);
  } else {
    lua_pushnil(L); /* a light userdata may take memory in LuaJIT: none where none is left */
  }
  return body(L);
}

/* Folders that LuaJIT was built with, without those of the environment and the working folder. */
static void push_system_cpath(lua_State *L, const char *cpath) {
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  bool first = true;
  while (*cpath) {
    size_t length = strcspn(cpath, ";");
    if (length > 0 && *cpath == '/') {
      if (!first) luaL_addchar(&buffer, ';');
      luaL_addlstring(&buffer, cpath, length);
      first = false;
    }
    cpath += length + (cpath[length] == ';');
  }
  luaL_pushresult(&buffer);
}

/* In package.loaders, before the one for files: lupe's own modules, from bytecode where there is some of the
 * file's very text. A module that is not there is for the others to find. */
static int find_own_module(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushliteral(L, "/");
  luaL_gsub(L, name, ".", "/");
  lua_pushliteral(L, ".lua");
  lua_concat(L, 4);
  const char *path = lua_tostring(L, -1);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat st;
  if (fd < 0) return 0;
  if (fstat(fd, &st) != 0 || st.st_size <= 0 || st.st_size > MODULE_MAX_BYTES) {
    close(fd);
    return 0;
  }
  char *text = lua_newuserdata(L, (size_t)st.st_size);
  ssize_t n = read(fd, text, (size_t)st.st_size);
  close(fd);
  return n == st.st_size && lupe__bytecode_push(L, name, path, text, (size_t)n) ? 1 : 0;
}

static void add_loader(lua_State *L, const char *lua_dir) {
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "loaders");
  for (int i = (int)lua_objlen(L, -1); i >= 2; i--) { /* the first is package.preload's */
    lua_rawgeti(L, -1, i);
    lua_rawseti(L, -2, i + 1);
  }
  lua_pushstring(L, lua_dir);
  lua_pushcclosure(L, find_own_module, 1);
  lua_rawseti(L, -2, 2);
  lua_pop(L, 2);
}

static int open_state(lua_State *L) {
  const char *lua_dir = lua_touserdata(L, 1);
  lua_pushboolean(L, 1);
  lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  luaL_openlibs(L);
  add_loader(L, lua_dir);
  lua_getglobal(L, "package");
  lua_pushfstring(L, "%s/?.lua;%s/?/init.lua", lua_dir, lua_dir);
  lua_setfield(L, -2, "path");
  lua_getfield(L, -1, "cpath");
  push_system_cpath(L, lua_tostring(L, -1));
  lua_setfield(L, -3, "cpath");
  return 0;
}

/* The first protected step, by lua_cpcall: the registry has nothing of ours yet. */
static int prepare(lua_State *L) {
  lupe_vm *vm = lua_touserdata(L, 1);
  lua_pushcfunction(L, describe_error);
  vm->handler_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_pushcfunction(L, trampoline);
  vm->trampoline_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  return 0;
}

lupe_status lupe_vm_create(lupe_vm **out, const char *lua_dir, size_t memory_limit_bytes) {
  if (!lua_dir || !*lua_dir || strpbrk(lua_dir, ";?")) return LUPE_EINVAL;
  lupe_status status = LUPE_ENOMEM;
  lupe_vm *vm = calloc(1, sizeof *vm);
  if (!vm) goto fail;
  lua_State *L = lua_newstate(allocate, vm);
  if (!L) goto fail_state;
  vm->L = L;
  lua_atpanic(L, panic);
  if (lua_cpcall(L, prepare, vm) != 0) goto fail_prepare;
  char *dir = strdup(lua_dir);
  if (!dir) goto fail_prepare;
  status = lupe_vm_run(vm, open_state, dir, NULL, 0);
  free(dir);
  if (status != LUPE_OK) goto fail_prepare;
  status = LUPE_ENOMEM;
  if (memory_limit_bytes && vm->used_bytes > memory_limit_bytes) goto fail_prepare;
  vm->hard_bytes =
      memory_limit_bytes; /* not before: LuaJIT crashes where memory ends while a state is being made */
  *out = vm;
  return LUPE_OK;

fail_prepare:
  lua_close(L);
fail_state:
  free(vm);
fail:
  return status;
}

void lupe_vm_free(lupe_vm *vm) {
  if (!vm) return;
  lua_close(vm->L);
  free(vm);
}

lua_State *lupe_vm_state(lupe_vm *vm) {
  return vm->L;
}

lupe_vm *lupe_vm_of(lua_State *L) {
  void *vm = NULL;
  lua_getallocf(L, &vm);
  return vm;
}

static int pcall_described(lupe_vm *vm, int nargs, int nresults) {
  lua_State *L = vm->L;
  int handler = lua_gettop(L) - nargs;
  lua_rawgeti(L, LUA_REGISTRYINDEX, vm->handler_ref);
  lua_insert(L, handler);
  int failed = lua_pcall(L, nargs, nresults, handler);
  lua_remove(L, handler);
  if (failed != 0) lua_pop(L, 1); /* the error value; its text is in vm->error */
  return failed;
}

static void push_body(lupe_vm *vm, lua_CFunction body, void *arg) {
  vm->body = body;
  vm->body_arg = arg;
  lua_rawgeti(vm->L, LUA_REGISTRYINDEX, vm->trampoline_ref);
}

static int collect(lua_State *L) {
  lua_gc(L, LUA_GCCOLLECT, 0);
  return 0;
}

lupe_status lupe_vm_call(lupe_vm *vm, int nargs, int nresults, char *error, size_t error_bytes) {
  int failed = pcall_described(vm, nargs, nresults);
  if (failed == 0) return LUPE_OK;
  if (failed == LUA_ERRMEM) {
    size_t used_bytes = vm->used_bytes;
    /* LuaJIT does not collect when an allocation fails; without this the next call would fail at once. */
    push_body(vm, collect, NULL);
    pcall_described(vm, 0, 0);
    snprintf(vm->error, sizeof vm->error, "not enough memory (%zu of %zu bytes in use)", used_bytes,
             vm->hard_bytes);
  } else if (failed == LUA_ERRERR) {
    snprintf(vm->error, sizeof vm->error, "error in error handling");
  }
  if (error && error_bytes > 0) snprintf(error, error_bytes, "%s", vm->error);
  return failed == LUA_ERRMEM ? LUPE_ENOMEM : LUPE_ESCRIPT;
}

lupe_status lupe_vm_run(lupe_vm *vm, lua_CFunction body, void *arg, char *error, size_t error_bytes) {
  push_body(vm, body, arg);
  return lupe_vm_call(vm, 0, 0, error, error_bytes);
}

static int require_module(lua_State *L) {
  const char *module = lua_touserdata(L, 1);
  lua_getglobal(L, "require");
  lua_pushstring(L, module);
  lua_call(L, 1, 0);
  return 0;
}

lupe_status lupe_vm_require(lupe_vm *vm, const char *module, char *error, size_t error_bytes) {
  return lupe_vm_run(vm, require_module, (void *)module, error, error_bytes);
}

size_t lupe_vm_memory_bytes(const lupe_vm *vm) {
  return vm->used_bytes;
}

void lupe_vm_set_limits(lupe_vm *vm, size_t soft_bytes, size_t hard_bytes, lua_Hook passed,
                        void (*refused)(lua_State *L)) {
  vm->soft_bytes = soft_bytes;
  vm->hard_bytes = hard_bytes;
  vm->refused = refused;
  vm->passed = soft_bytes ? passed : NULL;
}

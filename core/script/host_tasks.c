/* host_tasks.c -- the host functions that take time: their callbacks come later, on the loop. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/script/host_internal.h"

const char *lupe__errno_name(int error) {
  const char *name = strerrorname_np(error);
  return name ? name : "EIO";
}

/* -- take_snapshot(pid | nil, window_ms | nil, callback(error, address, size, keepalive)) --------
 * take_program likewise: of the program whose root has this pid. */

typedef struct snapshot_result {
  lupe_status status;
  lupe_snapshot *snapshot;
} snapshot_result;

static int push_snapshot_result(lua_State *L, lupe__task *t) {
  snapshot_result *r = t->arg;
  if (r->status != LUPE_OK) {
    lua_pushstring(L, lupe_status_text(r->status));
    return 1;
  }
  lua_pushnil(L);
  lupe_host_push_snapshot(L, r->snapshot);
  r->snapshot = NULL;
  return 4;
}

static void on_snapshot(void *arg, lupe_status status, lupe_snapshot *snapshot) {
  snapshot_result result = {status, snapshot};
  lupe__task_finish(arg, push_snapshot_result, &result);
  lupe_snapshot_release(result.snapshot);
}

static int take(lua_State *L, int32_t pid) {
  lua_Number window_ms = luaL_optnumber(L, 2, 0);
  luaL_argcheck(L, window_ms >= 0 && window_ms <= LUPE_WINDOW_MAX_MS, 2, "0 to 600,000 ms");
  lupe__task *t = lupe__task_create(L, 3);
  lupe_status status =
      lupe_collector_snapshot(t->host->services.collector, pid, (uint32_t)window_ms, on_snapshot, t);
  if (status != LUPE_OK) {
    lupe__task_abandon(L, t);
    lua_pushvalue(L, 3);
    lua_pushstring(L, lupe_status_text(status));
    lua_call(L, 1, 0);
  }
  return 0;
}

static int take_snapshot(lua_State *L) {
  return take(L, (int32_t)luaL_optinteger(L, 1, LUPE_TARGET_ALL_LIVE));
}

static int take_program(lua_State *L) {
  return take(L, (int32_t)luaL_checkinteger(L, 1) | LUPE_TARGET_TREE);
}

/* -- worker(request, attach, deadline_ms, callback(error, reply)), routes_worker likewise -------- */

typedef struct worker_result {
  lupe_worker_outcome outcome;
  const char *text;
  size_t bytes;
} worker_result;

static int push_worker_result(lua_State *L, lupe__task *t) {
  static const char *const kinds[] = {
      [LUPE_WORKER_DEADLINE] = "deadline",
      [LUPE_WORKER_STARVED] = "starved",
      [LUPE_WORKER_DIED] = "died",
      [LUPE_WORKER_CLOSED] = "closed",
      [LUPE_WORKER_UNAVAILABLE] = "unavailable",
  };
  worker_result *r = t->arg;
  if (r->outcome == LUPE_WORKER_REPLIED) {
    lua_pushnil(L);
    lua_pushlstring(L, r->text, r->bytes);
    return 2;
  }
  lua_createtable(L, 0, 2);
  lua_pushstring(L, kinds[r->outcome]);
  lua_setfield(L, -2, "kind");
  lua_pushlstring(L, r->text, r->bytes);
  lua_setfield(L, -2, "message");
  return 1;
}

static void on_worker(void *arg, lupe_worker_outcome outcome, const char *text, size_t bytes) {
  worker_result result = {outcome, text, bytes};
  lupe__task_finish(arg, push_worker_result, &result);
}

/* What goes along with a call: nil, a snapshot's keepalive, or { file = path } (made here, 0600). */
typedef struct attachment {
  int fd; /* -1: none */
  bool owned;
  int error; /* errno of a file that could not be made */
} attachment;

static attachment attach(lua_State *L, int index) {
  attachment a = {.fd = -1};
  if (lua_isnoneornil(L, index)) return a;
  if (lua_isuserdata(L, index)) {
    lupe_snapshot **s = luaL_checkudata(L, index, LUPE__SNAPSHOT_TYPE);
    if (!*s) luaL_error(L, "the snapshot was released");
    a.fd = lupe_snapshot_fd(*s);
    return a;
  }
  luaL_checktype(L, index, LUA_TTABLE);
  lua_getfield(L, index, "file");
  a.fd = open(luaL_checkstring(L, -1), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (a.fd < 0) a.error = errno;
  a.owned = a.fd >= 0;
  lua_pop(L, 1);
  return a;
}

static int refuse_file(lua_State *L, int callback, int error) {
  lua_pushvalue(L, callback);
  lua_createtable(L, 0, 3);
  lua_pushliteral(L, "file");
  lua_setfield(L, -2, "kind");
  lua_pushstring(L, lupe__errno_name(error));
  lua_setfield(L, -2, "code");
  lua_pushstring(L, strerror(error));
  lua_setfield(L, -2, "message");
  lua_call(L, 1, 0);
  return 0;
}

static int call_worker(lua_State *L, lupe_worker *process) {
  size_t bytes;
  const char *request = luaL_checklstring(L, 1, &bytes);
  uint64_t deadline_ms = (uint64_t)luaL_checknumber(L, 3);
  luaL_checktype(L, 4, LUA_TFUNCTION);
  attachment a = attach(L, 2);
  if (a.error) return refuse_file(L, 4, a.error);
  lupe__task *t = lupe__task_create(L, 4);
  lupe_status status = lupe_worker_call(process, request, bytes, a.fd, deadline_ms, on_worker, t);
  if (a.owned) close(a.fd);
  if (status != LUPE_OK) {
    lupe__task_abandon(L, t);
    return luaL_error(L, "the worker takes no call: %s", lupe_status_text(status));
  }
  return 0;
}

static int worker(lua_State *L) {
  return call_worker(L, lupe__host_of(L)->services.worker);
}

static int routes_worker(lua_State *L) {
  return call_worker(L, lupe__host_of(L)->services.routes_worker);
}

/* -- commit_file(temporary, final, callback(error, code)): EEXIST where `final` exists already; replace_file
 * does not mind ---------------------------------------------------------------------------------- */

typedef struct commit {
  lupe_work work;
  lupe__task *task;
  int error; /* errno */
  bool replaces;
  char temporary[PATH_MAX], final[PATH_MAX];
} commit;

static int sync_path(const char *path, int flags) {
  int fd = open(path, flags | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error;
}

static void commit_work(lupe_work *w) {
  commit *c = w->data;
  c->error = sync_path(c->temporary, O_WRONLY);
  if (c->error == 0 &&
      renameat2(AT_FDCWD, c->temporary, AT_FDCWD, c->final, c->replaces ? 0 : RENAME_NOREPLACE) != 0)
    c->error = errno;
  if (c->error != 0) {
    unlink(c->temporary);
    return;
  }
  char folder[PATH_MAX];
  memcpy(folder, c->final, sizeof folder);
  char *slash = strrchr(folder, '/');
  if (slash) *slash = '\0';
  c->error = sync_path(slash && slash != folder ? folder : slash ? "/" : ".", O_RDONLY | O_DIRECTORY);
}

static int push_commit_result(lua_State *L, lupe__task *t) {
  commit *c = t->arg;
  if (c->error == 0) {
    lua_pushnil(L);
    return 1;
  }
  lua_pushfstring(L, "%s: %s", c->final, strerror(c->error));
  lua_pushstring(L, lupe__errno_name(c->error));
  return 2;
}

static void commit_done(lupe_work *w, lupe_status status) {
  commit *c = w->data;
  if (status != LUPE_OK) {
    c->error = ECANCELED;
    unlink(c->temporary);
  }
  lupe__task_finish(c->task, push_commit_result, c);
  free(c);
}

static void check_path(lua_State *L, int index, char out[PATH_MAX]) {
  size_t bytes;
  const char *path = luaL_checklstring(L, index, &bytes);
  luaL_argcheck(L, bytes > 0 && bytes < PATH_MAX && !memchr(path, '\0', bytes), index, "not a path");
  memcpy(out, path, bytes + 1);
}

static int commit_to(lua_State *L, bool replaces) {
  commit *c = lua_newuserdata(L, sizeof *c); /* filled where an error cannot leak it */
  check_path(L, 1, c->temporary);
  check_path(L, 2, c->final);
  lupe__task *t = lupe__task_create(L, 3);
  commit *kept = malloc(sizeof *kept);
  if (!kept) {
    lupe__task_abandon(L, t);
    return luaL_error(L, "out of memory");
  }
  memcpy(kept, c, sizeof *kept);
  kept->error = 0;
  kept->replaces = replaces;
  kept->task = t;
  kept->work.data = kept;
  lupe_pool_queue(t->host->services.pool, &kept->work, commit_work, commit_done);
  return 0;
}

static int commit_file(lua_State *L) {
  return commit_to(L, false);
}

static int replace_file(lua_State *L) {
  return commit_to(L, true);
}

/* -- small file questions: true or a value; nil, text, code ------------------------------------ */

int lupe__failed(lua_State *L, const char *path, int error) {
  lua_pushnil(L);
  lua_pushfstring(L, "%s: %s", path, strerror(error));
  lua_pushstring(L, lupe__errno_name(error));
  return 3;
}

static int remove_file(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  if (unlink(path) != 0) return lupe__failed(L, path, errno);
  lua_pushboolean(L, 1);
  return 1;
}

/* mkdir(path, mode): with its parents; an existing folder is fine if it is ours. */
static int make_folder(lua_State *L) {
  char path[PATH_MAX];
  check_path(L, 1, path);
  mode_t mode = (mode_t)luaL_checkinteger(L, 2);
  for (char *p = path + 1; *p; p++) {
    if (*p != '/') continue;
    *p = '\0';
    if (mkdir(path, 0755) != 0 && errno != EEXIST) return lupe__failed(L, path, errno);
    *p = '/';
  }
  if (mkdir(path, mode) != 0) {
    struct stat st;
    if (errno != EEXIST) return lupe__failed(L, path, errno);
    if (lstat(path, &st) != 0) return lupe__failed(L, path, errno);
    if (!S_ISDIR(st.st_mode)) return lupe__failed(L, path, ENOTDIR);
    if (st.st_uid != geteuid()) return lupe__failed(L, path, EPERM);
    if ((st.st_mode & 0777) != mode && chmod(path, mode) != 0) return lupe__failed(L, path, errno);
  }
  lua_pushboolean(L, 1);
  return 1;
}

static int close_folder(lua_State *L) {
  DIR **folder = lua_touserdata(L, 1);
  if (*folder) closedir(*folder);
  *folder = NULL;
  return 0;
}

static int list_folder(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  DIR **folder = lua_newuserdata(L, sizeof(DIR *));
  *folder = NULL;
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, close_folder);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  *folder = opendir(path);
  if (!*folder) return lupe__failed(L, path, errno);
  lua_newtable(L);
  int count = 0;
  for (struct dirent *e; (e = readdir(*folder));) {
    struct stat st;
    if (fstatat(dirfd(*folder), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode)) continue;
    lua_createtable(L, 0, 5);
    lua_pushstring(L, e->d_name);
    lua_setfield(L, -2, "name");
    lua_pushnumber(L, (double)st.st_size);
    lua_setfield(L, -2, "size");
    lua_pushnumber(L, (double)st.st_mtim.tv_sec * 1e3 + (double)st.st_mtim.tv_nsec / 1e6);
    lua_setfield(L, -2, "mtime_ms");
    lua_pushinteger(L, (lua_Integer)(st.st_mode & 07777));
    lua_setfield(L, -2, "mode");
    lua_pushnumber(L, st.st_uid);
    lua_setfield(L, -2, "uid");
    lua_rawseti(L, -2, ++count);
  }
  closedir(*folder);
  *folder = NULL;
  return 1;
}

const luaL_Reg lupe__host_run_tasks[] = {
    {"take_snapshot", take_snapshot},
    {"take_program", take_program},
    {"routes_worker", routes_worker},
    {NULL, NULL},
};

const luaL_Reg lupe__host_tasks[] = {
    {"worker", worker},
    {"commit_file", commit_file},
    {"replace_file", replace_file},
    {"unlink", remove_file},
    {"mkdir", make_folder},
    {"list", list_folder},
    {NULL, NULL},
};

/* host_recordings.c -- recordings for Lua: writing them, a task, and reading them, which blocks and is for
 * commands that run no program. */
#include <errno.h>
#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/script/host_internal.h"
#include "core/store/recording.h"

#define RECORDER_TYPE "lupe.recorder"
#define RECORDING_TYPE "lupe.recording"

/* "PATH: text" and a code. */
static void push_failure(lua_State *L, const char *path, lupe_status status, int error, const char *why) {
  const char *text = why && why[0] ? why : lupe_status_text(status);
  const char *code = "EINVAL";
  if (status == LUPE_EIO || status == LUPE_ENOSPC) {
    text = strerror(error);
    code = lupe__errno_name(error);
  } else if (status == LUPE_ECORRUPT) {
    code = "ECORRUPT";
  } else if (status == LUPE_EVERSION) {
    code = "EVERSION";
  } else if (status == LUPE_ENOMEM) {
    code = "ENOMEM";
  }
  lua_pushfstring(L, "%s: %s", path, text);
  lua_pushstring(L, code);
}

/* -- writing ------------------------------------------------------------------------------------ */

typedef struct recorder_box {
  lupe_recorder *recorder;
  bool busy;
} recorder_box;

static int free_recorder(lua_State *L) {
  recorder_box *box = lua_touserdata(L, 1);
  lupe_recorder_free(box->recorder);
  box->recorder = NULL;
  return 0;
}

/* recorder(path, about) -> a recorder; or nil, text, code */
static int recorder(lua_State *L) {
  size_t bytes;
  const char *path = luaL_checkstring(L, 1), *about = luaL_checklstring(L, 2, &bytes);
  recorder_box *box = lua_newuserdata(L, sizeof *box);
  *box = (recorder_box){0};
  luaL_getmetatable(L, RECORDER_TYPE);
  lua_setmetatable(L, -2);
  lupe_status status = lupe_recorder_create(&box->recorder, path, about, bytes);
  if (status == LUPE_OK) return 1;
  int error = errno;
  lua_pushnil(L);
  push_failure(L, path, status, error, NULL);
  return 3;
}

typedef struct writing {
  lupe_work work;
  lupe__task *task;
  recorder_box *box;
  int box_ref; /* registry: the box outlives the work */
  lupe_snapshot *snapshot;
  bool last;
  lupe_status status;
  int error;
  size_t notes_bytes;
  char notes[];
} writing;

static void write_work(lupe_work *work) {
  writing *w = work->data;
  w->status = lupe_recorder_write(w->box->recorder, w->snapshot, w->notes, w->notes_bytes, w->last);
  w->error = errno;
}

static int push_written(lua_State *L, lupe__task *t) {
  writing *w = t->arg;
  luaL_unref(L, LUA_REGISTRYINDEX, w->box_ref);
  if (w->status == LUPE_OK) {
    lua_pushnil(L);
    lua_pushnumber(L, (lua_Number)lupe_recorder_bytes(w->box->recorder));
  } else {
    push_failure(L, lupe_recorder_path(w->box->recorder), w->status, w->error, NULL);
  }
  return 2;
}

static void write_done(lupe_work *work, lupe_status status) {
  writing *w = work->data;
  if (status != LUPE_OK) w->status = LUPE_EIO, w->error = ECANCELED;
  w->box->busy = false;
  lupe__task_finish(w->task, push_written, w);
  lupe_snapshot_release(w->snapshot);
  free(w);
}

/* record(recorder, keepalive | nil, notes, last, callback(error, bytes or code)) */
static int record(lua_State *L) {
  recorder_box *box = luaL_checkudata(L, 1, RECORDER_TYPE);
  lupe_snapshot **s = lua_isnoneornil(L, 2) ? NULL : luaL_checkudata(L, 2, LUPE__SNAPSHOT_TYPE);
  size_t bytes;
  const char *notes = luaL_checklstring(L, 3, &bytes);
  luaL_argcheck(L, !s || *s, 2, "the snapshot was released");
  luaL_argcheck(L, !box->busy, 1, "it is writing: one frame at a time");
  lupe__task *t = lupe__task_create(L, 5);
  writing *w = malloc(sizeof *w + bytes);
  if (!w) {
    lupe__task_abandon(L, t);
    return luaL_error(L, "out of memory");
  }
  *w = (writing){.task = t, .box = box, .notes_bytes = bytes};
  w->last = lua_toboolean(L, 4);
  memcpy(w->notes, notes, bytes);
  w->snapshot = s ? lupe_snapshot_retain(*s) : NULL;
  w->work.data = w;
  box->busy = true;
  lua_pushvalue(L, 1);
  w->box_ref = luaL_ref(L, LUA_REGISTRYINDEX);
  lupe_pool_queue(t->host->services.pool, &w->work, write_work, write_done);
  return 0;
}

/* -- reading ------------------------------------------------------------------------------------ */

static int free_recording(lua_State *L) {
  lupe_recording **r = lua_touserdata(L, 1);
  lupe_recording_free(*r);
  *r = NULL;
  return 0;
}

/* open_recording(path) -> a recording, the text about it; or nil, text, code */
static int open_recording(lua_State *L) {
  const char *path = luaL_checkstring(L, 1), *why;
  lupe_recording **r = lua_newuserdata(L, sizeof *r);
  *r = NULL;
  luaL_getmetatable(L, RECORDING_TYPE);
  lua_setmetatable(L, -2);
  lupe_status status = lupe_recording_open(r, path, &why);
  if (status == LUPE_OK) {
    size_t bytes;
    const char *about = lupe_recording_about(*r, &bytes);
    lua_pushlstring(L, about, bytes);
    return 2;
  }
  int error = errno;
  lua_pushnil(L);
  push_failure(L, path, status, error, why);
  return 3;
}

static lupe_recording *check_recording(lua_State *L) {
  lupe_recording **r = luaL_checkudata(L, 1, RECORDING_TYPE);
  luaL_argcheck(L, *r, 1, "the recording was closed");
  return *r;
}

/* recording_frames(recording) -> array of { time_ms, block_bytes, packed_bytes, last }, and what cut the file
 * short, or nil */
static int recording_frames(lua_State *L) {
  const lupe_recording *r = check_recording(L);
  size_t count = lupe_recording_count(r);
  lua_createtable(L, (int)count, 0);
  for (size_t i = 0; i < count; i++) {
    const lupe_recording_frame *f = lupe_recording_at(r, i);
    lua_createtable(L, 0, 4);
    lua_pushnumber(L, f->time_ms);
    lua_setfield(L, -2, "time_ms");
    lua_pushnumber(L, (lua_Number)f->block_bytes);
    lua_setfield(L, -2, "block_bytes");
    lua_pushnumber(L, (lua_Number)f->packed_bytes);
    lua_setfield(L, -2, "packed_bytes");
    lua_pushboolean(L, f->last);
    lua_setfield(L, -2, "last");
    lua_rawseti(L, -2, (int)i + 1);
  }
  lua_pushstring(L, lupe_recording_ending(r));
  return 2;
}

/* recorded_frame(recording, index) -> notes, address, size, keepalive (the last three nil where it has no
 * snapshot); or nil, text, code */
static int recorded_frame(lua_State *L) {
  lupe_recording *r = check_recording(L);
  lua_Integer index = luaL_checkinteger(L, 2);
  luaL_argcheck(L, index >= 1 && (size_t)index <= lupe_recording_count(r), 2, "no such frame");
  /* Those before it go first: to Lua's collector each is a few bytes, whatever it weighs. */
  if (lupe_recording_at(r, (size_t)index - 1)->block_bytes > LUPE__LARGE_SNAPSHOT)
    lua_gc(L, LUA_GCCOLLECT, 0);
  lupe_snapshot *s;
  char *notes;
  const char *why;
  lupe_status status = lupe_recording_read(r, (size_t)index - 1, &s, &notes, &why);
  if (status != LUPE_OK) {
    lua_pushnil(L);
    const char *text = status == LUPE_EIO ? strerror(errno) : why[0] ? why : lupe_status_text(status);
    lua_pushstring(L, text);
    lua_pushstring(L, status == LUPE_EVERSION ? "EVERSION" : status == LUPE_ECORRUPT ? "ECORRUPT" : "EIO");
    return 3;
  }
  lua_pushstring(L, notes);
  free(notes);
  if (!s) return 1;
  lupe_host_push_snapshot(L, s);
  return 4;
}

/* snapshot_of(bytes) -> address, size, keepalive of a snapshot that was laid out elsewhere; or nil, text */
static int snapshot_of(lua_State *L) {
  size_t count;
  const char *bytes = luaL_checklstring(L, 1, &count), *why = "it cannot be kept";
  lupe_snapshot *s;
  void *block;
  lupe_status status = lupe__snapshot_create(count, &s, &block);
  if (status == LUPE_OK) {
    memcpy(block, bytes, count);
    status = lupe__snapshot_seal(s);
    if (status == LUPE_OK) status = lupe_snapshot_validate(lupe_snapshot_block(s), count, &why);
    if (status == LUPE_OK) {
      lupe_host_push_snapshot(L, s);
      return 3;
    }
    lupe_snapshot_release(s);
  }
  lua_pushnil(L);
  lua_pushfstring(L, "no snapshot: %s", why);
  return 2;
}

void lupe__host_add_recordings(lua_State *L) {
  luaL_newmetatable(L, RECORDER_TYPE);
  lua_pushcfunction(L, free_recorder);
  lua_setfield(L, -2, "__gc");
  luaL_newmetatable(L, RECORDING_TYPE);
  lua_pushcfunction(L, free_recording);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 2);
}

const luaL_Reg lupe__host_recordings[] = {
    {"recorder", recorder},
    {"record", record},
    {"open_recording", open_recording},
    {"recording_frames", recording_frames},
    {"recorded_frame", recorded_frame},
    {"snapshot_of", snapshot_of},
    {NULL, NULL},
};

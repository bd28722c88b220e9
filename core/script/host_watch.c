/* host_watch.c -- being told once that a directory changed. By inotify itself: what libuv asks of it for one
 * entry's name tells of every write to every file beside. */
#include <errno.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "core/script/host_internal.h"

enum {
  WATCHES_MAX = 64,
  EVENTS_BYTES = 4096, /* taken at a time, so that a busy directory cannot hold the loop */
  NAMES = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF,
};

/* The kernel has one watch of an inode for each descriptor, whoever asked: so there is one descriptor for
 * each set of events. */
static const uint32_t events_of[LUPE__NOTIFIERS] = {
    [LUPE__OF_A_NAME] = NAMES,
    [LUPE__OF_ALL] = NAMES | IN_MODIFY | IN_ATTRIB,
};

struct lupe__notifier {
  uv_poll_t poll; /* first: uv's handle is the struct */
  lupe_host *host;
  int fd;
};

/* One of the host's `watches`. Its timer is never started: that it is ended is what calls back. */
typedef struct dir_watch {
  lupe__timer timer;
  lupe__notifier *notifier;
  int wd;
  uint32_t id;
  char name[NAME_MAX + 1]; /* the entry that counts; empty: all do */
} dir_watch;

static void on_notifier_closed(uv_handle_t *handle) {
  free(handle);
}

static void end(lupe_host *h, dir_watch *w) {
  const lupe__notifier *n = w->notifier;
  int wd = w->wd;
  lupe__timer_end(&w->timer);
  h->watch_count--;
  for (lupe__timer *t = h->watches; t; t = t->next) {
    const dir_watch *other = (dir_watch *)t;
    if (other->notifier == n && other->wd == wd) return;
  }
  inotify_rm_watch(n->fd, wd);
}

/* Without a name it is about the directory itself. What was lost (IN_Q_OVERFLOW) may have been about any. */
static bool concerns(const struct inotify_event *e, const dir_watch *w) {
  if (e->mask & IN_Q_OVERFLOW) return true;
  return e->wd == w->wd && (!w->name[0] || e->len == 0 || strcmp(e->name, w->name) == 0);
}

static void on_events(uv_poll_t *poll, int status, int readable) {
  lupe__notifier *n = (lupe__notifier *)poll;
  _Alignas(struct inotify_event) char events[EVENTS_BYTES];
  (void)status, (void)readable;
  ssize_t bytes = read(n->fd, events, sizeof events);
  for (const char *at = events; at < events + bytes;) {
    const struct inotify_event *e = (const struct inotify_event *)at;
    at += sizeof *e + e->len;
    for (lupe__timer *t = n->host->watches, *next; t; t = next) {
      next = t->next;
      dir_watch *w = (dir_watch *)t;
      if (w->notifier == n && concerns(e, w)) end(n->host, w);
    }
  }
}

/* Returns 0 or errno. */
static int start_notifier(lupe_host *h, lupe__notifier **out) {
  lupe__notifier *n = calloc(1, sizeof *n);
  if (!n) return ENOMEM;
  n->host = h;
  n->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  int error = n->fd < 0 ? errno : -uv_poll_init(h->services.loop, &n->poll, n->fd);
  if (error != 0) {
    if (n->fd >= 0) close(n->fd);
    free(n);
    return error;
  }
  uv_poll_start(&n->poll, UV_READABLE, on_events);
  *out = n;
  return 0;
}

void lupe__watches_close(lupe_host *h) {
  while (h->watches) end(h, (dir_watch *)h->watches);
  for (int i = 0; i < LUPE__NOTIFIERS; i++) {
    lupe__notifier *n = h->notifiers[i];
    h->notifiers[i] = NULL;
    if (!n) continue;
    uv_close((uv_handle_t *)&n->poll, on_notifier_closed);
    close(n->fd);
  }
}

/* watch(directory, name | nil, callback(nil)) -> id; or nil, text, code */
static int watch(lua_State *L) {
  size_t bytes;
  const char *directory = luaL_checkstring(L, 1), *name = luaL_optlstring(L, 2, "", &bytes);
  luaL_argcheck(L, bytes <= NAME_MAX, 2, "too long for a name");
  luaL_checktype(L, 3, LUA_TFUNCTION);
  lupe_host *h = lupe__host_of(L);
  if (h->watch_count >= WATCHES_MAX) return lupe__failed(L, directory, EMFILE);
  int kind = bytes > 0 ? LUPE__OF_A_NAME : LUPE__OF_ALL;
  lupe__notifier **n = &h->notifiers[kind];
  int error = *n ? 0 : start_notifier(h, n);
  if (error != 0) return lupe__failed(L, directory, error);
  int wd = inotify_add_watch((*n)->fd, directory, events_of[kind]);
  if (wd < 0) return lupe__failed(L, directory, errno);
  /* Raises for want of memory: then the kernel goes on telling, and nobody minds. */
  dir_watch *w = lupe__timer_create(L, 3, sizeof *w, &h->watches);
  w->notifier = *n;
  w->wd = wd;
  w->id = ++h->last_watch_id;
  memcpy(w->name, name, bytes);
  h->watch_count++;
  lua_pushnumber(L, w->id);
  return 1;
}

/* unwatch(id) -> whether it was still waiting */
static int unwatch(lua_State *L) {
  uint32_t id = (uint32_t)luaL_checknumber(L, 1);
  lupe_host *h = lupe__host_of(L);
  lupe__timer *t = h->watches;
  while (t && ((dir_watch *)t)->id != id) t = t->next;
  if (t) {
    lupe__task_abandon(L, t->task);
    t->task = NULL;
    end(h, (dir_watch *)t);
  }
  lua_pushboolean(L, t != NULL);
  return 1;
}

const luaL_Reg lupe__host_watches[] = {
    {"watch", watch},
    {"unwatch", unwatch},
    {NULL, NULL},
};

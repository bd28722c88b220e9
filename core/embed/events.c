#include "core/embed/events.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent/agent.h"
#include "core/embed/error.h"
#include "core/embed/host_loop.h"
#include "core/embed/link.h"

enum { QUEUE_MAX = 256, EVENT_TEXTS = 4 };

typedef struct event {
  struct event *next;
  char *body; /* owned */
  uint32_t bytes;
} event;

/* All under `lock`, which is not held during a callback. */
static struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  lupe_event_cb callback;
  void *arg;
  bool taking; /* between begin and end */
  event *head, *tail;
  unsigned count;
  uint64_t taken;        /* all there ever were */
  lupe__host_loop *loop; /* NULL: the callback comes on our own thread */
  bool has_thread, thread_ends;
  pthread_t thread;
  bool calling;  /* a callback is under way */
  uint64_t call; /* its number, or that of the last one */
  pthread_t caller;
} events = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void free_event(event *e) {
  free(e->body);
  free(e);
}

/* Calls the callback with the frame's texts. Without the lock. */
static void tell(const event *e, lupe_event_cb callback, void *arg) {
  const char *texts[EVENT_TEXTS] = {"", "", "", ""};
  uint32_t kind;
  memcpy(&kind, e->body, sizeof kind);
  const char *at = e->body + sizeof kind, *end = e->body + e->bytes;
  for (int i = 0; i < EVENT_TEXTS && at < end; i++, at += strlen(at) + 1) texts[i] = at;
  const lupe_event told = {.size = sizeof told,
                           .kind = (lupe_event_kind)kind,
                           .rule = texts[0],
                           .severity = texts[1],
                           .text = texts[2],
                           .json = texts[3]};
  callback(arg, &told);
}

/* Takes one event off the queue and tells it. With the lock, which it lets go of meanwhile. */
static void tell_next(void) {
  event *e = events.head;
  events.head = e->next;
  if (!events.head) events.tail = NULL;
  events.count--;
  lupe_event_cb callback = events.callback;
  void *arg = events.arg;
  if (callback) {
    events.calling = true;
    events.call++;
    events.caller = pthread_self();
    pthread_mutex_unlock(&events.lock);
    tell(e, callback, arg);
    pthread_mutex_lock(&events.lock);
    events.calling = false;
    pthread_cond_broadcast(&events.changed);
  }
  free_event(e);
}

static bool is_caller(void) {
  return events.calling && pthread_equal(events.caller, pthread_self());
}

/* ---- the host's loop ---- */

/* One at a time, so that the loop gets round to its own work in between. */
static void on_knock(void) {
  pthread_mutex_lock(&events.lock);
  if (events.head && events.taking) tell_next();
  if (events.head && events.loop) lupe__host_loop_knock(events.loop);
  pthread_mutex_unlock(&events.lock);
}

/* ---- our own thread ----
 * It has the program's descriptor table, since the callback is the program's; for the same reason it is not
 * one of those whose memory is lupe's, and amid a callback it keeps a program alive that has no thread left.
 * Where the host has a loop it only knocks there: the link's reader cannot, the loop's descriptors are not
 * its own. */

static void *events_main(void *unused) {
  pthread_setname_np(pthread_self(), "lupe-events");
  lupe_agent_expect_thread(1);
  pthread_mutex_lock(&events.lock);
  uint64_t knocked = events.taken - events.count; /* by number: one event may be where another one was */
  while (!events.thread_ends) {
    if (events.head && !events.loop) {
      lupe_agent_expect_thread(-1);
      tell_next();
      lupe_agent_expect_thread(1);
    } else if (events.head && events.taken != knocked) {
      knocked = events.taken;
      lupe__host_loop_knock(events.loop);
    } else {
      pthread_cond_wait(&events.changed, &events.lock);
    }
  }
  pthread_mutex_unlock(&events.lock);
  lupe_agent_expect_thread(-1);
  return unused;
}

/* With the lock. */
static lupe_status start_thread(void) {
  sigset_t all, before;
  if (events.has_thread) return LUPE_OK;
  events.thread_ends = false;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&events.thread, NULL, events_main, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed) return lupe__fail(LUPE_ENOMEM, "no thread for callbacks can be started: %s", strerror(failed));
  events.has_thread = true;
  return LUPE_OK;
}

/* ---- from outside ---- */

void lupe__events_take(lupe__frame *frame) {
  uint32_t bytes = frame->bytes;
  if (bytes <= sizeof(uint32_t) || frame->body[bytes - 1] != '\0') return;
  event *e = malloc(sizeof *e);
  if (!e) return;
  *e = (event){.body = frame->body, .bytes = bytes};
  pthread_mutex_lock(&events.lock);
  bool taken = events.taking && events.count < QUEUE_MAX;
  if (taken) {
    if (events.tail) {
      events.tail->next = e;
    } else {
      events.head = e;
    }
    events.tail = e;
    events.count++;
    events.taken++;
    pthread_cond_broadcast(&events.changed);
    frame->body = NULL;
  }
  pthread_mutex_unlock(&events.lock);
  if (!taken) free(e);
}

lupe_status lupe__events_begin(struct uv_loop_s *loop) {
  lupe__host_loop *opened = NULL;
  lupe_status status = loop ? lupe__host_loop_open(&opened, loop, on_knock) : LUPE_OK;
  if (status != LUPE_OK) return status;
  pthread_mutex_lock(&events.lock);
  events.loop = opened;
  events.taking = true;
  status = events.callback ? start_thread() : LUPE_OK;
  pthread_mutex_unlock(&events.lock);
  if (status != LUPE_OK) lupe__events_end();
  return status;
}

void lupe__events_end(void) {
  pthread_mutex_lock(&events.lock);
  events.taking = false;
  events.thread_ends = true; /* with the call that is under way, whatever waits behind it */
  for (event *e = events.head, *next; e; e = next) {
    next = e->next;
    free_event(e);
  }
  events.head = events.tail = NULL;
  events.count = 0;
  pthread_cond_broadcast(&events.changed);
  while (events.calling && !is_caller()) pthread_cond_wait(&events.changed, &events.lock);
  bool joins = events.has_thread && !pthread_equal(events.thread, pthread_self());
  pthread_mutex_unlock(&events.lock);
  if (joins) pthread_join(events.thread, NULL);
  pthread_mutex_lock(&events.lock);
  lupe__host_loop *loop = events.loop;
  events.loop = NULL;
  if (joins) events.has_thread = false;
  pthread_mutex_unlock(&events.lock);
  lupe__host_loop_close(loop);
}

bool lupe__events_on_own_thread(void) {
  pthread_mutex_lock(&events.lock);
  bool own = events.has_thread && pthread_equal(events.thread, pthread_self());
  pthread_mutex_unlock(&events.lock);
  return own;
}

bool lupe__events_wanted(void) {
  pthread_mutex_lock(&events.lock);
  bool wanted = events.callback != NULL;
  pthread_mutex_unlock(&events.lock);
  return wanted;
}

void lupe__events_forget(void) {
  events.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
  events.changed = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
  events.taking = events.has_thread = events.calling = false;
  events.head = events.tail = NULL;
  events.count = 0;
  events.loop = NULL;
}

/* What was set goes for later starts, too; the runtime is told where there is one that has to be. */
lupe_status lupe_set_callback(lupe_event_cb callback, void *arg) {
  lupe_status status = LUPE_OK;
  int cancel;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* it would take the lock with it */
  pthread_mutex_lock(&events.lock);
  bool told = events.callback != NULL;
  if (callback && events.taking) status = start_thread();
  if (status == LUPE_OK) {
    events.callback = callback;
    events.arg = arg;
    const uint64_t former = events.call; /* not the next one, which is of the new callback already */
    while (events.calling && events.call == former && !is_caller())
      pthread_cond_wait(&events.changed, &events.lock);
  }
  bool tell_runtime = status == LUPE_OK && events.taking && told != (callback != NULL);
  pthread_mutex_unlock(&events.lock);
  pthread_setcancelstate(cancel, NULL);
  if (!tell_runtime) return status;
  const char *wanted = callback ? "1" : "0";
  status = lupe__link_call(LUPE_EMBEDDED_EVENTS, &wanted, 1, NULL);
  return status == LUPE_ENOENT ? LUPE_OK : status; /* stopped meanwhile: then there is nobody to tell */
}

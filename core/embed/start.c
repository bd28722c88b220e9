/* start.c -- lupe_start and lupe_stop: one lupe in a process, and what it is doing. */
#include "core/embed/start.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/agent/agent.h"
#include "core/embed/adds.h"
#include "core/embed/error.h"
#include "core/embed/events.h"
#include "core/embed/link.h"
#include "core/embed/patience.h"

enum {
  STOP_MS = 5000,
  EXIT_MS = 300, /* for the runtime, when the program exits without lupe_stop */
  EXIT_LOCK_MS = 100,
  SETTINGS_MAX = 256,
  WELCOME_TRIES = 5, /* of a second each */
};

typedef enum phase { STOPPED, STARTING, RUNNING, STOPPING } phase;

static struct {
  pthread_mutex_t
      lock; /* of `phase`: whoever changes it to STARTING or STOPPING owns the rest until it goes on */
  phase phase;
  lupe_mode mode;
  bool borrowed;  /* the agent is the preloaded one, which is not ours to stop */
  bool inherited; /* in a forked child: the agent, if there is one, speaks with the parent's runtime */
  bool prepared;  /* once in a process's life */
  pid_t pid;      /* that it was started in */
  char socket[sizeof((struct sockaddr_un *)0)->sun_path];
} front = {.lock = PTHREAD_MUTEX_INITIALIZER};

static phase change(phase from, phase to) {
  pthread_mutex_lock(&front.lock);
  phase before = front.phase;
  if (before == from) front.phase = to;
  pthread_mutex_unlock(&front.lock);
  return before;
}

/* ---- exits and forks ---- */

/* What a runtime in this process leaves in the file system, where it is not given the time to do it itself.
 */
static void sweep(void) {
  if (front.mode != LUPE_MODE_IN_PROCESS || !front.socket[0]) return;
  unlink(front.socket);
  char *slash = strrchr(front.socket, '/');
  if (!slash) return;
  *slash = '\0';
  rmdir(front.socket);
  front.socket[0] = '\0';
}

/* The program exits without lupe_stop: before any library's destructors, since those of the runtime's would
 * take from under it what it works with. Who exits in a signal handler may hold any lock, ours and the
 * allocator's: so each wait has an end, and nothing is allocated. */
static void at_exit(void) {
  if (front.pid != getpid()) return; /* of a child that no fork handler knows of */
  bool owns = false;
  int cancel;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel); /* else the thread ends, and not the program */
  if (lupe__lock_until(&front.lock, lupe__now_ms() + EXIT_LOCK_MS)) {
    owns = front.phase == RUNNING;
    if (owns) front.phase = STOPPING;
    pthread_mutex_unlock(&front.lock);
  }
  if (owns && front.mode != LUPE_MODE_DAEMON) {
    lupe_agent_exit();
    owns = lupe__link_close(EXIT_MS, false);
  }
  if (!owns) sweep();
  pthread_setcancelstate(cancel, NULL);
}

static void after_fork_in_child(void) {
  front.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
  front.inherited |= front.phase != STOPPED && !front.borrowed;
  front.phase = STOPPED;
  front.socket[0] = '\0';
  lupe__link_forget();
  lupe__events_forget();
  lupe__adds_forget();
}

static lupe_status prepare(void) {
  if (front.prepared) return LUPE_OK;
  if (pthread_atfork(NULL, NULL, after_fork_in_child) != 0 || atexit(at_exit) != 0) {
    return lupe__fail(LUPE_ENOMEM, "no memory for lupe's fork and exit handlers");
  }
  front.prepared = true;
  return LUPE_OK;
}

/* ---- start ---- */

static lupe_status check(const lupe_options *given, lupe_options *out) {
  *out = (lupe_options){.size = sizeof *out};
  if (!given) return LUPE_OK;
  if (given->size < offsetof(lupe_options, settings)) {
    return lupe__fail(LUPE_EINVAL,
                      "options.size is %zu, expected sizeof(lupe_options): use LUPE_OPTIONS_INIT",
                      given->size);
  }
  for (size_t i = sizeof *out; i < given->size; i++) {
    if (((const char *)given)[i] != 0) {
      return lupe__fail(LUPE_EINVAL, "options has fields that this library (" LUPE_VERSION
                                     ") does not know: it is older than the header");
    }
  }
  memcpy(out, given, given->size < sizeof *out ? given->size : sizeof *out);
  if ((unsigned)out->mode > LUPE_MODE_DAEMON) {
    return lupe__fail(LUPE_EINVAL, "options.mode is %d, expected one of lupe_mode", (int)out->mode);
  }
  size_t count = 0;
  while (out->settings && out->settings[count]) {
    if (++count > SETTINGS_MAX) {
      return lupe__fail(LUPE_EINVAL,
                        "options.settings has more than %d texts: the NULL at its end is missing",
                        SETTINGS_MAX);
    }
  }
  return LUPE_OK;
}

static lupe_status agent_failed(lupe_status status) {
  switch (status) {
    case LUPE_OK:
      return LUPE_OK;
    case LUPE_EINUSE:
      return lupe__fail(status, "lupe's agent speaks with another runtime in this process already");
    case LUPE_ENOENT:
      return lupe__fail(status,
                        "nobody listens at %s, or answers within a second: start `lupe serve`, or take "
                        "LUPE_SOCKET out of the environment",
                        front.socket);
    case LUPE_EPERM:
      return lupe__fail(status, "%s belongs to another user", front.socket);
    case LUPE_EVERSION:
      return lupe__fail(
          status, "who listens at %s is of another version of lupe than this library (" LUPE_VERSION ")",
          front.socket);
    case LUPE_EINVAL:
      return lupe__fail(status, "LUPE_SOCKET is \"%s\", expected the path of a socket, of at most %zu bytes",
                        front.socket, sizeof front.socket - 1);
    case LUPE_EUNSUPPORTED:
      return lupe__fail(status,
                        "the agent cannot run: this kernel lacks what it needs, or the program has forbidden "
                        "itself that (seccomp), is exiting, or is a child of vfork");
    default:
      return lupe__fail(status, "the agent cannot be started: %s", lupe_status_text(status));
  }
}

/* What of the settings is the agent's, where no runtime of ours reads them. */
static bool leaves_allocator(const lupe_options *o) {
  for (size_t i = 0; o->settings && o->settings[i]; i++) {
    if (strcmp(o->settings[i], "allocator=system") == 0) return true;
  }
  const char *given = secure_getenv("LUPE_ALLOCATOR");
  return given && strcmp(given, "system") == 0;
}

static lupe_status start_with_daemon(const lupe_options *o, const char *socket) {
  if (!socket) {
    return lupe__fail(LUPE_EINVAL,
                      "LUPE_MODE_DAEMON: LUPE_SOCKET is not set, expected the socket of `lupe serve`");
  }
  snprintf(front.socket, sizeof front.socket, "%s", socket);
  if (front.borrowed) return LUPE_OK;
  return agent_failed(lupe_agent_start(socket, leaves_allocator(o)));
}

/* The runtime is there, so who is not welcomed within the agent's second is on a busy machine. */
static lupe_status start_agent(bool leave_allocator) {
  lupe_status status = LUPE_ENOENT;
  for (int i = 0; status == LUPE_ENOENT && i < WELCOME_TRIES; i++) {
    status = lupe_agent_start(front.socket, leave_allocator);
  }
  if (status != LUPE_ENOENT) return agent_failed(status);
  return lupe__fail(LUPE_EIO,
                    "the runtime did not answer the agent within %d s: the machine is very busy, or %s was "
                    "removed",
                    WELCOME_TRIES, front.socket);
}

static lupe_status start_runtime(const lupe_options *o) {
  size_t count = 0;
  lupe__reply reply = {0};
  const char *yes = "1";
  while (o->settings && o->settings[count]) count++;
  lupe_status status = lupe__link_open(front.mode);
  if (status != LUPE_OK) return status;
  status = lupe__link_call(LUPE_EMBEDDED_START, o->settings, count, &reply);
  if (status != LUPE_OK) goto no_runtime;
  snprintf(front.socket, sizeof front.socket, "%s", reply.texts[0]);
  bool profiles = reply.texts[0][0] != '\0', leave_allocator = strcmp(reply.texts[2], "system") == 0;
  lupe__reply_clear(&reply);
  status = lupe__adds_send();
  if (status != LUPE_OK) goto no_adds;
  status = lupe__events_begin(o->loop);
  if (status != LUPE_OK) goto no_adds;
  if (lupe__events_wanted()) status = lupe__link_call(LUPE_EMBEDDED_EVENTS, &yes, 1, NULL);
  if (status == LUPE_OK && profiles) status = start_agent(leave_allocator);
  if (status == LUPE_OK) return LUPE_OK;
  lupe__events_end();
no_adds:
  lupe__adds_end();
no_runtime:
  lupe__link_close(STOP_MS, true);
  return status;
}

static lupe_status start(const lupe_options *o) {
  lupe_status status = prepare();
  if (status != LUPE_OK) return status;
  if (front.inherited) {
    (void)lupe_agent_stop(); /* where it hangs, the start below says so */
    front.inherited = false;
  }
  const char *socket = secure_getenv("LUPE_SOCKET");
  if (socket && !*socket) socket = NULL;
  front.pid = getpid();
  front.borrowed = lupe_agent_online();
  front.mode = o->mode != LUPE_MODE_AUTO ? o->mode : socket ? LUPE_MODE_DAEMON : LUPE_MODE_IN_PROCESS;
  if (front.borrowed && front.mode != LUPE_MODE_DAEMON) {
    return lupe__fail(LUPE_EINUSE,
                      "this program is profiled by `lupe run` or a daemon already (the agent was preloaded): "
                      "options.mode may be LUPE_MODE_AUTO or LUPE_MODE_DAEMON then");
  }
  return front.mode == LUPE_MODE_DAEMON ? start_with_daemon(o, socket) : start_runtime(o);
}

/* Who is cancelled in a start or stop ends it first: nobody else would. */
lupe_status lupe_start(const lupe_options *options) {
  lupe_options o;
  int cancel;
  lupe_status status = check(options, &o);
  if (status != LUPE_OK) return status;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
  if (change(STOPPED, STARTING) == STOPPED) {
    status = start(&o);
    change(STARTING, status == LUPE_OK ? RUNNING : STOPPED);
  } else {
    status = lupe__fail(LUPE_EINUSE, "lupe runs in this process already");
  }
  pthread_setcancelstate(cancel, NULL);
  return status;
}

/* ---- stop ---- */

static lupe_status stop(void) {
  bool ended = true;
  if (!front.borrowed)
    (void)lupe_agent_stop(); /* what it could not end in time, its next start or stop does */
  if (front.mode != LUPE_MODE_DAEMON) {
    ended = lupe__link_close(STOP_MS, true);
    lupe__events_end();
    lupe__adds_end();
    if (!ended) sweep();
  }
  front.socket[0] = '\0';
  change(STOPPING, STOPPED);
  if (!ended) return lupe__fail(LUPE_EIO, "lupe's runtime has not ended within %d s", STOP_MS / 1000);
  return LUPE_OK;
}

lupe_status lupe_stop(void) {
  int cancel;
  if (lupe__events_on_own_thread()) {
    return lupe__fail(LUPE_EPERM,
                      "lupe_stop waits for the callback, so it cannot be called in it (but for one on "
                      "options.loop)");
  }
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
  phase before = change(RUNNING, STOPPING);
  lupe_status status = before == RUNNING ? stop()
                       : before == STOPPED
                           ? lupe__fail(LUPE_ENOENT, "lupe does not run in this process")
                           : lupe__fail(LUPE_ENOENT, "lupe is being started or stopped on another thread");
  pthread_setcancelstate(cancel, NULL);
  return status;
}

/* ---- for the others ---- */

lupe_status lupe__may_call(void) {
  pthread_mutex_lock(&front.lock);
  phase now = front.phase;
  pthread_mutex_unlock(&front.lock);
  if (now != RUNNING)
    return lupe__fail(LUPE_ENOENT, "lupe does not run in this process: call lupe_start first");
  if (front.mode == LUPE_MODE_DAEMON) {
    return lupe__fail(LUPE_EUNSUPPORTED,
                      "the runtime is a daemon's, or that of `lupe run`: what it sees is asked there");
  }
  return LUPE_OK;
}

const char *lupe__mode_name(void) {
  static const char *const names[] = {"", "in-process", "helper", "daemon"};
  return names[front.mode];
}

const char *lupe__socket(void) {
  return front.socket;
}

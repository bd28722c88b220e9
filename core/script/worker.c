#include "core/script/worker.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "core/script/worker_process.h"
#include "core/wire/frame.h"

enum {
  EXIT_STATUS_MS = 1000, /* after its socket closed a process may take so long to be reaped */
  TEXT_BYTES = 256,
};

typedef struct call {
  struct call *next;
  uint64_t deadline_ms;
  lupe_worker_callback callback;
  void *arg;
  int fd;
  uint32_t bytes;
  char request[];
} call;

struct lupe_worker {
  uv_loop_t *loop;
  char **argv;
  uv_timer_t timer;       /* of the phase that the process is in */
  lupe__process *process; /* NULL: none */
  lupe__process_owner owner;
  call *head, *tail; /* the head is the one that the process is busy with */
  unsigned queued;
  uint64_t cpu_before_ms;        /* the process's CPU time when it was sent the head */
  uint64_t waited_ms, looked_ms; /* since then; and when that was counted */
  bool calling_back;
  bool closing, timer_closed;
  lupe_worker_close_cb closed;
  void *closed_arg;
  uint64_t starts, kills;
  char start_error[TEXT_BYTES]; /* not empty: the last start failed, and the head is to be told */
};

static void on_timer(uv_timer_t *timer);

/* The queue ----------------------------------------------------------------------------------- */

static void free_call(call *c) {
  if (c->fd >= 0) close(c->fd);
  free(c);
}

/* Ends the call at the head of the queue. `text` has a NUL behind it. */
static void finish(lupe_worker *w, lupe_worker_outcome outcome, const char *text, size_t bytes) {
  call *c = w->head;
  if (!c) return;
  w->head = c->next;
  if (!w->head) w->tail = NULL;
  w->queued--;
  bool nested = w->calling_back;
  w->calling_back = true;
  c->callback(c->arg, outcome, text, bytes);
  w->calling_back = nested;
  free_call(c);
}

static void finish_in_words(lupe_worker *w, lupe_worker_outcome outcome, const char *format, ...) {
  char text[TEXT_BYTES];
  va_list args;
  va_start(args, format);
  int bytes = vsnprintf(text, sizeof text, format, args);
  va_end(args);
  finish(w, outcome, text, bytes < (int)sizeof text ? (size_t)bytes : sizeof text - 1);
}

/* Its process --------------------------------------------------------------------------------- */

/* CPU time that the head may take, and then some. */
static uint64_t allowed_ms(const lupe_worker *w) {
  return w->head->deadline_ms + LUPE_WORKER_GRACE_MS;
}

static uint64_t cpu_ms(const lupe_worker *w) {
  return lupe__process_cpu_ns(w->process) / 1000000;
}

/* CPU time that the head has taken. */
static uint64_t used_ms(const lupe_worker *w) {
  uint64_t now = cpu_ms(w);
  return now > w->cpu_before_ms ? now - w->cpu_before_ms : 0; /* its clock may be gone */
}

/* Milliseconds until the head's process is to be looked at again; 0: it has had its time. A look comes within
 * `allowed`, unless the loop stood still too, as in a stopped process group: that is nobody's waiting. */
static uint64_t left_ms(lupe_worker *w) {
  uint64_t allowed = allowed_ms(w), used = used_ms(w), now = uv_now(w->loop), passed = now - w->looked_ms;
  w->waited_ms += passed < allowed ? passed : allowed;
  w->looked_ms = now;
  if (used >= allowed || w->waited_ms >= LUPE_WORKER_PATIENCE * allowed) return 0;
  return allowed - used;
}

static void forget_process(lupe_worker *w) {
  w->process = NULL;
  uv_timer_stop(&w->timer);
}

static void kill_process(lupe_worker *w) {
  lupe__process *p = w->process;
  forget_process(w);
  lupe__process_kill(p);
}

static void start_process(lupe_worker *w) {
  w->process = lupe__process_start(&w->owner, w->argv, w->start_error, sizeof w->start_error);
  if (w->process) w->starts++;
  uv_timer_start(&w->timer, on_timer, w->process ? LUPE_WORKER_START_MS : 0, 0);
}

static void pump(lupe_worker *w) {
  if (w->closing || w->calling_back || !w->head || w->start_error[0]) return;
  if (!w->process) {
    start_process(w);
  } else if (lupe__process_is(w->process) == LUPE__PROCESS_IDLE) {
    uv_update_time(w->loop); /* the deadline counts from now, not from when the loop last looked */
    w->looked_ms = uv_now(w->loop);
    w->waited_ms = 0;
    w->cpu_before_ms = cpu_ms(w);
    uv_timer_start(&w->timer, on_timer, left_ms(w), 0);
    lupe__process_send(w->process, w->head->request, w->head->bytes, w->head->fd);
  }
}

static void on_ready(void *arg) {
  lupe_worker *w = arg;
  uv_timer_stop(&w->timer);
}

static void on_replied(void *arg, const char *text, size_t bytes) {
  lupe_worker *w = arg;
  uv_timer_stop(&w->timer);
  finish(w, LUPE_WORKER_REPLIED, text, bytes);
}

static void on_gone(void *arg) {
  lupe_worker *w = arg;
  uv_timer_start(&w->timer, on_timer, EXIT_STATUS_MS, 0);
}

static void on_lost(void *arg, lupe_worker_outcome outcome, const char *why) {
  lupe_worker *w = arg;
  forget_process(w);
  if (why) finish_in_words(w, outcome, "%s", why);
}

static void on_seen_to(void *arg) {
  pump(arg);
}

/* It was not ready, or has not answered the head or ended, within its time. */
static void end_late(lupe_worker *w) {
  lupe__process_state state = lupe__process_is(w->process);
  uint64_t used = used_ms(w), waited = w->waited_ms;
  kill_process(w);
  if (state == LUPE__PROCESS_STARTING) {
    finish_in_words(w, LUPE_WORKER_UNAVAILABLE, "the worker was killed: not ready within %d ms",
                    LUPE_WORKER_START_MS);
  } else if (state != LUPE__PROCESS_BUSY) {
    finish_in_words(w, LUPE_WORKER_DIED, "the worker closed its socket");
  } else if (used < allowed_ms(w)) {
    w->kills++;
    finish_in_words(w, LUPE_WORKER_STARVED,
                    "the worker was killed: it got %llu ms of CPU time within %llu ms, and may take %llu ms",
                    (unsigned long long)used, (unsigned long long)waited,
                    (unsigned long long)w->head->deadline_ms);
  } else {
    w->kills++;
    finish_in_words(w, LUPE_WORKER_DEADLINE, "the worker was killed %d ms past the deadline of %llu ms",
                    LUPE_WORKER_GRACE_MS, (unsigned long long)w->head->deadline_ms);
  }
}

static bool is_busy(const lupe_worker *w) {
  return w->process && lupe__process_is(w->process) == LUPE__PROCESS_BUSY;
}

static void on_timer(uv_timer_t *timer) {
  lupe_worker *w = timer->data;
  if (is_busy(w)) {
    /* Timers come before sockets: its reply may be here, where the loop was late. */
    lupe__process_read(w->process);
    if (!is_busy(w)) {
      pump(w);
      return;
    }
    uint64_t left = left_ms(w);
    if (left > 0) {
      uv_timer_start(&w->timer, on_timer, left, 0);
      return;
    }
  }
  if (w->process) {
    end_late(w);
  } else {
    char text[TEXT_BYTES];
    memcpy(text, w->start_error, sizeof text);
    w->start_error[0] = '\0';
    finish_in_words(w, LUPE_WORKER_UNAVAILABLE, "%s", text);
  }
  pump(w);
}

/* The worker ---------------------------------------------------------------------------------- */

static void free_argv(char **argv) {
  for (char **word = argv; word && *word; word++) free(*word);
  free(argv);
}

static void free_when_closed(lupe_worker *w) {
  if (!w->timer_closed || w->owner.processes > 0) return;
  lupe_worker_close_cb closed = w->closed;
  void *arg = w->closed_arg;
  free_argv(w->argv);
  free(w);
  if (closed) closed(arg);
}

static void on_freed(void *arg) {
  free_when_closed(arg);
}

lupe_status lupe_worker_create(lupe_worker **out, uv_loop_t *loop, const char *const argv[]) {
  if (!argv || !argv[0]) return LUPE_EINVAL;
  size_t count = 0;
  while (argv[count]) count++;
  lupe_worker *w = calloc(1, sizeof *w);
  if (!w) return LUPE_ENOMEM;
  w->argv = calloc(count + 1, sizeof *w->argv);
  if (!w->argv) goto fail;
  for (size_t i = 0; i < count; i++) {
    w->argv[i] = strdup(argv[i]);
    if (!w->argv[i]) goto fail;
  }
  w->loop = loop;
  w->owner = (lupe__process_owner){.loop = loop,
                                   .ready = on_ready,
                                   .replied = on_replied,
                                   .gone = on_gone,
                                   .lost = on_lost,
                                   .seen_to = on_seen_to,
                                   .freed = on_freed,
                                   .arg = w};
  uv_timer_init(loop, &w->timer);
  w->timer.data = w;
  *out = w;
  return LUPE_OK;

fail:
  free_argv(w->argv);
  free(w);
  return LUPE_ENOMEM;
}

static void on_timer_closed(uv_handle_t *handle) {
  lupe_worker *w = handle->data;
  w->timer_closed = true;
  free_when_closed(w);
}

void lupe_worker_close(lupe_worker *w, lupe_worker_close_cb done, void *arg) {
  if (!w) {
    if (done) done(arg);
    return;
  }
  if (w->closing) return;
  w->closing = true;
  w->closed = done;
  w->closed_arg = arg;
  if (w->process) kill_process(w);
  uv_close((uv_handle_t *)&w->timer, on_timer_closed);
  while (w->head) finish_in_words(w, LUPE_WORKER_CLOSED, "lupe is stopping");
}

lupe_status lupe_worker_call(lupe_worker *w, const void *request, size_t bytes, int fd, uint64_t deadline_ms,
                             lupe_worker_callback callback, void *arg) {
  if (w->closing || bytes == 0 || bytes > LUPE_FRAME_MAX_BYTES || !callback) return LUPE_EINVAL;
  if (w->queued >= LUPE_WORKER_QUEUE) return LUPE_EFULL;
  call *c = malloc(sizeof *c + bytes);
  if (!c) return LUPE_ENOMEM;
  *c = (call){
      .deadline_ms = deadline_ms, .callback = callback, .arg = arg, .fd = -1, .bytes = (uint32_t)bytes};
  memcpy(c->request, request, bytes);
  if (fd >= 0) {
    c->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (c->fd < 0) {
      free(c);
      return LUPE_EIO;
    }
  }
  if (w->tail) {
    w->tail->next = c;
  } else {
    w->head = c;
  }
  w->tail = c;
  w->queued++;
  pump(w);
  return LUPE_OK;
}

int lupe_worker_pid(const lupe_worker *w) {
  return w->process ? lupe__process_pid(w->process) : 0;
}
uint64_t lupe_worker_starts(const lupe_worker *w) {
  return w->starts;
}
uint64_t lupe_worker_kills(const lupe_worker *w) {
  return w->kills;
}
uint64_t lupe_worker_cpu_ns(const lupe_worker *w) {
  return w->owner.ended_cpu_ns + (w->process ? lupe__process_cpu_ns(w->process) : 0);
}

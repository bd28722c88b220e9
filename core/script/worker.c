#include "core/script/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "core/spawn.h"
#include "core/wire/frame.h"

enum {
  EXIT_STATUS_MS = 1000, /* after its socket closed a process may take so long to be reaped */
  TEXT_BYTES = 256,
  KEPT_VARIABLES = 6
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

typedef enum process_state {
  STARTING, /* it has not said yet that it is ready: an empty frame */
  IDLE,
  BUSY, /* with the head of the queue */
  GONE  /* its socket is closed; how it ended is not known yet */
} process_state;

/* Outlives the worker's interest in it: until it is reaped and its handles are closed. */
typedef struct process {
  lupe_spawned *program;
  uv_poll_t end; /* of the program */
  uv_poll_t poll;
  int open_handles;
  lupe_worker *worker; /* NULL: given up */
  lupe_worker *owner;  /* there in any case */
  int fd;
  process_state state;
  bool ended;   /* and is reaped */
  bool started; /* it has been ready */
  size_t sent;  /* of the head's frame */
  bool all_sent;
  uint64_t cpu_before_ms;        /* of the head: the CPU time used when it was sent */
  uint64_t waited_ms, looked_ms; /* since then; and when that was counted */
  uint64_t counted_ns;           /* of its CPU time, that its owner has among that of ended ones already */
  lupe__frame frame;             /* comes in */
} process;

struct lupe_worker {
  uv_loop_t *loop;
  char **argv;
  uv_timer_t timer; /* of the phase that the process is in */
  process *process;
  unsigned processes;    /* whose handles are open, those that were given up too */
  uint64_t ended_cpu_ns; /* that ended processes have used */
  call *head, *tail;
  unsigned queued;
  bool calling_back;
  bool closing, timer_closed;
  lupe_worker_close_cb closed;
  void *closed_arg;
  uint64_t starts, kills;
  char start_error[TEXT_BYTES]; /* not empty: the last start failed, and the head is to be told */
};

static void pump(lupe_worker *w);
static void on_timer(uv_timer_t *timer);

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

/* The process --------------------------------------------------------------------------------- */

static void free_when_closed(lupe_worker *w);

static void on_process_closed(uv_handle_t *handle) {
  process *p = handle->data;
  if (--p->open_handles > 0) return;
  lupe_worker *w = p->owner;
  lupe__frame_clear(&p->frame);
  lupe_spawn_free(p->program);
  free(p);
  w->processes--;
  free_when_closed(w);
}

static void close_socket(process *p) {
  if (p->fd < 0) return;
  uv_close((uv_handle_t *)&p->poll, on_process_closed);
  close(p->fd);
  p->fd = -1;
}

/* The worker takes no more interest in it; on_end reaps it. */
static void give_up(process *p) {
  lupe_worker *w = p->worker;
  if (!w) return;
  p->worker = NULL;
  w->process = NULL;
  uv_timer_stop(&w->timer);
  close_socket(p);
  if (p->ended) return;
  p->counted_ns = lupe_spawn_cpu_ns(p->program);
  w->ended_cpu_ns += p->counted_ns;
}

static void kill_process(process *p) {
  lupe_spawn_kill(p->program);
  give_up(p);
}

/* Framing was broken by the process. */
static void reject(process *p, const char *what) {
  lupe_worker *w = p->worker;
  bool busy = p->state != IDLE;
  kill_process(p);
  if (busy) finish_in_words(w, LUPE_WORKER_DIED, "the worker was killed: %s", what);
}

static void take_frame(process *p) {
  lupe_worker *w = p->worker;
  lupe__frame frame = p->frame;
  p->frame = (lupe__frame){.fd = -1};
  if (p->state == STARTING && frame.bytes == 0) {
    p->state = IDLE;
    p->started = true;
    uv_timer_stop(&w->timer);
  } else if (p->state == BUSY && p->all_sent && frame.bytes > 0) {
    p->state = IDLE;
    uv_timer_stop(&w->timer);
    finish(w, LUPE_WORKER_REPLIED, frame.body, frame.bytes);
  } else {
    reject(p, "it sent what nobody asked for");
  }
  lupe__frame_clear(&frame);
}

/* Reads what is there. Returns false at the end of the stream. */
static bool read_frames(process *p) {
  while (p->worker && p->fd >= 0) {
    lupe_status status = lupe__frame_read(&p->frame, p->fd, false);
    if (status == LUPE_EAGAIN) return true;
    if (status == LUPE_ENOENT) return false;
    if (status == LUPE_OK) {
      take_frame(p);
    } else {
      reject(p, status == LUPE_ECORRUPT ? "its reply is too long" : "no memory for its reply");
    }
  }
  return true;
}

static void on_socket(uv_poll_t *poll, int status, int events);

/* Sends more of the head's request. That the other side is gone shows when reading. */
static void write_request(const lupe_worker *w, process *p) {
  const call *c = w->head;
  lupe_status status = lupe__frame_write(p->fd, c->request, c->bytes, c->fd, &p->sent, false);
  p->all_sent = status == LUPE_OK;
  uv_poll_start(&p->poll, UV_READABLE | (status == LUPE_EAGAIN ? UV_WRITABLE : 0), on_socket);
}

static void on_socket(uv_poll_t *poll, int status, int events) {
  process *p = poll->data;
  lupe_worker *w = p->worker;
  if ((events & UV_READABLE) || status < 0) {
    if (!read_frames(p) && p->worker) {
      lupe_spawn_kill(p->program); /* it closed its socket; how it ended comes by on_end */
      p->state = p->state == IDLE ? IDLE : GONE;
      if (p->state == IDLE) {
        give_up(p);
      } else {
        close_socket(p);
        uv_timer_start(&w->timer, on_timer, EXIT_STATUS_MS, 0);
      }
    }
  }
  if ((events & UV_WRITABLE) && w && p->worker == w && p->state == BUSY) write_request(w, p);
  if (w) pump(w);
}

static void on_end(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  process *p = poll->data;
  lupe_spawn_end end;
  if (!lupe_spawn_wait(p->program, 0, &end)) return;
  uint64_t used_ns = lupe_spawn_cpu_ns(p->program);
  if (used_ns > p->counted_ns) p->owner->ended_cpu_ns += used_ns - p->counted_ns;
  p->ended = true;
  lupe_worker *w = p->worker;
  if (w) read_frames(p); /* its last reply may be there still */
  if (p->worker) {
    lupe_worker_outcome died = p->started ? LUPE_WORKER_DIED : LUPE_WORKER_UNAVAILABLE;
    bool busy = p->state != IDLE;
    give_up(p);
    if (busy && WIFSIGNALED(end.status)) {
      finish_in_words(w, died, "the worker died: signal %d (%s)", WTERMSIG(end.status),
                      strsignal(WTERMSIG(end.status)));
    } else if (busy) {
      finish_in_words(w, died, "the worker died: exit code %d", WEXITSTATUS(end.status));
    }
  }
  uv_close((uv_handle_t *)&p->end, on_process_closed);
  if (w) pump(w);
}

static void start_failed(lupe_worker *w, const char *why) {
  snprintf(w->start_error, sizeof w->start_error, "the worker %s cannot be started: %s", w->argv[0], why);
  uv_timer_start(&w->timer, on_timer, 0, 0);
}

/* What of our environment the program is to see. The rest is the program's that we may be a guest of: what it
 * has preloaded, for instance. */
static void choose_environment(const char *out[KEPT_VARIABLES + 1]) {
  static const char *const names[KEPT_VARIABLES] = {
      "LD_LIBRARY_PATH", "TZ", "ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"};
  int count = 0;
  for (char **each = environ; *each; each++) {
    for (int i = 0; i < KEPT_VARIABLES && count < KEPT_VARIABLES; i++) {
      size_t bytes = strlen(names[i]);
      if (strncmp(*each, names[i], bytes) == 0 && (*each)[bytes] == '=') out[count++] = *each;
    }
  }
  out[count] = NULL;
}

static void start_process(lupe_worker *w) {
  int ends[2], error = 0;
  process *p = calloc(1, sizeof *p);
  if (!p) {
    start_failed(w, strerror(ENOMEM));
    return;
  }
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    start_failed(w, strerror(errno));
    goto no_socket;
  }
  const char *environment[KEPT_VARIABLES + 1];
  choose_environment(environment);
  const lupe_spawn_options options = {
      .file = w->argv[0],
      .argv = (const char *const *)w->argv,
      .environment = environment,
      .fds = &ends[1],
      .fd_count = 1,
      .dies_with_thread = true,
  };
  lupe_status status = lupe_spawn(&p->program, &options, &error);
  close(ends[1]);
  if (status != LUPE_OK) {
    start_failed(w, status == LUPE_ENOMEM ? strerror(ENOMEM)
                    : status == LUPE_EUNSUPPORTED
                        ? "this system cannot (a kernel before Linux 5.9, or a sandbox)"
                        : uv_strerror(-error));
    goto no_program;
  }
  if (uv_poll_init(w->loop, &p->poll, ends[0]) != 0) {
    start_failed(w, "the loop takes no descriptor");
    goto no_poll;
  }
  p->poll.data = p->end.data = p;
  p->owner = w;
  p->fd = ends[0];
  p->frame.fd = -1;
  p->open_handles = 1;
  w->processes++;
  if (uv_poll_init(w->loop, &p->end, lupe_spawn_fd(p->program)) != 0) {
    start_failed(w, "the loop takes no descriptor");
    close_socket(p); /* frees it, and kills the program */
    return;
  }
  p->open_handles = 2;
  p->worker = w;
  p->state = STARTING;
  w->process = p;
  w->starts++;
  uv_poll_start(&p->poll, UV_READABLE, on_socket);
  uv_poll_start(&p->end, UV_READABLE, on_end);
  uv_timer_start(&w->timer, on_timer, LUPE_WORKER_START_MS, 0);
  return;

no_poll:
  lupe_spawn_free(p->program);
no_program:
  close(ends[0]);
no_socket:
  free(p);
}

/* The worker ---------------------------------------------------------------------------------- */

/* CPU time that the process has used by now. */
static uint64_t cpu_ms(const process *p) {
  return lupe_spawn_cpu_ns(p->program) / 1000000;
}

/* CPU time that the head may take, and then some. */
static uint64_t allowed_ms(const lupe_worker *w) {
  return w->head->deadline_ms + LUPE_WORKER_GRACE_MS;
}

/* That the head has taken. */
static uint64_t used_ms(const process *p) {
  uint64_t now = cpu_ms(p);
  return now > p->cpu_before_ms ? now - p->cpu_before_ms : 0; /* its clock may be gone */
}

/* Milliseconds until the head's process is to be looked at again; 0: it has had its time. A look comes within
 * `allowed`, unless the loop stood still too, as in a stopped process group: that is nobody's waiting. */
static uint64_t left_ms(const lupe_worker *w, process *p) {
  uint64_t allowed = allowed_ms(w), used = used_ms(p), now = uv_now(w->loop), passed = now - p->looked_ms;
  p->waited_ms += passed < allowed ? passed : allowed;
  p->looked_ms = now;
  if (used >= allowed || p->waited_ms >= LUPE_WORKER_PATIENCE * allowed) return 0;
  return allowed - used;
}

static void pump(lupe_worker *w) {
  if (w->closing || w->calling_back || !w->head || w->start_error[0]) return;
  process *p = w->process;
  if (!p) {
    start_process(w);
  } else if (p->state == IDLE) {
    p->state = BUSY;
    p->sent = 0;
    p->all_sent = false;
    uv_update_time(w->loop); /* the deadline counts from now, not from when the loop last looked */
    p->looked_ms = uv_now(w->loop);
    p->waited_ms = 0;
    p->cpu_before_ms = cpu_ms(p);
    uv_timer_start(&w->timer, on_timer, left_ms(w, p), 0);
    write_request(w, p);
  }
}

static void on_timer(uv_timer_t *timer) {
  lupe_worker *w = timer->data;
  process *p = w->process;
  if (p && p->state == BUSY) {
    read_frames(p); /* timers come before sockets: its reply may be here, where the loop was late */
    if (w->process != p || p->state != BUSY) {
      pump(w);
      return;
    }
    uint64_t left = left_ms(w, p);
    if (left > 0) {
      uv_timer_start(&w->timer, on_timer, left, 0);
      return;
    }
  }
  if (!p) {
    char text[TEXT_BYTES];
    memcpy(text, w->start_error, sizeof text);
    w->start_error[0] = '\0';
    finish_in_words(w, LUPE_WORKER_UNAVAILABLE, "%s", text);
  } else if (p->state == STARTING) {
    kill_process(p);
    finish_in_words(w, LUPE_WORKER_UNAVAILABLE, "the worker was killed: not ready within %d ms",
                    LUPE_WORKER_START_MS);
  } else if (p->state == BUSY) {
    uint64_t used = used_ms(p), waited = p->waited_ms;
    kill_process(p);
    w->kills++;
    if (used < allowed_ms(w)) {
      finish_in_words(
          w, LUPE_WORKER_STARVED,
          "the worker was killed: it got %llu ms of CPU time within %llu ms, and may take %llu ms",
          (unsigned long long)used, (unsigned long long)waited, (unsigned long long)w->head->deadline_ms);
      pump(w);
      return;
    }
    finish_in_words(w, LUPE_WORKER_DEADLINE, "the worker was killed %d ms past the deadline of %llu ms",
                    LUPE_WORKER_GRACE_MS, (unsigned long long)w->head->deadline_ms);
  } else {
    kill_process(p);
    finish_in_words(w, LUPE_WORKER_DIED, "the worker closed its socket");
  }
  pump(w);
}

static void free_argv(char **argv) {
  for (char **word = argv; word && *word; word++) free(*word);
  free(argv);
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
  uv_timer_init(loop, &w->timer);
  w->timer.data = w;
  *out = w;
  return LUPE_OK;

fail:
  free_argv(w->argv);
  free(w);
  return LUPE_ENOMEM;
}

static void free_when_closed(lupe_worker *w) {
  if (!w->timer_closed || w->processes > 0) return;
  lupe_worker_close_cb closed = w->closed;
  void *arg = w->closed_arg;
  free_argv(w->argv);
  free(w);
  if (closed) closed(arg);
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
  if (w->process) kill_process(w->process);
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
  return w->process ? lupe_spawn_pid(w->process->program) : 0;
}
uint64_t lupe_worker_starts(const lupe_worker *w) {
  return w->starts;
}
uint64_t lupe_worker_kills(const lupe_worker *w) {
  return w->kills;
}
uint64_t lupe_worker_cpu_ns(const lupe_worker *w) {
  const process *p = w->process;
  return w->ended_cpu_ns + (p && !p->ended ? lupe_spawn_cpu_ns(p->program) : 0);
}

#include "core/script/worker_process.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/spawn.h"
#include "core/wire/frame.h"

enum { TEXT_BYTES = 256, KEPT_VARIABLES = 6 };

struct lupe__process {
  lupe_spawned *program;
  uv_poll_t end; /* of the program */
  uv_poll_t poll;
  int open_handles;
  lupe__process_owner *owner;
  bool wanted; /* by its owner */
  int fd;
  lupe__process_state state;
  bool ended;   /* and is reaped */
  bool started; /* it has been ready */
  const void *request;
  uint32_t request_bytes;
  int request_fd;
  size_t sent; /* of the request's frame */
  bool all_sent;
  uint64_t counted_ns; /* of its CPU time, that its owner has among that of ended ones already */
  lupe__frame frame;   /* comes in */
};

/* ---- giving it up ---- */

static void on_closed(uv_handle_t *handle) {
  lupe__process *p = handle->data;
  if (--p->open_handles > 0) return;
  lupe__process_owner *owner = p->owner;
  lupe__frame_clear(&p->frame);
  lupe_spawn_free(p->program);
  free(p);
  owner->processes--;
  owner->freed(owner->arg);
}

static void close_socket(lupe__process *p) {
  if (p->fd < 0) return;
  uv_close((uv_handle_t *)&p->poll, on_closed);
  close(p->fd);
  p->fd = -1;
}

/* on_end reaps it. */
static void give_up(lupe__process *p) {
  if (!p->wanted) return;
  p->wanted = false;
  close_socket(p);
  if (p->ended) return;
  p->counted_ns = lupe_spawn_cpu_ns(p->program);
  p->owner->ended_cpu_ns += p->counted_ns;
}

void lupe__process_kill(lupe__process *p) {
  lupe_spawn_kill(p->program);
  give_up(p);
}

/* Gives it up, and tells its owner what became of it. */
static void lose(lupe__process *p, lupe_worker_outcome outcome, const char *format, ...) {
  char why[TEXT_BYTES];
  bool busy = p->state != LUPE__PROCESS_IDLE;
  va_list args;
  va_start(args, format);
  vsnprintf(why, sizeof why, format, args);
  va_end(args);
  give_up(p);
  p->owner->lost(p->owner->arg, outcome, busy ? why : NULL);
}

/* ---- frames ---- */

/* Framing was broken by the process. */
static void reject(lupe__process *p, const char *what) {
  lupe_spawn_kill(p->program);
  lose(p, LUPE_WORKER_DIED, "the worker was killed: %s", what);
}

static void take_frame(lupe__process *p) {
  lupe__process_owner *owner = p->owner;
  lupe__frame frame = p->frame;
  p->frame = (lupe__frame){.fd = -1};
  if (p->state == LUPE__PROCESS_STARTING && frame.bytes == 0) {
    p->state = LUPE__PROCESS_IDLE;
    p->started = true;
    owner->ready(owner->arg);
  } else if (p->state == LUPE__PROCESS_BUSY && p->all_sent && frame.bytes > 0) {
    p->state = LUPE__PROCESS_IDLE;
    owner->replied(owner->arg, frame.body, frame.bytes);
  } else {
    reject(p, "it sent what nobody asked for");
  }
  lupe__frame_clear(&frame);
}

/* Reads what is there. Returns false at the end of the stream. */
static bool read_frames(lupe__process *p) {
  while (p->wanted && p->fd >= 0) {
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

void lupe__process_read(lupe__process *p) {
  read_frames(p);
}

static void on_socket(uv_poll_t *poll, int status, int events);

/* Sends more of the request. That the other side is gone shows when reading. */
static void write_request(lupe__process *p) {
  lupe_status status = lupe__frame_write(p->fd, p->request, p->request_bytes, p->request_fd, &p->sent, false);
  p->all_sent = status == LUPE_OK;
  uv_poll_start(&p->poll, UV_READABLE | (status == LUPE_EAGAIN ? UV_WRITABLE : 0), on_socket);
}

void lupe__process_send(lupe__process *p, const void *request, uint32_t bytes, int fd) {
  p->state = LUPE__PROCESS_BUSY;
  p->request = request;
  p->request_bytes = bytes;
  p->request_fd = fd;
  p->sent = 0;
  p->all_sent = false;
  write_request(p);
}

/* It closed its socket; how it ended comes by on_end. */
static void hang_up(lupe__process *p) {
  lupe__process_owner *owner = p->owner;
  lupe_spawn_kill(p->program);
  if (p->state == LUPE__PROCESS_IDLE) {
    give_up(p);
    owner->lost(owner->arg, LUPE_WORKER_DIED, NULL);
  } else {
    p->state = LUPE__PROCESS_GONE;
    close_socket(p);
    owner->gone(owner->arg);
  }
}

static void on_socket(uv_poll_t *poll, int status, int events) {
  lupe__process *p = poll->data;
  lupe__process_owner *owner = p->owner;
  bool was_wanted = p->wanted;
  if ((events & UV_READABLE) || status < 0) {
    if (!read_frames(p) && p->wanted) hang_up(p);
  }
  if ((events & UV_WRITABLE) && p->wanted && p->state == LUPE__PROCESS_BUSY) write_request(p);
  if (was_wanted) owner->seen_to(owner->arg);
}

/* ---- its end ---- */

static void on_end(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  lupe__process *p = poll->data;
  lupe__process_owner *owner = p->owner;
  lupe_spawn_end end;
  if (!lupe_spawn_wait(p->program, 0, &end)) return;
  uint64_t used_ns = lupe_spawn_cpu_ns(p->program);
  if (used_ns > p->counted_ns) owner->ended_cpu_ns += used_ns - p->counted_ns;
  p->ended = true;
  bool was_wanted = p->wanted;
  read_frames(p); /* its last reply may be there still */
  if (p->wanted) {
    lupe_worker_outcome died = p->started ? LUPE_WORKER_DIED : LUPE_WORKER_UNAVAILABLE;
    if (WIFSIGNALED(end.status)) {
      lose(p, died, "the worker died: signal %d (%s)", WTERMSIG(end.status), strsignal(WTERMSIG(end.status)));
    } else {
      lose(p, died, "the worker died: exit code %d", WEXITSTATUS(end.status));
    }
  }
  uv_close((uv_handle_t *)&p->end, on_closed);
  if (was_wanted) owner->seen_to(owner->arg);
}

/* ---- its start ---- */

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

/* The program, with `socket` as its own end. NULL: `why`. */
static lupe_spawned *execute(char *const argv[], int socket, const char **why) {
  const char *environment[KEPT_VARIABLES + 1];
  lupe_spawned *program;
  int error = 0;
  choose_environment(environment);
  const lupe_spawn_options options = {
      .file = argv[0],
      .argv = (const char *const *)argv,
      .environment = environment,
      .fds = &socket,
      .fd_count = 1,
      .dies_with_thread = true,
  };
  lupe_status status = lupe_spawn(&program, &options, &error);
  if (status == LUPE_OK) return program;
  *why = status == LUPE_ENOMEM         ? strerror(ENOMEM)
         : status == LUPE_EUNSUPPORTED ? "this system cannot (a kernel before Linux 5.9, or a sandbox)"
                                       : uv_strerror(-error);
  return NULL;
}

lupe__process *lupe__process_start(lupe__process_owner *owner, char *const argv[], char *why,
                                   size_t why_bytes) {
  static const char no_room[] = "the loop takes no descriptor";
  const char *what = strerror(ENOMEM);
  int ends[2];
  lupe__process *p = calloc(1, sizeof *p);
  if (!p) goto no_process;
  what = NULL;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    what = strerror(errno);
    goto no_socket;
  }
  p->program = execute(argv, ends[1], &what);
  close(ends[1]);
  if (!p->program) goto no_program;
  what = no_room;
  if (uv_poll_init(owner->loop, &p->poll, ends[0]) != 0) goto no_poll;
  p->poll.data = p->end.data = p;
  p->owner = owner;
  p->fd = ends[0];
  p->frame.fd = -1;
  p->open_handles = 1;
  owner->processes++;
  if (uv_poll_init(owner->loop, &p->end, lupe_spawn_fd(p->program)) != 0) goto no_end;
  p->open_handles = 2;
  p->wanted = true;
  p->state = LUPE__PROCESS_STARTING;
  uv_poll_start(&p->poll, UV_READABLE, on_socket);
  uv_poll_start(&p->end, UV_READABLE, on_end);
  return p;

no_end:
  close_socket(p); /* frees it, and kills the program */
  goto no_process;
no_poll:
  lupe_spawn_free(p->program);
no_program:
  close(ends[0]);
no_socket:
  free(p);
no_process:
  snprintf(why, why_bytes, "the worker %s cannot be started: %s", argv[0], what);
  return NULL;
}

lupe__process_state lupe__process_is(const lupe__process *p) {
  return p->state;
}

int lupe__process_pid(const lupe__process *p) {
  return lupe_spawn_pid(p->program);
}

uint64_t lupe__process_cpu_ns(const lupe__process *p) {
  return p->ended ? 0 : lupe_spawn_cpu_ns(p->program);
}

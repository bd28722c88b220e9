/* worker.h -- the runtime's side of a worker process, in which rules, or users' routes, run.
 * A call sends one request (and at most one file descriptor) and gets one reply. Calls are done one at a
 * time, in order; up to LUPE_WORKER_QUEUE wait. A process that has used its call's deadline and
 * LUPE_WORKER_GRACE_MS of CPU time without an answer is killed; so is one that a busy machine has not given
 * that much in LUPE_WORKER_PATIENCE times as long, time in which the loop itself stood still left out. The
 * process is started at the first call, and anew at the next call after it ended: whatever it held (rules,
 * snapshot) is gone then; lua/lupe/worker.lua says "no_rule" or "no_snapshot" when asked for it. What
 * requests and replies mean is Lua's business. Thread: loop, for everything here. */
#ifndef LUPE_SCRIPT_WORKER_H
#define LUPE_SCRIPT_WORKER_H
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

struct uv_loop_s;
typedef struct lupe_worker lupe_worker;

enum {
  LUPE_WORKER_FD = 3,        /* where the process finds its socket */
  LUPE_WORKER_QUEUE = 256,   /* calls that may wait */
  LUPE_WORKER_GRACE_MS = 50, /* past its deadline a call's process is killed */
  LUPE_WORKER_PATIENCE = 10,
  LUPE_WORKER_START_MS = 10000 /* a process that has not reported by then is killed */
};

typedef enum lupe_worker_outcome {
  LUPE_WORKER_REPLIED,    /* `text` is the reply */
  LUPE_WORKER_DEADLINE,   /* killed past the deadline; here and below `text` says in words what happened */
  LUPE_WORKER_STARVED,    /* killed since it was not given the CPU time to answer */
  LUPE_WORKER_DIED,       /* ended by itself or by a signal, or broke the framing */
  LUPE_WORKER_CLOSED,     /* the worker was closed first */
  LUPE_WORKER_UNAVAILABLE /* its process could not be started: nobody has seen the call */
} lupe_worker_outcome;

/* Called once per accepted call, never from inside lupe_worker_call. `text` (NUL after `bytes`) is valid
 * during the callback. May call lupe_worker_call and lupe_worker_close. */
typedef void (*lupe_worker_callback)(void *arg, lupe_worker_outcome outcome, const char *text, size_t bytes);
typedef void (*lupe_worker_close_cb)(void *arg);

/* `argv` (NULL-terminated, copied) is executed as the process, with its socket (frames of wire/frame.h) at
 * LUPE_WORKER_FD, nothing on stdin and stdout, our stderr, and little of our environment. Its parent (see
 * spawn.h) is not told of it by SIGCHLD, and it is killed when the loop's thread ends. Starts nothing yet.
 * Returns LUPE_OK, LUPE_EINVAL (empty argv), LUPE_ENOMEM. */
lupe_status lupe_worker_create(lupe_worker **out, struct uv_loop_s *loop, const char *const argv[]);

/* Kills the process and ends all calls with LUPE_WORKER_CLOSED (before it returns). When the loop has run the
 * close callbacks and no process is left, frees itself and calls `done` (may be NULL): keep running the loop.
 * NULL is a call of `done`. */
void lupe_worker_close(lupe_worker *w, lupe_worker_close_cb done, void *arg);

/* `request` is copied; `fd` (-1: none) is duplicated, the caller keeps its own. The deadline counts from when
 * the process gets the request; waiting in the queue and the start of a process don't count. Returns LUPE_OK,
 * LUPE_EFULL, LUPE_EINVAL (empty or over LUPE_FRAME_MAX_BYTES, closed), LUPE_ENOMEM, LUPE_EIO (fd can't be
 * duplicated). */
lupe_status lupe_worker_call(lupe_worker *w, const void *request, size_t bytes, int fd, uint64_t deadline_ms,
                             lupe_worker_callback callback, void *arg);

int lupe_worker_pid(const lupe_worker *w);         /* 0: none runs */
uint64_t lupe_worker_starts(const lupe_worker *w); /* processes started so far */
uint64_t lupe_worker_kills(const lupe_worker *w);  /* of these killed past a deadline, or starved */
uint64_t lupe_worker_cpu_ns(const lupe_worker *w); /* CPU time of all its processes so far */
#endif

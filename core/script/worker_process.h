/* worker_process.h -- one process of a worker's (worker.h): it is started, given one request at a time,
 * killed and reaped. Its owner may lose interest in it at any time; it is then there until it is reaped and
 * its handles are closed. Thread: loop, for everything here. */
#ifndef LUPE_SCRIPT_WORKER_PROCESS_H
#define LUPE_SCRIPT_WORKER_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "core/script/worker.h"

typedef struct lupe__process lupe__process;

typedef enum lupe__process_state {
  LUPE__PROCESS_STARTING, /* it has not said yet that it is ready: an empty frame */
  LUPE__PROCESS_IDLE,
  LUPE__PROCESS_BUSY, /* with a request */
  LUPE__PROCESS_GONE  /* its socket is closed; how it ended is not known yet */
} lupe__process_state;

/* Outlives its processes. Of one that it has no interest in any more it is told `freed` alone. */
typedef struct lupe__process_owner {
  uv_loop_t *loop;
  unsigned processes;    /* whose handles are open, those that were given up too */
  uint64_t ended_cpu_ns; /* that processes have used which have ended or were given up */
  void (*ready)(void *arg);
  void (*replied)(void *arg, const char *text, size_t bytes); /* NUL after `bytes`; valid during the call */
  void (*gone)(void *arg);                                    /* amid a request, or as it started */
  /* It was given up, by itself. `why`: what became of it amid a request, or as it started; NULL: neither. */
  void (*lost)(void *arg, lupe_worker_outcome outcome, const char *why);
  void (*seen_to)(void *arg); /* after any of these: there may be something to do for the next one */
  void (*freed)(void *arg);
  void *arg;
} lupe__process_owner;

/* Executes `argv` as worker.h says. NULL: it cannot be started, as `why` says. */
lupe__process *lupe__process_start(lupe__process_owner *owner, char *const argv[], char *why,
                                   size_t why_bytes);

/* To an idle one; it is busy then. The request stays the caller's, and as it is, until there is a reply or it
 * is given up. `fd`: -1: none. */
void lupe__process_send(lupe__process *p, const void *request, uint32_t bytes, int fd);

/* Takes what it has sent so far, which may end the owner's interest. */
void lupe__process_read(lupe__process *p);

/* Kills it, and gives it up. */
void lupe__process_kill(lupe__process *p);

lupe__process_state lupe__process_is(const lupe__process *p);
int lupe__process_pid(const lupe__process *p);
/* CPU time that it has used so far, and that is not among its owner's ended_cpu_ns. */
uint64_t lupe__process_cpu_ns(const lupe__process *p);

#endif

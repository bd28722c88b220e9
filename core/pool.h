/* pool.h -- lupe's own threads for work that the loop must not be held by, in place of libuv's: those belong
 * to the process that lupe may be a guest of, and cannot be joined.
 * A thread is started when there is work and none is idle, up to a number; all run until the pool is closed,
 * with all signals blocked, and are called "lupe-work". Work begins in the order in which it was queued.
 * Owner and thread: the loop, for everything here but `work`, which a thread of the pool runs. */
#ifndef LUPE_POOL_H
#define LUPE_POOL_H

#include <stdint.h>

#include "core/lupe.h"

struct uv_loop_s;
typedef struct lupe_pool lupe_pool;
typedef struct lupe_work lupe_work;

enum { LUPE_POOL_THREADS_MAX = 8 };

typedef void (*lupe_work_cb)(lupe_work *w);
/* On the loop. LUPE_OK: the work was done. LUPE_EAGAIN: it was never begun, for no thread could be started,
 * or the pool was stopped. */
typedef void (*lupe_after_work_cb)(lupe_work *w, lupe_status status);
typedef void (*lupe_pool_close_cb)(void *arg);

/* Part of a struct of the caller's, who keeps it until `after` is called; only `data` is the caller's. */
struct lupe_work {
  void *data;
  lupe_work *next;
  lupe_work_cb work;
  lupe_after_work_cb after;
  lupe_status status;
};

/* The first and last act of each thread; either may be NULL. */
typedef struct lupe_pool_hooks {
  void (*begins)(void);
  void (*ends)(void);
} lupe_pool_hooks;

/* `threads`: at most so many, 1 to LUPE_POOL_THREADS_MAX. `hooks` (copied) may be NULL. Starts no thread yet.
 * LUPE_EINVAL, LUPE_ENOMEM, LUPE_EIO (the loop takes no handle). An idle pool does not keep the loop alive.
 */
lupe_status lupe_pool_create(lupe_pool **out, struct uv_loop_s *loop, unsigned threads,
                             const lupe_pool_hooks *hooks);

/* Never fails: `after` comes in any case, and never from inside this call. */
void lupe_pool_queue(lupe_pool *p, lupe_work *w, lupe_work_cb work, lupe_after_work_cb after);

/* From here on no work begins, and what runs is lupe_unwanted(); what waits, and what is queued later, is
 * given back as LUPE_EAGAIN. */
void lupe_pool_stop(lupe_pool *p);

/* Stops it; once the work under way has ended and every `after` was called, and the threads are joined, frees
 * `p` and calls `done` (may be NULL). The loop is not held meanwhile. Until then work may be queued. NULL is
 * a call of `done`. */
void lupe_pool_close(lupe_pool *p, lupe_pool_close_cb done, void *arg);

/* CPU time that its threads have used so far. */
uint64_t lupe_pool_cpu_ns(const lupe_pool *p);

#endif

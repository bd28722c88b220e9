#include "core/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <uv.h>

#include "core/clock.h"
#include "core/unwanted.h"

/* The deepest work is demangling, which may need 1 MiB for a hostile name (store/demangle.h). Only what is
 * used takes memory, unless the process locks all of its own. Sanitizers make frames larger. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { STACK_BYTES = 8 << 20 };
#else
enum { STACK_BYTES = 2 << 20 };
#endif

typedef struct list {
  lupe_work *first, *last;
} list;

struct lupe_pool {
  uv_loop_t *loop;
  uv_async_t async; /* something is in `done`, or a thread ends */
  lupe_pool_hooks hooks;
  unsigned threads_max, thread_count;
  pthread_t threads[LUPE_POOL_THREADS_MAX];
  uint64_t outstanding; /* `after` is still to come */
  _Atomic bool stopped; /* no work begins; written under the lock */
  bool closing;
  lupe_pool_close_cb closed;
  void *closed_arg;

  pthread_mutex_t lock; /* of what follows; held for moments */
  pthread_cond_t wake;
  list waiting, done;
  unsigned idle; /* threads that wait */
  unsigned gone; /* threads that wait for nothing but to be joined */
  bool ending;   /* threads end */
};

static void append(list *l, lupe_work *w) {
  w->next = NULL;
  if (l->last)
    l->last->next = w;
  else
    l->first = w;
  l->last = w;
}

static lupe_work *take(list *l) {
  lupe_work *w = l->first;
  if (!w) return NULL;
  l->first = w->next;
  if (!l->first) l->last = NULL;
  return w;
}

/* -- a thread --------------------------------------------------------------------------------- */

static void *run(void *arg) {
  lupe_pool *p = arg;
  pthread_setname_np(pthread_self(), "lupe-work");
  if (p->hooks.begins) p->hooks.begins();
  lupe_unwanted_by(&p->stopped);
  pthread_mutex_lock(&p->lock);
  for (;;) {
    lupe_work *w = take(&p->waiting);
    if (w) {
      pthread_mutex_unlock(&p->lock);
      w->work(w);
      pthread_mutex_lock(&p->lock);
      w->status = LUPE_OK;
      append(&p->done, w);
      uv_async_send(&p->async);
    } else if (p->ending) {
      break;
    } else {
      p->idle++;
      pthread_cond_wait(&p->wake, &p->lock);
      p->idle--;
    }
  }
  pthread_mutex_unlock(&p->lock);
  if (p->hooks.ends) p->hooks.ends();
  pthread_mutex_lock(&p->lock);
  p->gone++;
  uv_async_send(&p->async);
  pthread_mutex_unlock(&p->lock);
  return NULL;
}

static int start_thread(lupe_pool *p) {
  pthread_attr_t small;
  sigset_t all, before;
  sigfillset(&all);
  int error = pthread_attr_init(&small);
  if (error) return error;
  pthread_attr_setstacksize(&small, STACK_BYTES);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t *thread = &p->threads[p->thread_count];
  error = pthread_create(thread, &small, run, p);
  /* A host's thread-local storage is part of every stack, and may not fit into ours. */
  if (error == EINVAL) error = pthread_create(thread, NULL, run, p);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&small);
  if (error == 0) p->thread_count++;
  return error;
}

/* -- the loop --------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle) {
  lupe_pool *p = handle->data;
  lupe_pool_close_cb closed = p->closed;
  void *arg = p->closed_arg;
  pthread_cond_destroy(&p->wake);
  pthread_mutex_destroy(&p->lock);
  free(p);
  if (closed) closed(arg);
}

static void end_when_idle(lupe_pool *p) {
  if (!p->closing || p->outstanding > 0) return;
  pthread_mutex_lock(&p->lock);
  p->ending = true;
  pthread_cond_broadcast(&p->wake);
  bool all_gone = p->gone == p->thread_count;
  pthread_mutex_unlock(&p->lock);
  if (!all_gone || uv_is_closing((uv_handle_t *)&p->async)) return;
  for (unsigned i = 0; i < p->thread_count; i++) pthread_join(p->threads[i], NULL);
  uv_close((uv_handle_t *)&p->async, on_closed);
}

static void on_async(uv_async_t *async) {
  lupe_pool *p = async->data;
  pthread_mutex_lock(&p->lock);
  list done = p->done;
  p->done = (list){0};
  pthread_mutex_unlock(&p->lock);
  for (lupe_work *w; (w = take(&done));) {
    if (--p->outstanding == 0 && !p->closing) uv_unref((uv_handle_t *)&p->async);
    w->after(w, w->status);
  }
  end_when_idle(p);
}

/* Under the lock. */
static void give_back(lupe_pool *p) {
  for (lupe_work *w; (w = take(&p->waiting));) {
    w->status = LUPE_EAGAIN;
    append(&p->done, w);
  }
  uv_async_send(&p->async);
}

lupe_status lupe_pool_create(lupe_pool **out, uv_loop_t *loop, unsigned threads,
                             const lupe_pool_hooks *hooks) {
  if (threads == 0 || threads > LUPE_POOL_THREADS_MAX) return LUPE_EINVAL;
  lupe_pool *p = calloc(1, sizeof *p);
  if (!p) return LUPE_ENOMEM;
  p->loop = loop;
  p->threads_max = threads;
  if (hooks) p->hooks = *hooks;
  if (uv_async_init(loop, &p->async, on_async) != 0) {
    free(p);
    return LUPE_EIO;
  }
  p->async.data = p;
  uv_unref((uv_handle_t *)&p->async);
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->wake, NULL);
  *out = p;
  return LUPE_OK;
}

void lupe_pool_queue(lupe_pool *p, lupe_work *w, lupe_work_cb work, lupe_after_work_cb after) {
  w->work = work;
  w->after = after;
  w->status = LUPE_OK;
  if (p->outstanding++ == 0) uv_ref((uv_handle_t *)&p->async);
  pthread_mutex_lock(&p->lock);
  append(&p->waiting, w);
  unsigned waiting = 0;
  for (lupe_work *each = p->waiting.first; each && waiting <= p->idle; each = each->next) waiting++;
  bool wanted = waiting > p->idle && p->thread_count < p->threads_max && !p->stopped;
  if (p->stopped)
    give_back(p);
  else
    pthread_cond_signal(&p->wake);
  pthread_mutex_unlock(&p->lock);
  if (!wanted || start_thread(p) == 0 || p->thread_count > 0) return;
  pthread_mutex_lock(&p->lock);
  give_back(p);
  pthread_mutex_unlock(&p->lock);
}

void lupe_pool_stop(lupe_pool *p) {
  pthread_mutex_lock(&p->lock);
  p->stopped = true;
  give_back(p);
  pthread_mutex_unlock(&p->lock);
}

void lupe_pool_close(lupe_pool *p, lupe_pool_close_cb done, void *arg) {
  if (!p) {
    if (done) done(arg);
    return;
  }
  p->closed = done;
  p->closed_arg = arg;
  p->closing = true;
  uv_ref((uv_handle_t *)&p->async);
  lupe_pool_stop(p); /* and the loop looks */
}

uint64_t lupe_pool_cpu_ns(const lupe_pool *p) {
  uint64_t sum = 0;
  for (unsigned i = 0; i < p->thread_count; i++) {
    clockid_t clock;
    if (pthread_getcpuclockid(p->threads[i], &clock) == 0) sum += (uint64_t)lupe_clock_ns(clock);
  }
  return sum;
}

#include "core/store/line_finder.h"

#include <stdlib.h>

#include "core/clock.h"

enum {
  /* A batch costs at most one part in so many of the time until the next one. */
  PAUSE_FACTOR = 50,
  REST_FACTOR = 1000, /* where the frames that came since hardly matter: a file is read anew for each few */
  MOST_NS = 2000000000,
};

struct lupe_line_finder {
  lupe_work work;
  lupe_pool *pool;
  lupe_aggregator *aggregator;
  bool looking;
  lupe_lines_sought sought;
  lupe_status status; /* of the last batch */
  int64_t elapsed_ns; /* CPU time that it took */
  int64_t due_ns,
      rest_due_ns; /* of the next one; of the next for frames that hardly matter: CLOCK_MONOTONIC */
  void (*idle)(void *arg);
  void *arg;
};

lupe_status lupe_line_finder_create(lupe_line_finder **out, lupe_pool *pool, lupe_aggregator *a,
                                    void (*idle)(void *arg), void *arg) {
  lupe_line_finder *f = calloc(1, sizeof *f);
  if (!f) return LUPE_ENOMEM;
  f->work.data = f;
  f->pool = pool;
  f->aggregator = a;
  f->idle = idle;
  f->arg = arg;
  *out = f;
  return LUPE_OK;
}

void lupe_line_finder_free(lupe_line_finder *f) {
  free(f);
}

static void run(lupe_work *w) {
  lupe_line_finder *f = w->data;
  int64_t start_ns = lupe_clock_ns(CLOCK_THREAD_CPUTIME_ID);
  f->status = lupe_aggregator_find_lines(f->aggregator, f->sought, lupe_clock_ns(CLOCK_MONOTONIC) + MOST_NS);
  f->elapsed_ns = lupe_clock_ns(CLOCK_THREAD_CPUTIME_ID) - start_ns;
}

static void after_run(lupe_work *w, lupe_status status) {
  lupe_line_finder *f = w->data;
  f->looking = false;
  if (status != LUPE_OK) { /* never begun, it looks the next time */
    f->idle(f->arg);
    return;
  }
  int64_t now_ns = lupe_clock_ns(CLOCK_MONOTONIC);
  f->due_ns = now_ns + PAUSE_FACTOR * f->elapsed_ns;
  if (f->status != LUPE_ENOENT) f->rest_due_ns = now_ns + REST_FACTOR * f->elapsed_ns;
  f->idle(f->arg);
}

void lupe_line_finder_look(lupe_line_finder *f) {
  int64_t now_ns = lupe_clock_ns(CLOCK_MONOTONIC);
  if (f->looking || now_ns < f->due_ns) return;
  f->sought = now_ns < f->rest_due_ns ? LUPE_LINES_WANTED : LUPE_LINES_SOME;
  f->looking = true;
  lupe_pool_queue(f->pool, &f->work, run, after_run);
}

bool lupe_line_finder_idle(const lupe_line_finder *f) {
  return !f->looking;
}

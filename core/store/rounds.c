#include "core/store/rounds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"

enum {
  ROUND_TIMEOUT_MS = 5000, /* a process that is stopped or swapped out does not hold up the others */
  LAST_ROUND_MS = 2000,
  PACE_MAX_MS =
      600000, /* one slow dump (a stopped process, a swapped-out one) is not the end of all rounds */
};

struct lupe_rounds {
  lupe_rounds_options options;
  uv_timer_t next, deadline;
  bool open, finishing, closed;
  uint32_t lines_ms;     /* of the last one; 0 before it */
  uint64_t serial, tick; /* of the open one */
  uint64_t spent_ns;     /* on prof.dump in it, by all processes */
  uint64_t pace_ms;      /* what the budget allows */
  void (*finished)(void *arg, lupe_status status, lupe_snapshot *snapshot);
  void *finished_arg;
  uint32_t open_handles;
};

static void begin(lupe_rounds *r, uint64_t timeout_ms);

uint64_t lupe_rounds_interval_ms(const lupe_rounds *r) {
  uint64_t interval = lupe_aggregator_heap_interval_ms(r->options.aggregator);
  return interval > r->pace_ms ? interval : r->pace_ms;
}

bool lupe_rounds_open(const lupe_rounds *r) {
  return r->open || r->finishing;
}

static void on_due(uv_timer_t *timer) {
  lupe_rounds *r = timer->data;
  if (!lupe_rounds_open(r)) begin(r, ROUND_TIMEOUT_MS);
}

/* On the loop, after a round's snapshot was built. */
static void after_round(void *arg, const lupe_job *j) {
  lupe_rounds *r = arg;
  double pace_ms = (double)r->spent_ns / 1e6 / r->options.profile_budget;
  r->pace_ms = pace_ms < PACE_MAX_MS ? (uint64_t)pace_ms : PACE_MAX_MS;
  if (r->finishing && j->pid == LUPE_TARGET_ALL) {
    r->finished(r->finished_arg, j->status, j->snapshot);
    return;
  }
  lupe_latest_publish(r->options.latest, j);
  if (r->closed) return;
  if (r->finishing) {
    begin(r, LAST_ROUND_MS);
  } else {
    uv_timer_start(&r->next, on_due, lupe_rounds_interval_ms(r), 0);
  }
}

static bool is_complete(const lupe_rounds *r) {
  lupe_session *s;
  for (lupe_connection *at = NULL; (s = lupe_connections_next(r->options.connections, &at));) {
    if (lupe_session_awaits_profile(s, r->serial)) return false;
  }
  return true;
}

static void end(lupe_rounds *r) {
  r->open = false;
  uv_timer_stop(&r->deadline);
  lupe_agent_cost cost;
  lupe_connections_cost(r->options.connections, &cost);
  lupe_aggregator_set_losses(r->options.aggregator, cost.dropped_records, cost.truncated_stacks);
  lupe_connections_drain(r->options.connections);
  r->options.latest->unseen = false;
  lupe_job job = {
      .kind = LUPE_JOB_END_ROUND,
      .pid = r->finishing ? LUPE_TARGET_ALL : LUPE_TARGET_ALL_LIVE,
      .window_ms = r->finishing ? LUPE_WINDOW_MAX_MS : LUPE_WINDOW_MS,
      .lines_ms = r->lines_ms,
      .done = after_round,
      .arg = r,
  };
  lupe_status status = lupe_jobs_add(r->options.jobs, &job);
  if (status != LUPE_OK) {
    fprintf(stderr, "lupe: a profile round was lost: %s\n", lupe_status_text(status));
    if (r->finishing) r->finished(r->finished_arg, status, NULL);
  }
}

static void end_when_complete(lupe_rounds *r) {
  if (r->open && is_complete(r)) end(r);
}

void lupe_rounds_left(lupe_rounds *r) {
  if (!r->closed) end_when_complete(r);
}

static void on_deadline(uv_timer_t *timer) {
  lupe_rounds *r = timer->data;
  if (r->open) end(r);
}

static void begin(lupe_rounds *r, uint64_t timeout_ms) {
  lupe_session *s;
  lupe_connections_measure(r->options.connections, LUPE_TARGET_ALL_LIVE);
  lupe_status status = lupe_aggregator_begin_round(r->options.aggregator, lupe_unix_ms(), &r->tick);
  if (status != LUPE_OK) { /* the end of the last one was lost for want of memory */
    if (r->finishing) r->finished(r->finished_arg, status, NULL);
    return;
  }
  r->open = true;
  r->serial++;
  r->spent_ns = 0;
  for (lupe_connection *at = NULL; (s = lupe_connections_next(r->options.connections, &at));)
    (void)lupe_session_request_profile(s, r->serial); /* refused, this one is not waited for */
  uv_timer_start(&r->deadline, on_deadline, timeout_ms, 0);
  end_when_complete(r);
}

static void after_ingest(void *arg, const lupe_job *j) {
  const lupe_rounds *r = arg;
  if (j->status == LUPE_OK || r->closed) return;
  fprintf(stderr, "lupe: a heap profile was refused: %s%s%s\n", lupe_status_text(j->status),
          j->why ? ": " : "", j->why ? j->why : "");
}

void lupe_rounds_profiled(lupe_rounds *r, lupe_session *s, const lupe_profile_reply *reply, int fd) {
  bool of_this_round = r->open && reply->serial == r->serial;
  r->spent_ns += reply->elapsed_ns;
  if (fd >= 0) {
    lupe_session_drain(s); /* so that allocations and the profile belong to the same moment */
    lupe_job job = {
        .kind = LUPE_JOB_INGEST,
        .target = lupe_target_retain(lupe_session_target(s)),
        .fd = fd,
        .tick = of_this_round ? r->tick : 0,
        .done = after_ingest,
        .arg = r,
    };
    lupe_status status = lupe_jobs_add(r->options.jobs, &job);
    if (status != LUPE_OK) {
      fprintf(stderr, "lupe: a heap profile was lost: %s\n", lupe_status_text(status));
      lupe_target_release(job.target);
      close(fd);
    }
  } else {
    fprintf(stderr, "lupe: process %d could not take a heap profile: %s\n", (int)lupe_session_pid(s),
            strerror(reply->status));
  }
  end_when_complete(r);
}

/* -- life ------------------------------------------------------------------------------------- */

lupe_status lupe_rounds_create(lupe_rounds **out, const lupe_rounds_options *options) {
  lupe_rounds *r = calloc(1, sizeof *r);
  if (!r) return LUPE_ENOMEM;
  r->options = *options;
  *out = r;
  return LUPE_OK;
}

static void init_timer(lupe_rounds *r, uv_loop_t *loop, uv_timer_t *timer) {
  uv_timer_init(loop, timer);
  timer->data = r;
  r->open_handles++;
}

void lupe_rounds_start(lupe_rounds *r, uv_loop_t *loop) {
  init_timer(r, loop, &r->next);
  init_timer(r, loop, &r->deadline);
  uv_timer_start(&r->next, on_due, lupe_aggregator_heap_interval_ms(r->options.aggregator), 0);
}

void lupe_rounds_finish(lupe_rounds *r, uint32_t lines_ms,
                        void (*done)(void *arg, lupe_status status, lupe_snapshot *snapshot), void *arg) {
  r->finishing = true;
  r->lines_ms = lines_ms;
  r->finished = done;
  r->finished_arg = arg;
  uv_timer_stop(&r->next);
  if (!r->open && lupe_jobs_count(r->options.jobs, LUPE_JOB_END_ROUND) == 0) begin(r, LAST_ROUND_MS);
  if (r->open) uv_timer_start(&r->deadline, on_deadline, LAST_ROUND_MS, 0); /* also one that was open */
}

static void on_timer_closed(uv_handle_t *handle) {
  lupe_rounds *r = handle->data;
  r->open_handles--;
  r->options.idle(r->options.arg);
}

void lupe_rounds_close(lupe_rounds *r) {
  r->closed = true;
  uv_close((uv_handle_t *)&r->next, on_timer_closed);
  uv_close((uv_handle_t *)&r->deadline, on_timer_closed);
}

bool lupe_rounds_idle(const lupe_rounds *r) {
  return r->open_handles == 0;
}

void lupe_rounds_free(lupe_rounds *r) {
  free(r);
}

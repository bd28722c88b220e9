#include "core/store/collector.h"

#include <stdlib.h>

#include "core/clock.h"
#include "core/store/connections.h"
#include "core/store/jobs.h"
#include "core/store/latest.h"
#include "core/store/line_finder.h"
#include "core/store/rounds.h"

enum {
  DRAIN_INTERVAL_MS = 100, /* a ring holds some 4,000 samples; at 512 KiB each that is 20 GB/s */
  DRAINS_PER_ABSORB = 10,
  RECORDS_APART_MS = 100, /* of the memory series, however many processes exit */
  FIRST_READING_MS = 250, /* of the memory figures: the start of the series */
};

struct lupe_collector {
  lupe_aggregator *aggregator;
  void (*on_snapshot)(void *arg, lupe_snapshot *latest);
  void *on_snapshot_arg;
  uv_timer_t drain, memory;
  lupe_connections *connections;
  lupe_rounds *rounds;
  lupe_commands commands;
  lupe_proofs proofs;
  lupe_jobs *jobs;
  lupe_line_finder *lines;
  lupe_latest latest;
  uint32_t drains;    /* since samples were absorbed last */
  double recorded_ms; /* when the memory series got its last row */
  bool closing;
  lupe_collector_close_cb closed;
  void *closed_arg;
  uint32_t open_handles;
};

/* -- what comes ------------------------------------------------------------------------------- */

/* Refused, it is done by the one that waits, or the next time. */
static void absorb(lupe_collector *c) {
  c->drains = 0;
  if (!lupe_aggregator_unabsorbed(c->aggregator)) return;
  lupe_job job = {.kind = LUPE_JOB_ABSORB};
  (void)lupe_jobs_add(c->jobs, &job);
  c->latest.unseen = true;
}

static void record_memory(lupe_collector *c) {
  double now = lupe_unix_ms();
  if (now - c->recorded_ms < RECORDS_APART_MS) return;
  c->recorded_ms = now;
  lupe_aggregator_record_memory(c->aggregator, now);
}

static void on_profiled(void *arg, lupe_session *s, const lupe_profile_reply *reply, int fd) {
  lupe_collector *c = arg;
  if (fd >= 0) lupe_session_measure(s); /* what the allocator said at the same moment */
  /* The last one of a process that exits: its figures would miss the series. */
  if (reply->serial == 0) record_memory(c);
  lupe_rounds_profiled(c->rounds, s, reply, fd);
}

static void on_commanded(void *arg, lupe_session *s, const lupe_command_reply *reply) {
  lupe_collector *c = arg;
  lupe_commands_answered(&c->commands, s, reply);
}

static void on_proved(void *arg, lupe_session *s, const lupe_proof_reply *reply, int fd) {
  lupe_collector *c = arg;
  lupe_proofs_answered(&c->proofs, c->jobs, s, reply, fd);
  c->latest.unseen = true;
}

/* Read at once: a short program may be gone soon. */
static void on_mapped(void *arg) {
  absorb(arg);
}

static void on_leaving(void *arg, const lupe_session *s) {
  lupe_collector *c = arg;
  lupe_commands_forget(&c->commands, s);
  lupe_proofs_forget(&c->proofs, s);
}

static void on_left(void *arg) {
  lupe_collector *c = arg;
  lupe_rounds_left(c->rounds);
}

static void on_latest(void *arg, lupe_snapshot *latest) {
  lupe_collector *c = arg;
  lupe_line_finder_look(c->lines);
  c->on_snapshot(c->on_snapshot_arg, latest);
}

static void on_drain(uv_timer_t *timer) {
  lupe_collector *c = timer->data;
  lupe_connections_tend(c->connections);
  lupe_commands_expire(&c->commands, lupe_unix_ms());
  lupe_proofs_expire(&c->proofs, lupe_unix_ms());
  if (++c->drains < DRAINS_PER_ABSORB) return;
  /* Between two rounds that are far apart, what runs now shows all the same. */
  if (!lupe_rounds_open(c->rounds)) lupe_latest_refresh(&c->latest);
  absorb(c);
}

static void on_memory_due(uv_timer_t *timer) {
  lupe_collector *c = timer->data;
  lupe_collector_measure(c, LUPE_TARGET_ALL_LIVE);
  record_memory(c);
}

/* -- what is asked ---------------------------------------------------------------------------- */

void lupe_collector_set_rates(lupe_collector *c, uint32_t cpu_hz, uint32_t wall_hz) {
  lupe_connections_set_rates(c->connections, cpu_hz, wall_hz);
}

void lupe_collector_set_proof_at_exit(lupe_collector *c, const lupe_proof_limits *limits) {
  lupe_connections_set_proof_at_exit(c->connections, limits);
}

lupe_status lupe_collector_command(lupe_collector *c, pid_t pid, const lupe_agent_command *what,
                                   lupe_command_cb done, void *arg) {
  lupe_session *s = lupe_connections_find(c->connections, pid);
  return s ? lupe_commands_send(&c->commands, s, what, done, arg) : LUPE_ENOENT;
}

lupe_status lupe_collector_prove(lupe_collector *c, pid_t pid, const lupe_proof_limits *limits,
                                 lupe_proof_cb done, void *arg) {
  lupe_session *s = lupe_connections_find(c->connections, pid);
  return s ? lupe_proofs_ask(&c->proofs, s, limits, done, arg) : LUPE_ENOENT;
}

void lupe_collector_measure(lupe_collector *c, int32_t pid) {
  lupe_connections_measure(c->connections, pid);
}

void lupe_collector_cost(const lupe_collector *c, lupe_agent_cost *out) {
  lupe_connections_cost(c->connections, out);
}

lupe_status lupe_collector_allocator(const lupe_collector *c, int32_t pid, lupe_allocator_figures *out) {
  lupe_session *s;
  for (lupe_connection *at = NULL; (s = lupe_connections_next(c->connections, &at));) {
    if (pid > 0 && lupe_session_pid(s) != pid) continue;
    if (lupe_session_allocator(s, out) == LUPE_OK) return LUPE_OK;
  }
  return LUPE_ENOENT;
}

bool lupe_collector_connected(const lupe_collector *c, pid_t pid) {
  return lupe_connections_find(c->connections, pid) != NULL;
}

uint64_t lupe_collector_refused(const lupe_collector *c) {
  return lupe_connections_refused(c->connections);
}

uint32_t lupe_collector_round_interval_ms(const lupe_collector *c) {
  return (uint32_t)lupe_rounds_interval_ms(c->rounds);
}

lupe_snapshot *lupe_collector_latest(const lupe_collector *c) {
  return c->latest.snapshot;
}

typedef struct question {
  lupe_collector_snapshot_cb done;
  void *arg;
} question;

static void answer(void *arg, const lupe_job *j) {
  question q = *(question *)arg;
  free(arg);
  q.done(q.arg, j->status, j->snapshot);
}

lupe_status lupe_collector_snapshot(lupe_collector *c, int32_t pid, uint32_t window_ms,
                                    lupe_collector_snapshot_cb done, void *arg) {
  question *q = malloc(sizeof *q);
  if (!q) return LUPE_ENOMEM;
  *q = (question){done, arg};
  lupe_connections_drain(c->connections);
  lupe_job job = {.kind = LUPE_JOB_SNAPSHOT, .pid = pid, .window_ms = window_ms, .done = answer, .arg = q};
  lupe_status status = lupe_jobs_add(c->jobs, &job);
  if (status != LUPE_OK) free(q);
  return status;
}

/* -- life ------------------------------------------------------------------------------------- */

static void free_when_idle(void *arg) {
  lupe_collector *c = arg;
  if (!c->closing || c->open_handles > 0 || !lupe_connections_idle(c->connections) ||
      !lupe_rounds_idle(c->rounds) || !lupe_jobs_idle(c->jobs) || !lupe_line_finder_idle(c->lines))
    return;
  lupe_collector_close_cb closed = c->closed;
  void *closed_arg = c->closed_arg;
  lupe_rounds_free(c->rounds);
  lupe_connections_free(c->connections);
  lupe_latest_release(&c->latest);
  lupe_line_finder_free(c->lines);
  lupe_jobs_free(c->jobs);
  free(c);
  closed(closed_arg);
}

static lupe_status create_connections(lupe_collector *c, uv_loop_t *loop,
                                      const lupe_collector_options *options) {
  lupe_connections_options o = {
      .socket_path = options->socket_path,
      .peers = options->peers,
      .hello_wait_ms = options->hello_wait_ms,
      .welcome = {.version = LUPE_WIRE_VERSION,
                  .enabled = 1,
                  .figures_interval_ms = 1000,
                  .cpu_hz = options->cpu_hz,
                  .wall_hz = options->wall_hz,
                  .proof_at_exit = options->proof_at_exit,
                  .comes_back = options->comes_back,
                  .proof = options->proof},
      .events = {.session = {.profiled = on_profiled,
                             .commanded = on_commanded,
                             .proved = on_proved,
                             .mapped = on_mapped,
                             .arg = c},
                 .leaving = on_leaving,
                 .left = on_left,
                 .idle = free_when_idle},
  };
  return lupe_connections_create(&c->connections, loop, c->aggregator, &o);
}

static lupe_status create_rounds(lupe_collector *c, double profile_budget) {
  lupe_rounds_options o = {
      .aggregator = c->aggregator,
      .connections = c->connections,
      .jobs = c->jobs,
      .latest = &c->latest,
      .profile_budget = profile_budget,
      .idle = free_when_idle,
      .arg = c,
  };
  return lupe_rounds_create(&c->rounds, &o);
}

static void start_timer(lupe_collector *c, uv_loop_t *loop, uv_timer_t *timer, uv_timer_cb on_due,
                        uint64_t first_ms, uint64_t repeat_ms) {
  uv_timer_init(loop, timer);
  timer->data = c;
  c->open_handles++;
  uv_timer_start(timer, on_due, first_ms, repeat_ms);
}

lupe_status lupe_collector_create(lupe_collector **out, uv_loop_t *loop, lupe_pool *pool, lupe_aggregator *a,
                                  const lupe_collector_options *options) {
  lupe_collector *c = calloc(1, sizeof *c);
  if (!c) return LUPE_ENOMEM;
  c->aggregator = a;
  c->on_snapshot = options->on_snapshot;
  c->on_snapshot_arg = options->arg;
  lupe_status status = lupe_jobs_create(&c->jobs, pool, a, free_when_idle, c);
  if (status != LUPE_OK) goto no_jobs;
  c->latest = (lupe_latest){.jobs = c->jobs, .on_snapshot = on_latest, .arg = c};
  status = lupe_line_finder_create(&c->lines, pool, a, free_when_idle, c);
  if (status != LUPE_OK) goto no_lines;
  status = create_connections(c, loop, options);
  if (status != LUPE_OK) goto no_connections;
  status = create_rounds(c, options->profile_budget);
  if (status != LUPE_OK) goto no_rounds;

  lupe_connections_start(c->connections);
  start_timer(c, loop, &c->drain, on_drain, DRAIN_INTERVAL_MS, DRAIN_INTERVAL_MS);
  lupe_rounds_start(c->rounds, loop);
  start_timer(c, loop, &c->memory, on_memory_due, FIRST_READING_MS, options->memory_interval_ms);
  *out = c;
  return LUPE_OK;

no_rounds:
  lupe_connections_free(c->connections);
no_connections:
  lupe_line_finder_free(c->lines);
no_lines:
  lupe_jobs_free(c->jobs);
no_jobs:
  free(c);
  return status;
}

void lupe_collector_finish(lupe_collector *c, uint32_t lines_ms, lupe_collector_snapshot_cb done, void *arg) {
  lupe_connections_receive(c->connections);
  record_memory(c);
  lupe_rounds_finish(c->rounds, lines_ms, done, arg);
}

static void on_timer_closed(uv_handle_t *handle) {
  lupe_collector *c = handle->data;
  c->open_handles--;
  free_when_idle(c);
}

void lupe_collector_close(lupe_collector *c, lupe_collector_close_cb done, void *arg) {
  c->closing = true;
  c->closed = done;
  c->closed_arg = arg;
  lupe_latest_close(&c->latest);
  lupe_rounds_close(c->rounds);
  lupe_connections_close(c->connections);
  uv_close((uv_handle_t *)&c->drain, on_timer_closed);
  uv_close((uv_handle_t *)&c->memory, on_timer_closed);
}

#include "core/store/collector.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/store/jobs.h"
#include "core/store/line_finder.h"
#include "core/wire/channel.h"

enum {
  DRAIN_INTERVAL_MS = 100, /* a ring holds some 4,000 samples; at 512 KiB each that is 20 GB/s */
  ROUND_TIMEOUT_MS = 5000, /* a process that is stopped or swapped out does not hold up the others */
  LAST_ROUND_MS = 2000,
  RECORDS_APART_MS = 100, /* of the memory series, however many processes exit */
  FIRST_READING_MS = 250, /* of the memory figures: the start of the series */
  DRAINS_PER_ABSORB = 10,
  SAMPLES_AGE_MS = 5000, /* of the newest snapshot, however rare rounds have become; and it is built anew */
  BUILD_SHARE = 200,     /* for at most one part of the time */
  HELLO_WAIT_MS = 10000, /* a forked child says nothing for 0.1 s */
  SILENT_MAX = 256,      /* of one user */
  PACE_MAX_MS =
      600000, /* one slow dump (a stopped process, a swapped-out one) is not the end of all rounds */
};

typedef struct connection {
  uv_poll_t poll;
  struct connection *next;
  lupe_collector *collector;
  lupe_session *session; /* NULL once it is gone and only the handle is left to close */
  uint64_t since_ms;     /* of the loop's clock */
  bool awaited;          /* a profile of the open round is due */
  bool rates_due;        /* it has not been told of the rates that hold now */
  bool exit_due;         /* nor whether it is to prove as it exits */
} connection;

struct lupe_collector {
  uv_loop_t *loop;
  lupe_aggregator *aggregator;
  lupe_collector_options options;
  char *socket_path;
  int listen_fd;
  uv_poll_t listening;
  uv_timer_t drain, rounds, memory, deadline;
  connection *connections;
  lupe_commands commands;
  lupe_proofs proofs;
  lupe_jobs *jobs;
  lupe_line_finder *lines;
  uint32_t drains;   /* since samples were absorbed last */
  bool unseen;       /* there are samples or a leak proof that `latest` lacks */
  double refresh_ms; /* Unix time when `latest` may be built anew for them */
  bool round_open, stopping, finishing;
  uint32_t lines_ms; /* of the last round; 0 before it */
  uint64_t refused;  /* connections */
  bool deaf;         /* no new connection could be taken; the next look is at the next draining */
  uint64_t serial, tick;
  uint64_t spent_ns;  /* on prof.dump in the open round, by all processes */
  double recorded_ms; /* when the memory series got its last row */
  uint64_t pace_ms;   /* what the budget allows */
  lupe_snapshot *latest;
  lupe_agent_cost departed; /* of sessions that ended */
  lupe_collector_snapshot_cb finished;
  void *finished_arg;
  lupe_collector_close_cb closed;
  void *closed_arg;
  uint32_t open_handles;
};

static void end_round_when_complete(lupe_collector *c);
static void begin_round(lupe_collector *c, uint64_t timeout_ms);
static void free_when_idle(void *arg);

/* -- samples ---------------------------------------------------------------------------------- */

static void drain_all(lupe_collector *c) {
  for (connection *k = c->connections; k; k = k->next) {
    if (k->session) lupe_session_drain(k->session);
  }
}

/* Refused, it is done by the one that waits, or the next time. */
static void absorb(lupe_collector *c) {
  c->drains = 0;
  if (!lupe_aggregator_unabsorbed(c->aggregator)) return;
  lupe_job job = {.kind = LUPE_JOB_ABSORB};
  (void)lupe_jobs_add(c->jobs, &job);
  c->unseen = true;
}

static void publish(lupe_collector *c, const lupe_job *j) {
  if (j->status != LUPE_OK) {
    if (!c->stopping) fprintf(stderr, "lupe: no snapshot could be built: %s\n", lupe_status_text(j->status));
    return;
  }
  double pause_ms = j->elapsed_ms * BUILD_SHARE;
  c->refresh_ms = lupe_unix_ms() + (pause_ms > SAMPLES_AGE_MS ? pause_ms : SAMPLES_AGE_MS);
  lupe_snapshot_release(c->latest);
  c->latest = j->snapshot;
  if (c->stopping) return;
  lupe_line_finder_look(c->lines);
  c->options.on_snapshot(c->options.arg, c->latest);
}

static void after_refresh(void *arg, const lupe_job *j) {
  publish(arg, j);
}

/* Between two rounds that are far apart, what runs now shows all the same. */
static void refresh(lupe_collector *c) {
  if (!c->unseen || c->round_open || c->finishing || !lupe_jobs_idle(c->jobs)) return;
  if (lupe_unix_ms() < c->refresh_ms) return;
  lupe_job job = {.kind = LUPE_JOB_SNAPSHOT,
                  .pid = LUPE_TARGET_ALL_LIVE,
                  .window_ms = LUPE_WINDOW_MS,
                  .done = after_refresh,
                  .arg = c};
  if (lupe_jobs_add(c->jobs, &job) == LUPE_OK) c->unseen = false;
}

/* -- rounds ----------------------------------------------------------------------------------- */

static uint64_t round_interval_ms(const lupe_collector *c) {
  uint64_t interval = lupe_aggregator_heap_interval_ms(c->aggregator);
  return interval > c->pace_ms ? interval : c->pace_ms;
}

static void after_round(void *arg, const lupe_job *j);

static void end_round_when_complete(lupe_collector *c) {
  if (!c->round_open) return;
  for (connection *k = c->connections; k; k = k->next) {
    if (k->session && k->awaited) return;
  }
  c->round_open = false;
  uv_timer_stop(&c->deadline);
  lupe_agent_cost cost;
  lupe_collector_cost(c, &cost);
  lupe_aggregator_set_losses(c->aggregator, cost.dropped_records, cost.truncated_stacks);
  drain_all(c);
  c->unseen = false;
  lupe_job job = {
      .kind = LUPE_JOB_END_ROUND,
      .pid = c->finishing ? LUPE_TARGET_ALL : LUPE_TARGET_ALL_LIVE,
      .window_ms = c->finishing ? LUPE_WINDOW_MAX_MS : LUPE_WINDOW_MS,
      .lines_ms = c->lines_ms,
      .done = after_round,
      .arg = c,
  };
  lupe_status status = lupe_jobs_add(c->jobs, &job);
  if (status != LUPE_OK) {
    fprintf(stderr, "lupe: a profile round was lost: %s\n", lupe_status_text(status));
    if (c->finishing) c->finished(c->finished_arg, status, NULL);
  }
}

static void on_deadline(uv_timer_t *timer) {
  lupe_collector *c = timer->data;
  for (connection *k = c->connections; k; k = k->next) k->awaited = false;
  end_round_when_complete(c);
}

static void begin_round(lupe_collector *c, uint64_t timeout_ms) {
  lupe_collector_measure(c, LUPE_TARGET_ALL_LIVE);
  lupe_status status = lupe_aggregator_begin_round(c->aggregator, lupe_unix_ms(), &c->tick);
  if (status != LUPE_OK) { /* the end of the last one was lost for want of memory */
    if (c->finishing) c->finished(c->finished_arg, status, NULL);
    return;
  }
  c->round_open = true;
  c->serial++;
  c->spent_ns = 0;
  for (connection *k = c->connections; k; k = k->next) {
    k->awaited = k->session && lupe_session_request_profile(k->session, c->serial) == LUPE_OK;
  }
  uv_timer_start(&c->deadline, on_deadline, timeout_ms, 0);
  end_round_when_complete(c);
}

static void on_round_due(uv_timer_t *timer) {
  lupe_collector *c = timer->data;
  if (!c->round_open && !c->finishing) begin_round(c, ROUND_TIMEOUT_MS);
}

/* On the loop, after a round's snapshot was built. */
static void after_round(void *arg, const lupe_job *j) {
  lupe_collector *c = arg;
  double pace_ms = (double)c->spent_ns / 1e6 / c->options.profile_budget;
  c->pace_ms = pace_ms < PACE_MAX_MS ? (uint64_t)pace_ms : PACE_MAX_MS;
  if (c->finishing && j->pid == LUPE_TARGET_ALL) {
    c->finished(c->finished_arg, j->status, j->snapshot);
    return;
  }
  publish(c, j);
  if (c->stopping) return;
  if (c->finishing) {
    begin_round(c, LAST_ROUND_MS);
  } else {
    uv_timer_start(&c->rounds, on_round_due, round_interval_ms(c), 0);
  }
}

static void after_ingest(void *arg, const lupe_job *j) {
  const lupe_collector *c = arg;
  if (j->status == LUPE_OK || c->stopping) return;
  fprintf(stderr, "lupe: a heap profile was refused: %s%s%s\n", lupe_status_text(j->status),
          j->why ? ": " : "", j->why ? j->why : "");
}

static void record_memory(lupe_collector *c) {
  double now = lupe_unix_ms();
  if (now - c->recorded_ms < RECORDS_APART_MS) return;
  c->recorded_ms = now;
  lupe_aggregator_record_memory(c->aggregator, now);
}

static void on_profiled(void *arg, lupe_session *s, const lupe_profile_reply *reply, int fd) {
  connection *k = arg;
  lupe_collector *c = k->collector;
  bool of_this_round = c->round_open && reply->serial == c->serial;
  if (of_this_round) k->awaited = false;
  if (fd >= 0) lupe_session_measure(s); /* what the allocator said at the same moment */
  /* The last one of a process that exits: its figures would miss the series. */
  if (reply->serial == 0) record_memory(c);
  c->spent_ns += reply->elapsed_ns;
  if (fd >= 0) {
    lupe_session_drain(s); /* so that allocations and the profile belong to the same moment */
    lupe_job job = {
        .kind = LUPE_JOB_INGEST,
        .target = lupe_target_retain(lupe_session_target(s)),
        .fd = fd,
        .tick = of_this_round ? c->tick : 0,
        .done = after_ingest,
        .arg = c,
    };
    lupe_status status = lupe_jobs_add(c->jobs, &job);
    if (status != LUPE_OK) {
      fprintf(stderr, "lupe: a heap profile was lost: %s\n", lupe_status_text(status));
      lupe_target_release(job.target);
      close(fd);
    }
  } else {
    fprintf(stderr, "lupe: process %d could not take a heap profile: %s\n", (int)lupe_session_pid(s),
            strerror(reply->status));
  }
  end_round_when_complete(c);
}

static void on_commanded(void *arg, lupe_session *s, const lupe_command_reply *reply) {
  lupe_commands_answered(&((connection *)arg)->collector->commands, s, reply);
}

static void on_proved(void *arg, lupe_session *s, const lupe_proof_reply *reply, int fd) {
  lupe_collector *c = ((connection *)arg)->collector;
  lupe_proofs_answered(&c->proofs, c->jobs, s, reply, fd);
  c->unseen = true;
}

/* Read at once: a short program may be gone soon. */
static void on_mapped(void *arg) {
  absorb(((connection *)arg)->collector);
}

/* -- connections ------------------------------------------------------------------------------ */

static void on_handle_closed(uv_handle_t *handle) {
  lupe_collector *c = handle->data;
  c->open_handles--;
  free_when_idle(c);
}

static void on_connection_closed(uv_handle_t *handle) {
  connection *k = handle->data;
  lupe_collector *c = k->collector;
  connection **link = &c->connections;
  while (*link != k) link = &(*link)->next;
  *link = k->next;
  free(k);
  c->open_handles--;
  free_when_idle(c);
}

static void disconnect(connection *k) {
  lupe_collector *c = k->collector;
  if (!k->session) return;
  uv_poll_stop(&k->poll);
  lupe_session_drain(k->session);
  lupe_session_add_cost(k->session, &c->departed);
  c->departed.own_heap_bytes = 0; /* it went with its process */
  lupe_session *ended = k->session;
  k->session = NULL;
  lupe_commands_forget(&c->commands, ended);
  lupe_proofs_forget(&c->proofs, ended);
  lupe_session_free(ended);
  k->awaited = false;
  uv_close((uv_handle_t *)&k->poll, on_connection_closed);
}

static void receive(connection *k) {
  if (k->session && lupe_session_receive(k->session) == LUPE_ENOENT) {
    disconnect(k);
    end_round_when_complete(k->collector);
  }
}

static void on_readable(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events; /* an error shows again, with its reason, when reading */
  receive(poll->data);
}

/* The first one is told; whoever does it on purpose shall not fill the log. */
static void refuse(lupe_collector *c, pid_t pid, const char *why) {
  if (c->refused++ > 0) return;
  fprintf(stderr,
          "lupe: process %d could not be taken in: %s; further ones are only counted "
          "(lupe_refused_connections)\n",
          (int)pid, why);
}

static bool is_silent(const connection *k) {
  return k->session && !lupe_session_target(k->session);
}

/* Nobody but lupe's own user takes all descriptors by connecting. */
static bool has_too_many(const lupe_collector *c, uid_t uid) {
  size_t count = 0;
  if (uid == geteuid()) return false;
  for (const connection *k = c->connections; k; k = k->next) {
    count += is_silent(k) && lupe_session_uid(k->session) == uid;
  }
  return count >= SILENT_MAX;
}

static void end_silent(lupe_collector *c) {
  uint64_t wait_ms = c->options.hello_wait_ms ? c->options.hello_wait_ms : HELLO_WAIT_MS;
  for (connection *k = c->connections; k; k = k->next) {
    if (!is_silent(k) || uv_now(c->loop) - k->since_ms < wait_ms) continue;
    receive(k); /* it may have spoken while this process stood still */
    if (!is_silent(k)) continue;
    refuse(c, lupe_session_pid(k->session), "it has connected and says nothing");
    disconnect(k);
  }
}

static lupe_status adopt(lupe_collector *c, int fd) {
  connection *k = calloc(1, sizeof *k);
  if (!k) {
    close(fd);
    return LUPE_ENOMEM;
  }
  k->collector = c;
  lupe_welcome welcome = {
      .version = LUPE_WIRE_VERSION,
      .enabled = 1,
      .figures_interval_ms = 1000,
      .cpu_hz = c->options.cpu_hz,
      .wall_hz = c->options.wall_hz,
      .proof_at_exit = c->options.proof_at_exit,
      .comes_back = c->options.comes_back,
      .proof = c->options.proof,
  };
  lupe_session_events events = {
      .profiled = on_profiled, .commanded = on_commanded, .proved = on_proved, .mapped = on_mapped, .arg = k};
  lupe_status status =
      lupe_session_create(&k->session, fd, c->aggregator, &welcome, events, &c->options.peers);
  if (status != LUPE_OK) {
    if (status == LUPE_EPERM) c->refused++;
    free(k);
    return status;
  }
  if (has_too_many(c, lupe_session_uid(k->session))) {
    refuse(c, lupe_session_pid(k->session), "its user has too many connections that say nothing");
    lupe_session_free(k->session);
    free(k);
    return LUPE_OK;
  }
  k->since_ms = uv_now(c->loop);
  uv_poll_init(c->loop, &k->poll, fd);
  k->poll.data = k;
  k->next = c->connections;
  c->connections = k;
  c->open_handles++;
  uv_poll_start(&k->poll, UV_READABLE, on_readable);
  return LUPE_OK;
}

static void accept_all(lupe_collector *c) {
  for (;;) {
    int fd;
    lupe_status status = lupe_channel_accept(c->listen_fd, &fd);
    if (status == LUPE_EAGAIN) {
      c->deaf = false;
      return;
    }
    if (status != LUPE_OK) { /* out of descriptors: it stays readable, and would take the whole loop */
      if (!c->deaf) {
        fprintf(stderr, "lupe: a process could not be taken in, and may end unprofiled: %s\n",
                strerror(errno));
      }
      c->deaf = true;
      return;
    }
    status = adopt(c, fd);
    if (status != LUPE_OK) {
      fprintf(stderr, "lupe: a process could not be taken in: %s\n", lupe_status_text(status));
    }
  }
}

static void on_connecting(uv_poll_t *poll, int status, int events) {
  (void)status, (void)events;
  lupe_collector *c = poll->data;
  accept_all(c);
  if (c->deaf) uv_poll_stop(&c->listening);
}

static void listen_again(lupe_collector *c) {
  accept_all(c);
  if (!c->deaf) uv_poll_start(&c->listening, UV_READABLE, on_connecting);
}

/* -- commands and leak proofs ----------------------------------------------------------------- */

static void tell_rates(const lupe_collector *c) {
  for (connection *k = c->connections; k; k = k->next) {
    if (!k->session || !k->rates_due) continue;
    lupe_status status = lupe_session_set_rates(k->session, c->options.cpu_hz, c->options.wall_hz);
    k->rates_due = status == LUPE_EAGAIN; /* anything else: it is gone, as reading will show */
  }
}

void lupe_collector_set_rates(lupe_collector *c, uint32_t cpu_hz, uint32_t wall_hz) {
  if (c->options.cpu_hz == cpu_hz && c->options.wall_hz == wall_hz) return;
  c->options.cpu_hz = cpu_hz;
  c->options.wall_hz = wall_hz;
  lupe_aggregator_set_rates(c->aggregator, cpu_hz, wall_hz, lupe_unix_ms());
  for (connection *k = c->connections; k; k = k->next) k->rates_due = true;
  tell_rates(c);
}

static void tell_exits(const lupe_collector *c) {
  for (connection *k = c->connections; k; k = k->next) {
    if (!k->session || !k->exit_due) continue;
    const lupe_proof_limits *limits = c->options.proof_at_exit ? &c->options.proof : NULL;
    k->exit_due = lupe_session_set_proof_at_exit(k->session, limits) == LUPE_EAGAIN;
  }
}

void lupe_collector_set_proof_at_exit(lupe_collector *c, const lupe_proof_limits *limits) {
  c->options.proof_at_exit = limits != NULL;
  c->options.proof = limits ? *limits : (lupe_proof_limits){0};
  for (connection *k = c->connections; k; k = k->next) k->exit_due = true;
  tell_exits(c);
}

/* The one whose agent speaks for `pid`; NULL. */
static lupe_session *session_of(const lupe_collector *c, pid_t pid) {
  for (connection *k = c->connections; k; k = k->next) {
    if (k->session && lupe_session_target(k->session) && lupe_session_pid(k->session) == pid)
      return k->session;
  }
  return NULL;
}

lupe_status lupe_collector_command(lupe_collector *c, pid_t pid, const lupe_agent_command *what,
                                   lupe_command_cb done, void *arg) {
  lupe_session *s = session_of(c, pid);
  return s ? lupe_commands_send(&c->commands, s, what, done, arg) : LUPE_ENOENT;
}

lupe_status lupe_collector_prove(lupe_collector *c, pid_t pid, const lupe_proof_limits *limits,
                                 lupe_proof_cb done, void *arg) {
  lupe_session *s = session_of(c, pid);
  return s ? lupe_proofs_ask(&c->proofs, s, limits, done, arg) : LUPE_ENOENT;
}

/* -- figures ---------------------------------------------------------------------------------- */

static void on_drain(uv_timer_t *timer) {
  lupe_collector *c = timer->data;
  if (c->deaf) listen_again(c);
  end_silent(c);
  drain_all(c);
  tell_rates(c);
  tell_exits(c);
  lupe_commands_expire(&c->commands, lupe_unix_ms());
  lupe_proofs_expire(&c->proofs, lupe_unix_ms());
  if (++c->drains < DRAINS_PER_ABSORB) return;
  refresh(c);
  absorb(c);
}

static void on_memory_due(uv_timer_t *timer) {
  lupe_collector *c = timer->data;
  lupe_collector_measure(c, LUPE_TARGET_ALL_LIVE);
  record_memory(c);
}

void lupe_collector_measure(lupe_collector *c, int32_t pid) {
  for (connection *k = c->connections; k; k = k->next) {
    if (!k->session || (pid > 0 && lupe_session_pid(k->session) != pid)) continue;
    lupe_session_measure(k->session);
  }
}

void lupe_collector_cost(const lupe_collector *c, lupe_agent_cost *out) {
  *out = c->departed;
  for (connection *k = c->connections; k; k = k->next) {
    if (k->session) lupe_session_add_cost(k->session, out);
  }
}

lupe_status lupe_collector_allocator(const lupe_collector *c, int32_t pid, lupe_allocator_figures *out) {
  for (connection *k = c->connections; k; k = k->next) {
    if (!k->session || (pid > 0 && lupe_session_pid(k->session) != pid)) continue;
    if (lupe_session_allocator(k->session, out) == LUPE_OK) return LUPE_OK;
  }
  return LUPE_ENOENT;
}

bool lupe_collector_connected(const lupe_collector *c, pid_t pid) {
  return session_of(c, pid) != NULL;
}

uint64_t lupe_collector_refused(const lupe_collector *c) {
  return c->refused;
}

uint32_t lupe_collector_round_interval_ms(const lupe_collector *c) {
  return (uint32_t)round_interval_ms(c);
}

lupe_snapshot *lupe_collector_latest(const lupe_collector *c) {
  return c->latest;
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
  drain_all(c);
  lupe_job job = {.kind = LUPE_JOB_SNAPSHOT, .pid = pid, .window_ms = window_ms, .done = answer, .arg = q};
  lupe_status status = lupe_jobs_add(c->jobs, &job);
  if (status != LUPE_OK) free(q);
  return status;
}

/* -- life ------------------------------------------------------------------------------------- */

static void start_timer(lupe_collector *c, uv_timer_t *timer, uv_timer_cb on_due, uint64_t first_ms,
                        uint64_t repeat_ms) {
  uv_timer_init(c->loop, timer);
  timer->data = c;
  c->open_handles++;
  if (on_due) uv_timer_start(timer, on_due, first_ms, repeat_ms);
}

lupe_status lupe_collector_create(lupe_collector **out, uv_loop_t *loop, lupe_pool *pool, lupe_aggregator *a,
                                  const lupe_collector_options *options) {
  lupe_collector *c = calloc(1, sizeof *c);
  if (!c) return LUPE_ENOMEM;
  lupe_status status = LUPE_ENOMEM;
  c->loop = loop;
  c->aggregator = a;
  c->options = *options;
  c->socket_path = strdup(options->socket_path);
  if (!c->socket_path) goto no_path;
  status = lupe_jobs_create(&c->jobs, pool, a, free_when_idle, c);
  if (status != LUPE_OK) goto no_jobs;
  status = lupe_line_finder_create(&c->lines, pool, a, free_when_idle, c);
  if (status != LUPE_OK) goto no_lines;
  status = lupe_channel_listen(c->socket_path, &c->listen_fd);
  if (status != LUPE_OK) goto no_socket;

  uv_poll_init(loop, &c->listening, c->listen_fd);
  c->listening.data = c;
  c->open_handles = 1;
  uv_poll_start(&c->listening, UV_READABLE, on_connecting);
  start_timer(c, &c->drain, on_drain, DRAIN_INTERVAL_MS, DRAIN_INTERVAL_MS);
  start_timer(c, &c->rounds, on_round_due, lupe_aggregator_heap_interval_ms(a), 0);
  start_timer(c, &c->memory, on_memory_due, FIRST_READING_MS, options->memory_interval_ms);
  start_timer(c, &c->deadline, NULL, 0, 0);
  *out = c;
  return LUPE_OK;

no_socket:
  lupe_line_finder_free(c->lines);
no_lines:
  lupe_jobs_free(c->jobs);
no_jobs:
  free(c->socket_path);
no_path:
  free(c);
  return status;
}

void lupe_collector_finish(lupe_collector *c, uint32_t lines_ms, lupe_collector_snapshot_cb done, void *arg) {
  accept_all(c);
  for (connection *k = c->connections; k; k = k->next) receive(k);
  record_memory(c);
  c->finishing = true;
  c->lines_ms = lines_ms;
  c->finished = done;
  c->finished_arg = arg;
  uv_timer_stop(&c->rounds);
  if (!c->round_open && lupe_jobs_count(c->jobs, LUPE_JOB_END_ROUND) == 0) begin_round(c, LAST_ROUND_MS);
  if (c->round_open) uv_timer_start(&c->deadline, on_deadline, LAST_ROUND_MS, 0); /* also one that was open */
}

static void free_when_idle(void *arg) {
  lupe_collector *c = arg;
  if (!c->stopping || c->open_handles > 0 || !lupe_jobs_idle(c->jobs) || !lupe_line_finder_idle(c->lines))
    return;
  lupe_collector_close_cb closed = c->closed;
  void *closed_arg = c->closed_arg;
  unlink(c->socket_path);
  close(c->listen_fd);
  lupe_snapshot_release(c->latest);
  lupe_line_finder_free(c->lines);
  lupe_jobs_free(c->jobs);
  free(c->socket_path);
  free(c);
  closed(closed_arg);
}

void lupe_collector_close(lupe_collector *c, lupe_collector_close_cb done, void *arg) {
  c->stopping = true;
  c->closed = done;
  c->closed_arg = arg;
  for (connection *k = c->connections; k; k = k->next) disconnect(k);
  uv_close((uv_handle_t *)&c->listening, on_handle_closed);
  uv_close((uv_handle_t *)&c->drain, on_handle_closed);
  uv_close((uv_handle_t *)&c->rounds, on_handle_closed);
  uv_close((uv_handle_t *)&c->memory, on_handle_closed);
  uv_close((uv_handle_t *)&c->deadline, on_handle_closed);
}

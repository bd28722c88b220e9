#include "core/agent/sampler.h"

#include <signal.h>
#include <stdatomic.h>

#include "core/agent/cpu.h"
#include "core/agent/own_threads.h"
#include "core/clock.h"

enum {
  SCAN_MS = 200,
  COST_MS = 1000,
  COST_SHARE = 50,        /* of the time at most is spent on listing threads: 1/50; */
  QUIET_COST_SHARE = 400, /* this where there are as many as before */
  SURE_MS = 5000, /* so often threads are listed without any sign: a container may show its own loadavg */
  /* Between two looks at one thread: whether it blocks SIGPROF, and whether its timer is alive. Often at
   * first: a thread that is being started blocks everything for a moment, and one that has just begun may be
   * about to. */
  LOOK_FIRST_MS = 200,
  LOOK_LAST_MS = 5000,
  BLOCKED_LOOKS = 3,       /* in a row: then a timer is taken away */
  LOOK_MS_PER_THREAD = 20, /* so that no more than 50 threads are looked at in a second */
};

static void set(_Atomic uint32_t *counter, size_t value) {
  atomic_store_explicit(counter, (uint32_t)value, memory_order_relaxed);
}

void lupe_sampler_open(lupe_sampler *s) {
  if (lupe_thread_table_open(&s->threads) != LUPE_OK) s->threads = NULL;
}

void lupe_sampler_begin(lupe_sampler *s, lupe_segment *segment, uint32_t cpu_hz, uint32_t wall_hz) {
  lupe_sampler_end(s);
  lupe_counters *c = &segment->counters;
  if (!s->threads) {
    set(&c->cpu_state, cpu_hz ? LUPE_SAMPLING_UNSUPPORTED : LUPE_SAMPLING_OFF);
    set(&c->wall_state, wall_hz ? LUPE_SAMPLING_UNSUPPORTED : LUPE_SAMPLING_OFF);
    return;
  }
  set(&c->cpu_state, LUPE_SAMPLING_OFF); /* until the first scan */
  set(&c->threads_untimed, 0);
  set(&c->threads_unread, 0);
  s->cpu_hz = cpu_hz;
  s->wall_hz = wall_hz;
  lupe_wall_begin(&s->wall, segment, lupe_thread_table_folder(s->threads), wall_hz);
  if (cpu_hz) lupe_cpu_begin(segment, cpu_hz);
  if (cpu_hz == 0 && wall_hz == 0) return;
  s->segment = segment;
  s->scan_due_ms = s->tick_due_ms = s->cost_due_ms = 0;
  s->scan_cost_ns = 0;
}

static void change_cpu(lupe_sampler *s, uint32_t hz) {
  lupe_cpu_end(); /* the timers are made again by the next scan */
  set(&s->segment->counters.cpu_state, LUPE_SAMPLING_OFF);
  set(&s->segment->counters.threads_untimed, 0);
  s->cpu_hz = hz;
  if (hz) lupe_cpu_begin(s->segment, hz);
  s->scan_due_ms = 0;
}

static void change_wall(lupe_sampler *s, uint32_t hz) {
  if (s->wall_hz && hz) {
    lupe_wall_set_rate(&s->wall, hz);
  } else {
    lupe_wall_end(&s->wall, s->threads);
    lupe_wall_begin(&s->wall, s->segment, lupe_thread_table_folder(s->threads), hz);
    set(&s->segment->counters.threads_unread, 0);
    for (size_t i = 0; hz && i < lupe_thread_table_count(s->threads); i++) {
      lupe_thread *t = lupe_thread_table_at(s->threads, i);
      lupe_wall_thread_start(&s->wall, &t->wall, t->tid);
    }
  }
  s->wall_hz = hz;
  s->tick_due_ms = 0;
}

void lupe_sampler_change(lupe_sampler *s, lupe_segment *segment, uint32_t cpu_hz, uint32_t wall_hz) {
  if (!s->segment || (cpu_hz == 0 && wall_hz == 0)) {
    lupe_sampler_begin(s, segment, cpu_hz, wall_hz);
    return;
  }
  if (cpu_hz != s->cpu_hz) change_cpu(s, cpu_hz);
  if (wall_hz != s->wall_hz) change_wall(s, wall_hz);
}

int64_t lupe_sampler_due_ms(const lupe_sampler *s) {
  if (!s->segment) return INT64_MAX;
  int64_t due = s->scan_due_ms;
  if (s->wall_hz && s->tick_due_ms < due) due = s->tick_due_ms;
  return due;
}

/* ---- threads ---- */

static void on_started(void *arg, lupe_thread *t) {
  lupe_sampler *s = arg;
  lupe_wall_thread_start(&s->wall, &t->wall, t->tid);
}

static void on_ended(void *arg, lupe_thread *t) {
  lupe_sampler *s = arg;
  lupe_wall_thread_end(&s->wall, &t->wall);
  lupe_cpu_untime(lupe_thread_table_place(s->threads, t));
}

/* Whether the thread blocks SIGPROF for more than a moment, such as that of our own handler. */
static bool keeps_it_blocked(lupe_cpu_thread *cpu, uint64_t blocked) {
  if ((blocked >> (SIGPROF - 1) & 1) == 0) {
    cpu->blocked_looks = 0;
  } else if (cpu->blocked_looks < BLOCKED_LOOKS) {
    cpu->blocked_looks++;
  }
  return cpu->blocked_looks == BLOCKED_LOOKS || (cpu->blocked_looks > 0 && !cpu->timed);
}

/* A timer takes one of the places that the user's queued signals and timers share: half of them stay the
 * program's. */
static bool has_room(const lupe_thread_status *status) {
  return status->queue_limit == 0 || status->queued < status->queue_limit / 2;
}

/* Gives a thread its timer, or takes it away. */
static void look(lupe_sampler *s, lupe_thread *t) {
  lupe_thread_status status;
  size_t place = lupe_thread_table_place(s->threads, t);
  if (lupe_thread_table_status(s->threads, t->tid, &status) != LUPE_OK) return; /* it has just ended */
  if (keeps_it_blocked(&t->cpu, status.blocked) || status.state == 'Z') {
    if (t->cpu.timed) lupe_cpu_untime(place);
    t->cpu.timed = false;
  } else if (t->cpu.timed || has_room(&status)) {
    t->cpu.timed = lupe_cpu_time(place, t->tid);
  }
  int64_t longest = (int64_t)lupe_thread_table_count(s->threads) * LOOK_MS_PER_THREAD;
  if (longest < LOOK_LAST_MS) longest = LOOK_LAST_MS;
  bool undecided = t->cpu.timed && t->cpu.blocked_looks > 0;
  t->cpu.pause_ms = t->cpu.pause_ms == 0 || undecided ? LOOK_FIRST_MS : 2 * t->cpu.pause_ms;
  if (t->cpu.pause_ms > longest) t->cpu.pause_ms = longest;
  t->cpu.look_due_ms = s->now_ms + t->cpu.pause_ms;
}

static lupe_sampling_state time_threads(lupe_sampler *s) {
  lupe_sampling_state state = lupe_cpu_prepare();
  uint32_t generation = lupe_cpu_generation();
  size_t count = lupe_thread_table_count(s->threads), timed = 0;
  for (size_t i = 0; i < count; i++) {
    lupe_thread *t = lupe_thread_table_at(s->threads, i);
    if (generation != s->generation) { /* the timers are all gone */
      t->cpu = (lupe_cpu_thread){0};
    }
    if (state == LUPE_SAMPLING_ON && s->now_ms >= t->cpu.look_due_ms) look(s, t);
    timed += t->cpu.timed;
  }
  s->generation = generation;
  set(&s->segment->counters.threads_untimed, count - timed + lupe_thread_table_beyond(s->threads));
  return state == LUPE_SAMPLING_ON && timed == 0 && count > 0 ? LUPE_SAMPLING_REFUSED : state;
}

/* A thread costs some 10 us to list. Many threads are listed less often where there is no sign of new ones.
 */
static bool is_due(const lupe_sampler *s) {
  int64_t waited_ns = (s->now_ms - s->scanned_ms) * 1000000;
  switch (lupe_thread_table_changed(s->threads)) {
    case LUPE_THREADS_SAME:
      return s->now_ms - s->scanned_ms >= SURE_MS && waited_ns >= s->scan_cost_ns * QUIET_COST_SHARE;
    case LUPE_THREADS_PERHAPS:
      return waited_ns >= s->scan_cost_ns * QUIET_COST_SHARE;
    default:
      return waited_ns >= s->scan_cost_ns * COST_SHARE;
  }
}

static void scan(lupe_sampler *s) {
  lupe_counters *c = &s->segment->counters;
  uint32_t own_changes = lupe_own_threads_changes();
  if (own_changes != s->own_changes || is_due(s)) {
    pid_t own[LUPE_OWN_THREADS];
    size_t own_count = lupe_own_threads_list(own);
    s->own_changes = own_changes;
    int64_t before_ns = lupe_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    lupe_thread_table_scan(s->threads, own, own_count, on_started, on_ended, s);
    s->scan_cost_ns = lupe_clock_ns(CLOCK_THREAD_CPUTIME_ID) - before_ns;
    s->scanned_ms = s->now_ms;
  }
  if (s->cpu_hz) {
    lupe_sampling_state state = time_threads(s);
    /* OFF: it was ended from elsewhere, as the program does; what was true until then is what counts. */
    if (state != LUPE_SAMPLING_OFF) set(&c->cpu_state, state);
  }
  /* Last: who reads of a thread here can rely on the other counters knowing of it. */
  set(&c->threads, lupe_thread_table_count(s->threads) + lupe_thread_table_beyond(s->threads));
}

void lupe_sampler_run(lupe_sampler *s, int64_t now_ms) {
  if (!s->segment) return;
  s->now_ms = now_ms;
  if (now_ms >= s->scan_due_ms || lupe_own_threads_changes() != s->own_changes) {
    scan(s);
    s->scan_due_ms = now_ms + SCAN_MS;
  }
  if (s->wall_hz && now_ms >= s->tick_due_ms) {
    lupe_wall_tick(&s->wall, s->threads);
    int64_t interval_ms = 1000 / s->wall_hz;
    s->tick_due_ms += interval_ms;
    if (s->tick_due_ms <= now_ms) s->tick_due_ms = now_ms + interval_ms;
  }
  if (now_ms >= s->cost_due_ms) {
    atomic_store_explicit(&s->segment->counters.thread_cpu_ns,
                          (uint64_t)lupe_clock_ns(CLOCK_THREAD_CPUTIME_ID), memory_order_relaxed);
    s->cost_due_ms = now_ms + COST_MS;
  }
}

/* ---- the end ---- */

void lupe_sampler_end(lupe_sampler *s) {
  if (!s->segment) return;
  lupe_cpu_end();
  lupe_wall_end(&s->wall, s->threads);
  lupe_thread_table_forget(s->threads);
  s->segment = NULL;
}

void lupe_sampler_close(lupe_sampler *s) {
  lupe_sampler_end(s);
  lupe_thread_table_close(s->threads);
  s->threads = NULL;
}

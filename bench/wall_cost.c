// flags: -O2
// sources: core/agent/wall.c core/agent/kernel_text.c core/agent/thread_table.c core/agent/unwind*.c core/wire/ring.c
/* wall_cost.c -- what looking at 16 waiting threads takes of the agent's thread, in CPU time: at threads that
 * stand still, and at threads that have run since the last look, ten calls deep. Prints nanoseconds per look
 * and the share of a core at 20 looks a second. usage: wall_cost [TICKS] */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/agent/thread_table.h"
#include "core/agent/wall.h"
#include "core/clock.h"
#include "core/wire/ring.h"

enum { THREADS = 16, DEPTH = 7, HZ = 20, TICKS = 400, REST_MS = 4 };

static atomic_bool stop;
static atomic_int timeout_ms, asleep;
static volatile int sink;
static lupe_wall wall;
static long ticks = TICKS;

__attribute__((noinline)) static int sleep_deep(int depth) {
  int below = depth > 0 ? sleep_deep(depth - 1) : poll(NULL, 0, atomic_load(&timeout_ms));
  sink = below;
  return below + 1;
}

static void *sleeper(void *unused) {
  atomic_fetch_add(&asleep, 1);
  while (!atomic_load(&stop)) sink = sleep_deep(DEPTH);
  return unused;
}

static void on_started(void *unused, lupe_thread *t) {
  (void)unused;
  lupe_wall_thread_start(&wall, &t->wall, t->tid);
}

static void on_ended(void *unused, lupe_thread *t) {
  (void)unused;
  lupe_wall_thread_end(&wall, &t->wall);
}

/* Nanoseconds per look, with a rest between ticks in which threads of a short sleep run. */
static double measure(lupe_thread_table *table) {
  lupe_wall_tick(&wall, table);
  int64_t spent = 0;
  for (long i = 0; i < ticks; i++) {
    int64_t before = lupe_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    lupe_wall_tick(&wall, table);
    spent += lupe_clock_ns(CLOCK_THREAD_CPUTIME_ID) - before;
    poll(NULL, 0, REST_MS);
  }
  return (double)spent / (double)(ticks * THREADS);
}

int main(int argc, char **argv) {
  lupe_segment *segment;
  lupe_thread_table *table;
  pthread_t threads[THREADS];
  int fd;
  pid_t own = gettid();
  if (argc > 1) ticks = strtol(argv[1], NULL, 10);
  if (ticks <= 0 || lupe_segment_create(&fd, &segment) != LUPE_OK ||
      lupe_thread_table_open(&table) != LUPE_OK) {
    return 1;
  }
  atomic_store(&timeout_ms, 1);
  for (int i = 0; i < THREADS; i++) {
    if (pthread_create(&threads[i], NULL, sleeper, NULL) != 0) return 1;
  }
  while (atomic_load(&asleep) < THREADS) poll(NULL, 0, 1);
  lupe_wall_begin(&wall, segment, lupe_thread_table_folder(table), HZ);
  if (lupe_thread_table_scan(table, &own, 1, on_started, on_ended, NULL) != LUPE_OK) return 1;
  double moving_ns = measure(table);
  atomic_store(&timeout_ms, 100000000);
  poll(NULL, 0, 20 * REST_MS);
  double standing_ns = measure(table);
  printf(
      "{\"threads\":%d,\"hz\":%d,\"standing_ns_per_look\":%.0f,\"moving_ns_per_look\":%.0f,"
      "\"standing_share_of_a_core\":%.6f,\"moving_share_of_a_core\":%.6f,\"moved\":%lu,\"truncated\":%lu}\n",
      THREADS, HZ, standing_ns, moving_ns, standing_ns * THREADS * HZ / 1e9, moving_ns * THREADS * HZ / 1e9,
      segment->counters.wall_moved, segment->counters.truncated_stacks);
  fflush(stdout);
  _exit(0); /* the threads sleep on */
}

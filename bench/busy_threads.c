// link: pthread
// flags: -O2 -g
/* busy_threads.c -- threads that use the CPU, and threads that wait.
 * usage: busy_threads BUSY WAITING SECONDS [TURNS]. With TURNS each busy thread does so many turns of its
 * loop instead of running for SECONDS. Prints one JSON object: the CPU and wall seconds that it took; then,
 * without TURNS, waits to be killed. */
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static double seconds;
static long turns;
static volatile uint64_t sink;
static sem_t never;

static double now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

__attribute__((noinline)) static uint64_t compute(uint64_t x, long count) {
  for (long i = 0; i < count; i++) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
  }
  return x;
}

static void *busy(void *seed) {
  uint64_t x = UINT64_C(88172645463325252) + (uintptr_t)seed;
  double end = now(CLOCK_MONOTONIC) + seconds;
  if (turns > 0) {
    sink = compute(x, turns);
    return NULL;
  }
  while (now(CLOCK_MONOTONIC) < end) x = compute(x, 100000);
  sink = x;
  return NULL;
}

static void *wait_for_nothing(void *unused) {
  while (sem_wait(&never) != 0) continue;
  return unused;
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: busy_threads BUSY WAITING SECONDS [TURNS]\n");
    return 2;
  }
  int workers = atoi(argv[1]), waiters = atoi(argv[2]);
  seconds = atof(argv[3]);
  turns = argc > 4 ? atol(argv[4]) : 0;
  pthread_t threads[256];
  if (workers < 0 || workers > 256 || waiters < 0 || waiters > 1024) return 2;
  sem_init(&never, 0, 0);
  double began = now(CLOCK_MONOTONIC);
  for (int i = 0; i < waiters; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, wait_for_nothing, NULL) != 0) abort();
  }
  for (int i = 0; i < workers; i++) {
    if (pthread_create(&threads[i], NULL, busy, (void *)(uintptr_t)i) != 0) abort();
  }
  for (int i = 0; i < workers; i++) pthread_join(threads[i], NULL);
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  double user = (double)used.ru_utime.tv_sec + (double)used.ru_utime.tv_usec / 1e6;
  double system = (double)used.ru_stime.tv_sec + (double)used.ru_stime.tv_usec / 1e6;
  printf("{\"cpu_s\":%.6f,\"precise_cpu_s\":%.9f,\"elapsed_s\":%.6f}\n", user + system,
         now(CLOCK_PROCESS_CPUTIME_ID), now(CLOCK_MONOTONIC) - began);
  fflush(stdout);
  while (turns == 0) pause();
  return 0;
}

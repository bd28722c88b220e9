// flags: -O2
// link: dl
// sources: core/agent/unwind*.c
/* unwind_cost.c -- the price of one capture, warm, beside libunwind's unw_backtrace in the same run; of the
 * first one in a new thread; of a row that is read for the first time; and the memory that 200 threads cost,
 * from before the first capture of the process to after one in each of them.
 * The stack is 30 frames, two thirds of them in Debian's libc: qsort whose comparison calls qsort.
 * Every figure is the best of several repetitions, taken in turns, so that a busy machine disturbs both
 * alike. usage: unwind_cost [CAPTURES per repetition] */
#define _GNU_SOURCE
#define UNW_LOCAL_ONLY
#include <dlfcn.h>
#include <libunwind.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/agent/unwind.h"

enum { NESTED_SORTS = 8, FRAMES_MAX = 64, REPETITIONS = 7, THREADS = 200 };

static int (*libunwind_backtrace)(void **, int);
static long captures = 200000;
static double ours_ns = 1e18, theirs_ns = 1e18, cold_ns;
static size_t ours_frames, theirs_frames;

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void measure(void) {
  uint64_t pcs[FRAMES_MAX];
  void *addresses[FRAMES_MAX];
  bool truncated;
  double start = now_ns();
  ours_frames = lupe_unwind(pcs, FRAMES_MAX, &truncated);
  cold_ns = (now_ns() - start) / (double)ours_frames;
  for (int r = 0; r < REPETITIONS; r++) {
    start = now_ns();
    for (long i = 0; i < captures; i++) ours_frames = lupe_unwind(pcs, FRAMES_MAX, &truncated);
    double mid = now_ns();
    for (long i = 0; i < captures; i++) theirs_frames = (size_t)libunwind_backtrace(addresses, FRAMES_MAX);
    double end = now_ns();
    if (mid - start < ours_ns) ours_ns = mid - start;
    if (end - mid < theirs_ns) theirs_ns = end - mid;
  }
  ours_ns /= (double)captures;
  theirs_ns /= (double)captures;
}

static int nesting;
static int compare(const void *a, const void *b) {
  static bool measured;
  if (nesting == NESTED_SORTS) {
    if (!measured) measure();
    measured = true;
  } else {
    int values[2] = {2, 1};
    nesting++;
    qsort(values, 2, sizeof values[0], compare);
    nesting--;
  }
  return *(const int *)a - *(const int *)b;
}

static bool by_libunwind;

static void *capture_once(void *out) {
  uint64_t pcs[FRAMES_MAX];
  void *addresses[FRAMES_MAX];
  bool truncated;
  double start = now_ns();
  if (by_libunwind)
    libunwind_backtrace(addresses, FRAMES_MAX);
  else
    lupe_unwind(pcs, FRAMES_MAX, &truncated);
  *(double *)out = now_ns() - start;
  return NULL;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Median over threads that run one after the other; others have warmed the cache. */
static double first_capture_of_a_thread(void) {
  double ns[THREADS];
  for (int i = 0; i < THREADS; i++) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, capture_once, &ns[i]) != 0) exit(1);
    pthread_join(thread, NULL);
  }
  qsort(ns, THREADS, sizeof ns[0], by_size);
  return ns[THREADS / 2];
}

static long resident_bytes(void) {
  long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL || fscanf(file, "%*d %ld", &pages) != 1) exit(1);
  fclose(file);
  return pages * sysconf(_SC_PAGESIZE);
}

static pthread_barrier_t everybody;

static void *capture_between_barriers(void *out) {
  for (int i = 0; i < 2; i++) pthread_barrier_wait(&everybody); /* all run; measured */
  capture_once(out);
  for (int i = 0; i < 2; i++) pthread_barrier_wait(&everybody); /* all have captured; measured */
  return NULL;
}

/* What the process grows by when all of its threads capture. */
static long growth_by_threads(void) {
  pthread_t threads[THREADS];
  double ignored[THREADS];
  pthread_barrier_init(&everybody, NULL, THREADS + 1);
  for (int i = 0; i < THREADS; i++) {
    if (pthread_create(&threads[i], NULL, capture_between_barriers, &ignored[i]) != 0) exit(1);
  }
  long measured[2];
  for (int i = 0; i < 2; i++) {
    pthread_barrier_wait(&everybody);
    measured[i] = resident_bytes();
    pthread_barrier_wait(&everybody);
  }
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  return measured[1] - measured[0];
}

int main(int argc, char **argv) {
  if (argc > 1) captures = strtol(argv[1], NULL, 10);
  void *library = dlopen("libunwind.so.8", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL || captures <= 0) {
    fprintf(stderr, "libunwind.so.8 and a positive number of captures are needed\n");
    return 1;
  }
  *(void **)&libunwind_backtrace = dlsym(library, "unw_backtrace");
  if (libunwind_backtrace == NULL) return 1;
  long grown = growth_by_threads();
  double first = first_capture_of_a_thread();
  by_libunwind = true;
  long libunwind_grown = growth_by_threads();
  double libunwind_first = first_capture_of_a_thread();
  int values[2] = {2, 1};
  qsort(values, 2, sizeof values[0], compare);
  printf(
      "{\"frames\":%zu,\"ns_per_frame\":%.2f,\"libunwind_frames\":%zu,\"libunwind_ns_per_frame\":%.2f,"
      "\"ratio\":%.3f,\"cold_ns_per_frame\":%.0f,\"first_capture_of_a_thread_ns\":%.0f,"
      "\"libunwind_first_capture_of_a_thread_ns\":%.0f,\"threads\":%d,\"resident_growth_bytes\":%ld,"
      "\"libunwind_resident_growth_bytes\":%ld}\n",
      ours_frames, ours_ns / (double)ours_frames, theirs_frames, theirs_ns / (double)theirs_frames,
      ours_ns / (double)ours_frames / (theirs_ns / (double)theirs_frames), cold_ns, first, libunwind_first,
      THREADS, grown, libunwind_grown);
  return 0;
}

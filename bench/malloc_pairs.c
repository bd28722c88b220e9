// flags: -O2
/* malloc_pairs.c -- what a profiler adds to malloc and free: CPU time of a fixed number of pairs.
 * Two threads, each with 4,096 live blocks of 16 B to 1 KiB (one in 64 up to 16 KiB), allocated 12 to 19
 * calls deep. usage: malloc_pairs [PAIRS_PER_THREAD]. The allocator or profiler comes by LD_PRELOAD. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum { THREADS = 2, SLOTS = 4096 };

static long pairs = 3000000;

/* The volatile keeps the compiler from turning the recursion into a loop. */
__attribute__((noinline)) static void *allocate_deep(unsigned depth, size_t bytes) {
  if (depth == 0) return malloc(bytes);
  void *volatile block = allocate_deep(depth - 1, bytes);
  return block;
}

static void *run(void *seed) {
  uint64_t x = UINT64_C(88172645463325252) + (uintptr_t)seed;
  char **slots = calloc(SLOTS, sizeof *slots);
  if (slots == NULL) abort();
  for (long i = 0; i < pairs; i++) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    char **slot = &slots[x % SLOTS];
    size_t bytes = 16 + ((x >> 20) & 1023);
    if (((x >> 40) & 63) == 0) bytes *= 16;
    free(*slot);
    *slot = allocate_deep(12 + ((x >> 50) & 7), bytes);
    if (*slot == NULL) abort();
    **slot = 1;
  }
  for (int i = 0; i < SLOTS; i++) free(slots[i]);
  free(slots);
  return NULL;
}

static double seconds(struct timeval t) {
  return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

int main(int argc, char **argv) {
  pthread_t threads[THREADS];
  struct timespec start, end;
  struct rusage usage;
  if (argc > 1) pairs = strtol(argv[1], NULL, 10);
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (uintptr_t i = 0; i < THREADS; i++) {
    if (pthread_create(&threads[i], NULL, run, (void *)i) != 0) abort();
  }
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  clock_gettime(CLOCK_MONOTONIC, &end);
  getrusage(RUSAGE_SELF, &usage);
  double cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  double wall = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9;
  printf("{\"pairs\":%ld,\"cpu_s\":%.6f,\"wall_s\":%.6f,\"cpu_ns_per_pair\":%.3f}\n", pairs * THREADS, cpu,
         wall, cpu * 1e9 / (double)(pairs * THREADS));
  return 0;
}

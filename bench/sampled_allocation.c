// flags: -O2
/* sampled_allocation.c -- the price of one allocation that jemalloc samples, 28 frames deep.
 * Run it at a period of 4 KiB: blocks of 32 KiB are then sampled all but one in 3,000 times.
 * usage: sampled_allocation [COUNT]. The profiler comes by LD_PRELOAD and MALLOC_CONF. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* 28 frames in jemalloc's own dump: with main, libc's start, malloc and jemalloc's sampler. */
enum { DEPTH = 19, BLOCK_BYTES = 32 * 1024, WARM_UP = 1000 };

__attribute__((noinline)) static void *allocate_deep(unsigned depth) {
  if (depth == 0) return malloc(BLOCK_BYTES);
  void *volatile block = allocate_deep(depth - 1);
  return block;
}

static void run(long count) {
  for (long i = 0; i < count; i++) free(allocate_deep(DEPTH));
}

int main(int argc, char **argv) {
  long count = argc > 1 ? strtol(argv[1], NULL, 10) : 20000;
  struct timespec start, end;
  run(WARM_UP);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
  run(count);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
  double ns = (double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec);
  printf("{\"count\":%ld,\"ns_per_allocation\":%.1f}\n", count, ns / (double)count);
  return 0;
}

// flags: -O2
/* sampled_allocation.c -- the price of one allocation that jemalloc samples, 28 frames deep.
 * Run it at a period of 4 KiB: blocks of 32 KiB are then sampled all but one in 3,000 times.
 * usage: sampled_allocation [COUNT [null]]. The profiler comes by LD_PRELOAD and MALLOC_CONF; with `null`
 * jemalloc is given an unwinder that finds nothing: what remains is jemalloc's own work for a sample. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* 28 frames in jemalloc's own dump: with main, libc's start, malloc and jemalloc's sampler. */
enum { DEPTH = 19, BLOCK_BYTES = 32 * 1024, WARM_UP = 1000 };

__attribute__((weak)) int mallctl(const char *name, void *old, size_t *old_bytes, void *new,
                                  size_t new_bytes);

typedef void unwinder(void **frames, unsigned *count, unsigned most);

static void unwind_nothing(void **frames, unsigned *count, unsigned most) {
  (void)frames;
  (void)most;
  *count = 0;
}

static bool take_null_unwinder(void) {
  unwinder *mine = unwind_nothing;
  return mallctl != NULL && mallctl("experimental.hooks.prof_backtrace", NULL, NULL, &mine, sizeof mine) == 0;
}

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
  if (argc > 2 && strcmp(argv[2], "null") == 0 && !take_null_unwinder()) {
    fputs("sampled_allocation: this allocator takes no unwinder\n", stderr);
    return 1;
  }
  run(WARM_UP);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
  run(count);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
  double ns = (double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec);
  printf("{\"count\":%ld,\"ns_per_allocation\":%.1f}\n", count, ns / (double)count);
  return 0;
}

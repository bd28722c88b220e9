// flags: -O3 -mavx2
/* read_rate.c -- how fast one core reads memory: by memcpy, and by reading alone.
 * usage: read_rate MIB ROUNDS. Prints the median rates, in bytes per second, as JSON. */
#include "bench/load.h"

#include <immintrin.h>
#include <sys/mman.h>

enum { MIB = 1024 * 1024, ROUNDS_MAX = 64 };

static char *map(size_t bytes) {
  char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) load_fail("mmap");
  madvise(memory, bytes, MADV_NOHUGEPAGE); /* as most heaps are */
  memset(memory, 1, bytes);
  return memory;
}

static void read_all(const char *from, size_t bytes) {
  __m256i sums[4] = {_mm256_setzero_si256()};
  for (size_t i = 0; i + 128 <= bytes; i += 128) {
    for (size_t k = 0; k < 4; k++) {
      const __m256i *at = (const __m256i *)(const void *)(from + i + 32 * k);
      sums[k] = _mm256_xor_si256(sums[k], _mm256_load_si256(at));
    }
  }
  __m256i sum = _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  __asm__ volatile("" : : "x"(sum));
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fputs("usage: read_rate MIB ROUNDS\n", stderr);
    return 2;
  }
  size_t bytes = strtoull(argv[1], NULL, 10) * MIB;
  long rounds = strtol(argv[2], NULL, 10);
  double copying[ROUNDS_MAX], reading[ROUNDS_MAX];
  if (bytes == 0 || rounds < 1 || rounds > ROUNDS_MAX) return 2;
  char *from = map(bytes), *to = map(bytes);
  for (long i = 0; i < rounds; i++) {
    uint64_t began_ns = load_now_ns();
    memcpy(to, from, bytes);
    __asm__ volatile("" : : "r"(to) : "memory");
    uint64_t copied_ns = load_now_ns();
    read_all(from, bytes);
    uint64_t read_ns = load_now_ns();
    copying[i] = (double)bytes / ((double)(copied_ns - began_ns) / 1e9);
    reading[i] = (double)bytes / ((double)(read_ns - copied_ns) / 1e9);
  }
  qsort(copying, (size_t)rounds, sizeof *copying, by_value);
  qsort(reading, (size_t)rounds, sizeof *reading, by_value);
  printf("{\"memcpy_bytes_per_sec\":%.0f,\"read_bytes_per_sec\":%.0f}\n", copying[rounds / 2],
         reading[rounds / 2]);
  return 0;
}

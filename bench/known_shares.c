// flags: -O2 -g
/* known_shares.c -- ten functions whose shares of the CPU time are known: 1 % to 30 %.
 * Which one runs next is drawn at random, so that no sampling rate can keep in step with them. What each
 * really got is measured by the thread's CPU clock around every call.
 * usage: known_shares SECONDS. Prints {"ready":true} when it begins, then, when the time is over, one JSON
 * object of function -> CPU nanoseconds, and waits to be killed. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { FUNCTIONS = 10, SLICE_NS = 200000 };
static const int percent[FUNCTIONS] = {30, 16, 14, 12, 10, 7, 5, 3, 2, 1};

static uint64_t cpu_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Each has a body of its own, or the linker would fold them. */
#define BURN(n)                                                                 \
  __attribute__((noinline)) static uint64_t share_##n(uint64_t x, long turns) { \
    for (long i = 0; i < turns; i++) {                                          \
      x ^= x << 13;                                                             \
      x ^= x >> 7;                                                              \
      x ^= x << 17;                                                             \
      x += n;                                                                   \
    }                                                                           \
    return x;                                                                   \
  }
BURN(30);
BURN(16);
BURN(14);
BURN(12);
BURN(10);
BURN(7);
BURN(5);
BURN(3);
BURN(2);
BURN(1);

typedef uint64_t burner(uint64_t x, long turns);
static burner *const burners[FUNCTIONS] = {share_30, share_16, share_14, share_12, share_10,
                                           share_7,  share_5,  share_3,  share_2,  share_1};

int main(int argc, char **argv) {
  double seconds = argc > 1 ? atof(argv[1]) : 10;
  uint64_t spent[FUNCTIONS] = {0}, x = UINT64_C(88172645463325252);
  uint64_t before = cpu_ns();
  x = share_30(x, 1000000);
  long turns = (long)(1000000.0 * SLICE_NS / (double)(cpu_ns() - before + 1));
  printf("{\"ready\":true}\n");
  fflush(stdout);
  time_t end = time(NULL) + (time_t)seconds;
  while (time(NULL) < end) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    int draw = (int)(x % 100), chosen = 0;
    while (draw >= percent[chosen]) draw -= percent[chosen++];
    before = cpu_ns();
    x = burners[chosen](x | 1, turns);
    spent[chosen] += cpu_ns() - before;
  }
  for (int i = 0; i < FUNCTIONS; i++)
    printf("%s\"share_%d\":%llu", i ? "," : "{", percent[i], (unsigned long long)spent[i]);
  printf("}\n");
  fflush(stdout);
  for (;;) pause();
}

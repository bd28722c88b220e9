/* clock.h -- the system's clocks in lupe's units. Thread: any, also inside malloc and in signal handlers. */
#ifndef LUPE_CLOCK_H
#define LUPE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t lupe_clock_ns(clockid_t clock) {
  struct timespec t = {0};
  clock_gettime(clock, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Unix time, in milliseconds with a fraction. */
static inline double lupe_unix_ms(void) {
  return (double)lupe_clock_ns(CLOCK_REALTIME) / 1e6;
}

#endif

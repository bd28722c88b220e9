/* clock.h -- the system's clocks in lupe's units. Thread: any; lupe_clock_ns and lupe_monotonic_ns also
 * inside malloc and in signal handlers. */
#ifndef LUPE_CLOCK_H
#define LUPE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t lupe_clock_ns(clockid_t clock) {
  struct timespec t = {0};
  clock_gettime(clock, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Of the clock that is never set. */
static inline uint64_t lupe_monotonic_ns(void) {
  return (uint64_t)lupe_clock_ns(CLOCK_MONOTONIC);
}

/* Unix time, in milliseconds with a fraction, as it was at the first call plus what has passed since: the
 * clock may be set meanwhile, and a history must neither stand still nor run back. Not for the agent. */
double lupe_unix_ms(void);

#endif

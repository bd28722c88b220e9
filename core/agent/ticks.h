/* ticks.h -- the clock of spans: the processor's time stamp counter where that runs evenly on all cores, else
 * CLOCK_MONOTONIC in nanoseconds. Which of the two is settled once in a process's life. */
#ifndef LUPE_AGENT_TICKS_H
#define LUPE_AGENT_TICKS_H

#include <stdint.h>
#include <time.h>

#include "core/clock.h"

enum { LUPE_TICKS_ARE_NS = 1 };

/* The scale: how many nanoseconds a tick is, in units of 2^-64, or LUPE_TICKS_ARE_NS, of CLOCK_MONOTONIC. The
 * first call finds out what there is; it and all later ones measure the counter against the clock, over the
 * time since the first one. Thread: the agent's. */
uint64_t lupe_ticks_measure(void);

static inline uint64_t lupe_ticks_now(uint64_t scale) {
  return scale != LUPE_TICKS_ARE_NS ? __builtin_ia32_rdtsc() : lupe_monotonic_ns();
}

static inline uint64_t lupe_ticks_ns(uint64_t ticks, uint64_t scale) {
  return scale != LUPE_TICKS_ARE_NS ? (uint64_t)((unsigned __int128)ticks * scale >> 64) : ticks;
}

#endif

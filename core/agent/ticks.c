#include "core/agent/ticks.h"

#include <cpuid.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>

#include "core/agent/kernel_text.h"

enum {
  READINGS = 5,
  AT_LEAST_NS = 20000, /* that are measured over: readings are some 30 ns off */
};

/* One moment by both clocks. */
typedef struct moment {
  uint64_t ticks;
  int64_t ns;
} moment;

/* Nobody came between the two, as far as can be had. */
static moment now(void) {
  moment best = {0};
  uint64_t least = UINT64_MAX;
  for (int i = 0; i < READINGS; i++) {
    uint64_t before = __builtin_ia32_rdtsc();
    int64_t ns = lupe_clock_ns(CLOCK_MONOTONIC);
    uint64_t took = __builtin_ia32_rdtsc() - before;
    if (took >= least) continue;
    least = took;
    best = (moment){before + took / 2, ns};
  }
  return best;
}

#define CLOCK_SOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"

/* What the processor promises is not enough: the kernel also looks whether it is true. */
static bool counter_is_even(void) {
  unsigned a, b, c, d;
  char name[16];
  if (!__get_cpuid(0x80000007, &a, &b, &c, &d) || (d & 1U << 8) == 0) return false;
  return lupe_kernel_text_read(AT_FDCWD, CLOCK_SOURCE, name, sizeof name) > 0 && strcmp(name, "tsc\n") == 0;
}

/* Only the agent's thread. */
static enum { UNKNOWN, COUNTER, CLOCK } source;
static moment base;
static uint64_t measured;

uint64_t lupe_ticks_measure(void) {
  if (source == UNKNOWN) {
    source = counter_is_even() ? COUNTER : CLOCK;
    base = now();
  }
  if (source == CLOCK) return LUPE_TICKS_ARE_NS;
  moment m = now();
  while (m.ns - base.ns < AT_LEAST_NS) m = now();
  uint64_t ns = (uint64_t)(m.ns - base.ns), ticks = m.ticks - base.ticks;
  if (m.ticks <= base.ticks || ns >= ticks) { /* set back; or slower than 1 GHz, if there ever was one */
    if (measured != 0) return measured;
    source = CLOCK;
    return LUPE_TICKS_ARE_NS;
  }
  uint64_t found = (uint64_t)(((unsigned __int128)ns << 64) / ticks);
  /* The clock stands still while the machine sleeps, and the counter may not. */
  uint64_t apart = found > measured ? found - measured : measured - found;
  if (measured != 0 && apart > measured / 100) {
    base = m;
  } else {
    measured = found;
  }
  return measured;
}

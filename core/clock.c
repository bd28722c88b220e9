#include "core/clock.h"

#include <pthread.h>

static double unix_ms_at_boot;

static void set_out(void) {
  unix_ms_at_boot = (double)(lupe_clock_ns(CLOCK_REALTIME) - lupe_clock_ns(CLOCK_BOOTTIME)) / 1e6;
}

double lupe_unix_ms(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, set_out);
  return unix_ms_at_boot + (double)lupe_clock_ns(CLOCK_BOOTTIME) / 1e6;
}

#include "core/embed/patience.h"

#include <poll.h>
#include <time.h>

#include "core/clock.h"

int64_t lupe__now_ms(void) {
  return (int64_t)(lupe_clock_ns(CLOCK_MONOTONIC) / 1000000);
}

bool lupe__lock_until(pthread_mutex_t *lock, int64_t until_ms) {
  while (pthread_mutex_trylock(lock) != 0) {
    if (lupe__now_ms() >= until_ms) return false;
    poll(NULL, 0, 1);
  }
  return true;
}

bool lupe__wait_until(const atomic_bool *done, int64_t until_ms) {
  while (!atomic_load(done)) {
    if (lupe__now_ms() >= until_ms) return false;
    poll(NULL, 0, 1);
  }
  return true;
}

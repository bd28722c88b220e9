/* patience.h -- waits that have an end. They look once in a millisecond: who waits here is starting, stopping
 * or exiting, and the C library's timed forms follow a clock that may be set. Thread: any. */
#ifndef LUPE_EMBED_PATIENCE_H
#define LUPE_EMBED_PATIENCE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

int64_t lupe__now_ms(void); /* of CLOCK_MONOTONIC */
bool lupe__lock_until(pthread_mutex_t *lock, int64_t until_ms);
bool lupe__wait_until(const atomic_bool *done, int64_t until_ms);

#endif

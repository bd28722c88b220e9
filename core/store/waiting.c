#include "core/store/waiting.h"

lupe_waiter *lupe_waiting_place(lupe_waiting *w) {
  for (lupe_waiter *i = w->waiters; i < w->waiters + LUPE_WAITERS_MAX; i++) {
    if (!i->session) return i;
  }
  return NULL;
}

static bool take(lupe_waiter *i, lupe_waiter *out) {
  *out = *i;
  i->session = NULL;
  return true;
}

bool lupe_waiting_answered(lupe_waiting *w, const lupe_session *s, uint64_t serial, lupe_waiter *out) {
  for (lupe_waiter *i = w->waiters; i < w->waiters + LUPE_WAITERS_MAX; i++) {
    if (i->session == s && i->serial == serial) return take(i, out);
  }
  return false;
}

bool lupe_waiting_forgotten(lupe_waiting *w, const lupe_session *s, lupe_waiter *out) {
  for (lupe_waiter *i = w->waiters; i < w->waiters + LUPE_WAITERS_MAX; i++) {
    if (i->session == s) return take(i, out);
  }
  return false;
}

bool lupe_waiting_expired(lupe_waiting *w, double now_ms, lupe_waiter *out) {
  for (lupe_waiter *i = w->waiters; i < w->waiters + LUPE_WAITERS_MAX; i++) {
    if (i->session && i->deadline_ms < now_ms) return take(i, out);
  }
  return false;
}

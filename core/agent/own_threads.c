#include "core/agent/own_threads.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

static void changed(void) {
  atomic_fetch_add(&lupe_wiped_page->own_changes, 1);
}

void lupe_own_threads_set(size_t place, pid_t tid) {
  atomic_store(&lupe_wiped_page->own[place], tid);
  changed();
}

static bool has_ended(pid_t tid) {
  return syscall(SYS_tgkill, getpid(), tid, 0) != 0 && errno == ESRCH;
}

/* A thread that ended without a word must not keep its place for good. */
lupe_status lupe_own_threads_adopt(pid_t tid) {
  if (lupe_own_threads_have(tid)) return LUPE_OK;
  for (int second = 0; second < 2; second++) {
    for (size_t i = 0; i < LUPE_OWN_ADOPTED_MAX; i++) {
      pid_t seen = atomic_load(&lupe_wiped_page->own[i]);
      if (seen != 0 && !(second && has_ended(seen))) continue;
      if (!atomic_compare_exchange_strong(&lupe_wiped_page->own[i], &seen, tid)) continue;
      changed();
      return LUPE_OK;
    }
  }
  return LUPE_EFULL;
}

bool lupe_own_threads_release(pid_t tid) {
  for (size_t i = 0; i < LUPE_OWN_ADOPTED_MAX; i++) {
    pid_t seen = tid;
    if (!atomic_compare_exchange_strong(&lupe_wiped_page->own[i], &seen, 0)) continue;
    changed();
    return true;
  }
  return false;
}

bool lupe_own_threads_have(pid_t tid) {
  for (size_t i = 0; i < LUPE_OWN_THREADS; i++) {
    if (atomic_load_explicit(&lupe_wiped_page->own[i], memory_order_relaxed) == tid) return true;
  }
  return false;
}

size_t lupe_own_threads_list(pid_t out[LUPE_OWN_THREADS]) {
  size_t count = 0;
  for (size_t i = 0; i < LUPE_OWN_THREADS; i++) {
    pid_t tid = atomic_load(&lupe_wiped_page->own[i]);
    if (tid != 0) out[count++] = tid;
  }
  return count;
}

bool lupe_own_threads_lives(size_t place) {
  pid_t tid = atomic_load(&lupe_wiped_page->own[place]);
  return tid != 0 && !has_ended(tid);
}

size_t lupe_own_threads_adopted(void) {
  size_t count = 0;
  for (size_t i = 0; i < LUPE_OWN_ADOPTED_MAX; i++) count += lupe_own_threads_lives(i);
  return count;
}

void lupe_own_threads_expect(int change) {
  atomic_fetch_add(&lupe_wiped_page->expected, change);
}

size_t lupe_own_threads_expected(void) {
  int32_t count = atomic_load(&lupe_wiped_page->expected);
  return count > 0 ? (size_t)count : 0; /* less: of a thread that began before there was a page */
}

uint32_t lupe_own_threads_changes(void) {
  return atomic_load(&lupe_wiped_page->own_changes);
}

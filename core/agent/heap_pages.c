#include "core/agent/heap_pages.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/agent/heap.h"
#include "core/agent/jemalloc.h"
#include "core/agent/own_memory.h"
#include "core/agent/unwind_x86_64.h"
#include "core/clock.h"

enum {
  STEP_WAIT_MS = 20, /* a fork, for an arena that gives back */
  FORK_PAUSE_MS = 1, /* the agent's thread, between two looks whether a fork has ended */
};

static _Atomic uint32_t step;            /* 1: an arena gives back; a futex */
static _Atomic uint32_t forks;           /* threads in the midst of one */
static _Thread_local uint32_t own_forks; /* a signal handler may fork amid a fork */

/* ---- around fork ---- */

static void end_step(void) {
  atomic_store(&step, 0);
  if (atomic_load(&forks) > 0) syscall(SYS_futex, &step, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void lupe_heap_pages_before_fork(void) {
  if (own_forks++ == 0) atomic_fetch_add(&forks, 1);
  if (!atomic_load(&step)) return; /* nor a system call, behind a filter */
  const uint64_t deadline_ns = lupe_monotonic_ns() + STEP_WAIT_MS * UINT64_C(1000000);
  uint64_t now;
  while (atomic_load(&step) && (now = lupe_monotonic_ns()) < deadline_ns) {
    struct timespec left = {0, (long)(deadline_ns - now)};
    lupe_system_call(SYS_futex, (long)&step, FUTEX_WAIT_PRIVATE, 1, (long)&left, 0, 0);
  }
}

void lupe_heap_pages_after_fork(void) {
  if (--own_forks == 0) atomic_fetch_sub(&forks, 1);
}

/* Of the threads that forked at the same time none is here. */
void lupe_heap_pages_after_fork_in_child(void) {
  own_forks--;
  atomic_store(&forks, own_forks > 0);
  atomic_store(&step, 0);
}

/* ---- giving back ---- */

static bool may_be_told(void) {
  lupe_heap_state state = lupe_heap_found()->state;
  return state != LUPE_HEAP_NO_JEMALLOC && state != LUPE_HEAP_SWITCHED_OFF;
}

/* jemalloc notes in an arena that a thread gives its pages back, and holds no lock meanwhile. A child forked
 * then inherits the note, but not the thread that would take it away: the arena never gives back there, and
 * what was about to be is lost to it. So a fork and a step wait for each other, the fork for a moment. */
static bool begin_step(void) {
  atomic_store(&step, 1);
  if (atomic_load(&forks) == 0) return true;
  end_step();
  poll(NULL, 0, FORK_PAUSE_MS);
  return false;
}

static bool count_arenas(unsigned *out) {
  return may_be_told() && lupe_jemalloc_get("arenas.narenas", out, sizeof *out);
}

/* False: it is lupe's own, which is none of the program's and nobody else's business. */
static bool is_programs(unsigned arena) {
  return (int)arena != lupe_own_memory_arena();
}

int lupe_heap_purge(uint32_t *arena) {
  unsigned arenas = 0;
  if (!count_arenas(&arenas)) return ENOTSUP;
  if (*arena >= arenas) return 0;
  if (!begin_step()) return EINPROGRESS;
  unsigned its = (*arena)++;
  int error = is_programs(its) ? lupe_jemalloc_act("arena.0.purge", its) : 0;
  end_step();
  return error ? error : EINPROGRESS;
}

/* jemalloc's own arena for huge blocks, behind those that threads are given. UINT_MAX: it has none. */
static unsigned huge_arena(void) {
  unsigned of_threads = 0;
  if (lupe_jemalloc_size("opt.oversize_threshold") == 0 ||
      !lupe_jemalloc_get("opt.narenas", &of_threads, sizeof of_threads))
    return UINT_MAX;
  return of_threads;
}

static int set_default_decay(const char *name, ssize_t ms) {
  return ms == LUPE_DECAY_SAME ? 0 : mallctl(name, NULL, NULL, &ms, sizeof ms);
}

/* The arena for huge blocks gives back at once, and jemalloc starts a thread where it is told otherwise. */
static int set_arena_decay(const char *of_first, unsigned arena, ssize_t ms) {
  ssize_t its = 0;
  if (ms == LUPE_DECAY_SAME || !is_programs(arena)) return 0;
  if (lupe_jemalloc_decay(of_first, arena, &its) != 0) return 0; /* it has not begun */
  if (its == 0 && arena == huge_arena()) return 0;
  return lupe_jemalloc_set_decay(of_first, arena, ms);
}

int lupe_heap_set_decay(int32_t dirty_ms, int32_t muzzy_ms, uint32_t *arena) {
  unsigned arenas = 0;
  int error = 0;
  if (!count_arenas(&arenas)) return ENOTSUP;
  if (*arena == 0) error = set_default_decay("arenas.dirty_decay_ms", dirty_ms);
  if (*arena == 0 && error == 0) error = set_default_decay("arenas.muzzy_decay_ms", muzzy_ms);
  if (error || *arena >= arenas) return error;
  if (!begin_step()) return EINPROGRESS;
  unsigned its = (*arena)++;
  error = set_arena_decay("arena.0.dirty_decay_ms", its, dirty_ms);
  if (error == 0) error = set_arena_decay("arena.0.muzzy_decay_ms", its, muzzy_ms);
  end_step();
  return error ? error : EINPROGRESS;
}

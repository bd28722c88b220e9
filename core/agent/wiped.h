/* wiped.h -- what is true of this process only: a page that reads as zeros in every child, however that was
 * forked, without any handler's doing. There the allocation hook and the signal handler find no segment, and
 * do not write into their parent's ring; nobody holds the lock; no timer is ours.
 * Children of vfork and posix_spawn share their parent's page; they are told apart by `pid`.
 *
 * The segment behind the two pointers may be unmapped once both are NULL and `writers` is 0: so whoever uses
 * it is counted before the pointer is read. */
#ifndef LUPE_AGENT_WIPED_H
#define LUPE_AGENT_WIPED_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/lupe.h"
#include "core/wire/record.h"

enum {
  LUPE_OWN_ADOPTED_MAX = 15, /* places of the threads that have been adopted, */
  LUPE_OWN_AGENT = 15,       /* of the agent's, */
  LUPE_OWN_OUTLIVER = 16,    /* and of the one that outlives it */
  LUPE_OWN_THREADS = 17,
};

typedef struct lupe_wiped {
  _Atomic(lupe_segment *) heap_segment; /* where the allocation hook's samples go; NULL: nowhere */
  _Atomic(lupe_segment *) cpu_segment;  /* the same for the signal handler */
  _Atomic uint64_t span_scale;          /* of ticks.h, while spans are counted; 0: they are not */
  _Atomic uint32_t marks_session; /* of marks.h, written before that, as the next one; 0: there is none */
  atomic_bool has_lzcnt;
  _Atomic uint32_t cpu_cookie;    /* random, never changes once set: marks our timers' signals; 0: none */
  _Atomic uint32_t cpu_period_ns; /* of all timers */
  _Atomic uint32_t cpu_lock;      /* a futex, see cpu.c */
  atomic_bool cpu_installed;      /* the handler is in place, and timers may be */
  atomic_bool cpu_closed;         /* no timer is made any more */
  _Atomic uint32_t cpu_given_up;  /* lupe_sampling_state: why there will be no timer; OFF: there may be */
  _Atomic pid_t pid;              /* whose page it is; 0: of a child that no fork handler knows of */
  _Atomic uint32_t writers;       /* in the midst of using a segment. Never less than there are */
  _Atomic pid_t own[LUPE_OWN_THREADS]; /* own_threads.h; 0: none */
  _Atomic uint32_t own_changes;
  _Atomic int32_t expected; /* own_threads.h: threads that wait for lupe, and are not in the list */
} lupe_wiped;

/* NULL before lupe_wiped_create. */
extern _Atomic(lupe_wiped *) lupe_wiped_page;

/* LUPE_EUNSUPPORTED: this kernel cannot wipe a page on fork (before 4.14), and the agent must not run.
 * Thread: the constructor's, once. */
lupe_status lupe_wiped_create(void);

/* In a forked child, on the thread that forked, before anything else of the agent's. */
void lupe_wiped_after_fork(void);

/* How often this thread counts in `writers`: a signal handler that interrupted it there may fork. */
extern _Thread_local uint32_t lupe_wiped_inside;

/* Counts the caller, and returns the segment; NULL: there is none. Either way lupe_wiped_leave comes next.
 * Thread: any, inside malloc, handler. */
static inline lupe_segment *lupe_wiped_enter(_Atomic(lupe_segment *) *segment) {
  lupe_wiped_inside++;
  atomic_fetch_add(&lupe_wiped_page->writers, 1);
  return atomic_load(segment);
}

static inline void lupe_wiped_leave(void) {
  atomic_fetch_sub(&lupe_wiped_page->writers, 1);
  lupe_wiped_inside--; /* last, as it was first: whoever forks in between counts one too many, not too few */
}

#endif

/* cpu.h -- CPU samples: a timer on the CPU clock of every thread, whose SIGPROF finds the thread at work.
 *
 * A thread that sleeps has no expiry, so nothing wakes it. What it would have been told in the midst of a
 * system call is told at the call's end (Linux >= 5.11), and SA_RESTART is set: no call of the program fails
 * with EINTR.
 *
 * SIGPROF is the program's where it wants it. Timers exist only while its disposition is the default one or
 * to ignore it; when the program sets a handler, or waits for SIGPROF by sigwait or signalfd, or sends it to
 * a thread of its own (signals.c), all timers are deleted and the old disposition is back before its call is
 * made; one of its own that waits is sent again. A SIGPROF that is none of our timers' does what it would
 * have done without us: nothing where it was ignored, else it ends the process.
 *
 * Limits: a program that sets a handler by the bare system call gets our signals for up to 200 ms; one that
 * asks for the default action in that way ends of them. A thread that blocks SIGPROF after its timer was made
 * may find one pending when it looks (sigpending, ppoll) until that is noticed, 5 s later at most. What a
 * program executes that ignores SIGPROF finds the default action. Each timer counts towards the user's
 * RLIMIT_SIGPENDING, of which timers take half at most.
 *
 * Stacks: the kernel ends a program whose signal does not fit on an alternate stack. A program that sets one
 * too small for ours has no timers any more; its handlers that run on one are never interrupted by ours.
 * Where the thread's stack, or its alternate one, has less than 5 KiB left, the handler takes a shorter
 * stack, or only the interrupted address. How much is left of a fiber's is not known: 8 KiB are enough.
 */
#ifndef LUPE_AGENT_CPU_H
#define LUPE_AGENT_CPU_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/wire/record.h"

enum { LUPE_CPU_TIMERS_MAX = 4096 };

/* What the scan notes of one thread. All zeros: not looked at yet. */
typedef struct lupe_cpu_thread {
  bool timed;
  uint8_t blocked_looks; /* in a row that found SIGPROF blocked */
  int64_t look_due_ms;   /* lupe_session_now_ms() */
  int64_t pause_ms;      /* until the look after that */
} lupe_cpu_thread;

/* ---- The agent's thread. ---- */

/* `hz` samples per second of CPU time are wanted, with records into `s`, which must stay mapped until
 * lupe_cpu_end and lupe_wiped's writers are through. Makes no timer yet. */
void lupe_cpu_begin(lupe_segment *s, uint32_t hz);

/* Puts the handler where it has to be, or learns that it must not. To be called before timers are made, at
 * every scan. LUPE_SAMPLING_ON: timers may be made; FOREIGN, UNSUPPORTED; OFF: never again in this process.
 */
lupe_sampling_state lupe_cpu_prepare(void);

/* Changes when all timers were deleted from elsewhere. */
uint32_t lupe_cpu_generation(void);

/* Makes the timer number `place` (below LUPE_CPU_TIMERS_MAX) for a thread, or looks whether it is still
 * alive, and makes it again. False: it cannot be had. */
bool lupe_cpu_time(size_t place, pid_t tid);

/* Deletes it. Nothing happens where there is none. */
void lupe_cpu_untime(size_t place);

/* Deletes all and gives SIGPROF back. Thread: any. */
void lupe_cpu_end(void);

/* ---- Any thread, handlers too: no lock that the caller could hold already. ---- */

/* As lupe_cpu_end, and there will be no timer any more in this process, unless it is opened again. */
void lupe_cpu_disarm(void);
void lupe_cpu_reopen(void); /* when the agent is started again. Thread: the one that does */

/* Around a change of SIGPROF by the program: while it is held, nobody else changes anything. Signals are
 * blocked meanwhile. Does nothing in vforked children. */
typedef struct lupe_cpu_hold {
  uint64_t mask; /* the thread's own */
  bool held;
} lupe_cpu_hold;
lupe_cpu_hold lupe_cpu_take_hold(void);
void lupe_cpu_let_go(const lupe_cpu_hold *hold);

/* While held: deletes all timers and restores SIGPROF to what it was before us. OFF: it is looked at again
 * with the next scan; else there is no timer any more in this process, for that reason. */
void lupe_cpu_step_aside(const lupe_cpu_hold *hold, lupe_sampling_state for_good);

/* Where `seen` is our handler, puts what that replaced in its place. */
void lupe_cpu_hide(struct sigaction *seen);

/* ---- Around fork, on the thread that forks. ---- */

/* SIGPROF stays away: a fork that takes longer than the timer's interval would begin anew forever. */
void lupe_cpu_before_fork(void);
void lupe_cpu_after_fork(void); /* in the parent, and in the child, which begins without timers */

#endif

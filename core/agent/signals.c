/* signals.c -- the C library's ways to have a signal, as the program calls them. Where it is SIGPROF, the
 * agent steps aside first, and the call finds what it would have found without us. All others go through.
 *
 * What is called through to is the next in line after the agent (a sanitizer's or libjsig's, else libc's). It
 * is looked up before the program starts; sigaction and signal, which must work in signal handlers and at any
 * time, have names in libc that nobody interposes, for callers that are earlier still. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/signalfd.h>
#include <time.h>

#include "core/agent/cpu.h"
#include "core/agent/cpu_handler.h"
#include "core/agent/wiped.h"

#define INTERPOSED __attribute__((visibility("default")))

typedef void (*signal_handler)(int);

extern int __sigaction(int sig, const struct sigaction *act, struct sigaction *oact);

static struct {
  int (*sigaction)(int, const struct sigaction *, struct sigaction *);
  signal_handler (*signal)(int, signal_handler);
  signal_handler (*sysv)(int, signal_handler);
  signal_handler (*sigset)(int, signal_handler);
  int (*sigwait)(const sigset_t *, int *);
  int (*sigwaitinfo)(const sigset_t *, siginfo_t *);
  int (*sigtimedwait)(const sigset_t *, siginfo_t *, const struct timespec *);
  int (*signalfd)(int, const sigset_t *, int);
  int (*sigaltstack)(const stack_t *, stack_t *);
  int (*raise)(int);
  int (*pthread_kill)(pthread_t, int);
  int (*pthread_sigqueue)(pthread_t, int, const union sigval);
} next = {.sigaction = __sigaction, .signal = ssignal, .sysv = sysv_signal};

/* Keeps what is there already where the next in line has no such function. */
#define LOOK_UP(name, symbol)                            \
  do {                                                   \
    void *found = dlsym(RTLD_NEXT, symbol);              \
    if (found) next.name = (__typeof__(next.name))found; \
  } while (0)

__attribute__((constructor)) static void look_up(void) {
  LOOK_UP(sigaction, "sigaction");
  LOOK_UP(signal, "signal");
  LOOK_UP(sysv, "__sysv_signal");
  LOOK_UP(sigset, "sigset");
  LOOK_UP(sigwait, "sigwait");
  LOOK_UP(sigwaitinfo, "sigwaitinfo");
  LOOK_UP(sigtimedwait, "sigtimedwait");
  LOOK_UP(signalfd, "signalfd");
  LOOK_UP(sigaltstack, "sigaltstack");
  LOOK_UP(raise, "raise");
  LOOK_UP(pthread_kill, "pthread_kill");
  LOOK_UP(pthread_sigqueue, "pthread_sigqueue");
}

/* For callers earlier than the constructor, where the loader cannot be asked yet. */
static int missing(void) {
  errno = ENOSYS;
  return -1;
}

/* ---- setting ---- */

/* Other signals. Two of them may not fit on one alternate stack, which ends the program: so ours waits where
 * a handler runs on one, and the program does not see that. */
static int set_other(int sig, const struct sigaction *act, struct sigaction *oact) {
  static _Atomic uint64_t added; /* by signal: SIGPROF is in the mask by our doing */
  struct sigaction with_ours;
  uint64_t bit = sig > 0 && sig <= 64 ? UINT64_C(1) << (sig - 1) : 0;
  bool add = act && lupe_wiped_page && (act->sa_flags & SA_ONSTACK) && !sigismember(&act->sa_mask, SIGPROF);
  bool was_added = (atomic_load(&added) & bit) != 0;
  if (add) {
    with_ours = *act;
    sigaddset(&with_ours.sa_mask, SIGPROF);
  }
  int result = next.sigaction(sig, add ? &with_ours : act, oact);
  if (result != 0) return result;
  if (oact && was_added) sigdelset(&oact->sa_mask, SIGPROF);
  if (act && add) atomic_fetch_or(&added, bit);
  if (act && !add && was_added) atomic_fetch_and(&added, ~bit);
  return result;
}

INTERPOSED int sigaction(int sig, const struct sigaction *restrict act, struct sigaction *restrict oact) {
  if (sig != SIGPROF) return set_other(sig, act, oact);
  lupe_cpu_hold hold = lupe_cpu_take_hold();
  if (act) lupe_cpu_step_aside(&hold, LUPE_SAMPLING_OFF);
  int result = next.sigaction(sig, act, oact);
  if (result == 0 && oact) lupe_cpu_hide(oact);
  lupe_cpu_let_go(&hold);
  return result;
}

/* A forked child has inherited our handler, and no timer. */
static signal_handler hidden(signal_handler seen) {
  struct sigaction as_seen = {.sa_flags = SA_SIGINFO};
  as_seen.sa_handler = seen;
  lupe_cpu_hide(&as_seen);
  return as_seen.sa_handler;
}

static signal_handler set_with(signal_handler (*set)(int, signal_handler), int sig, signal_handler handler) {
  if (sig != SIGPROF) return set(sig, handler);
  lupe_cpu_hold hold = lupe_cpu_take_hold();
  lupe_cpu_step_aside(&hold, LUPE_SAMPLING_OFF);
  signal_handler before = hidden(set(sig, handler));
  lupe_cpu_let_go(&hold);
  return before;
}

INTERPOSED signal_handler signal(int sig, signal_handler handler) {
  return set_with(next.signal, sig, handler);
}

INTERPOSED signal_handler bsd_signal(int sig, signal_handler handler);
signal_handler bsd_signal(int sig, signal_handler handler) {
  return set_with(next.signal, sig, handler);
}

/* What signal() is in a program that was compiled for strict POSIX. */
INTERPOSED signal_handler __sysv_signal(int sig, signal_handler handler) {
  return set_with(next.sysv, sig, handler);
}

/* It looks at the thread's mask and changes it, so it is called when that is the thread's own again. */
INTERPOSED signal_handler sigset(int sig, signal_handler disp) {
  if (!next.sigset) look_up();
  if (!next.sigset) return SIG_ERR;
  if (sig != SIGPROF) return next.sigset(sig, disp);
  lupe_cpu_hold hold = lupe_cpu_take_hold();
  lupe_cpu_step_aside(&hold, LUPE_SAMPLING_OFF);
  lupe_cpu_let_go(&hold);
  return hidden(next.sigset(sig, disp));
}

INTERPOSED int sigignore(int sig) {
  struct sigaction ignore = {.sa_handler = SIG_IGN};
  return sigaction(sig, &ignore, NULL);
}

static void give_up(lupe_sampling_state why) {
  lupe_cpu_hold hold = lupe_cpu_take_hold();
  lupe_cpu_step_aside(&hold, why);
  lupe_cpu_let_go(&hold);
}

/* ---- stacks ---- */

INTERPOSED int sigaltstack(const stack_t *restrict ss, stack_t *restrict oss) {
  if (!next.sigaltstack) look_up();
  if (!next.sigaltstack) return missing();
  bool sets = ss && !(ss->ss_flags & SS_DISABLE);
  if (sets && ss->ss_size < lupe_cpu_handler_stack_bytes()) give_up(LUPE_SAMPLING_REFUSED);
  return next.sigaltstack(ss, oss);
}

/* ---- sending ----
 * A thread that blocks SIGPROF keeps one at most: where that is ours, it would miss the program's. */

static void sends(int sig) {
  if (sig == SIGPROF) give_up(LUPE_SAMPLING_FOREIGN);
}

INTERPOSED int raise(int sig) {
  if (!next.raise) look_up();
  if (!next.raise) return missing();
  sends(sig);
  return next.raise(sig);
}

INTERPOSED int pthread_kill(pthread_t threadid, int signo) {
  if (!next.pthread_kill) look_up();
  if (!next.pthread_kill) return ENOSYS;
  sends(signo);
  return next.pthread_kill(threadid, signo);
}

INTERPOSED int pthread_sigqueue(pthread_t threadid, int signo, const union sigval value) {
  if (!next.pthread_sigqueue) look_up();
  if (!next.pthread_sigqueue) return ENOSYS;
  sends(signo);
  return next.pthread_sigqueue(threadid, signo, value);
}

/* ---- waiting ---- */

static void waits_for(const sigset_t *set) {
  if (!set || sigismember(set, SIGPROF) != 1) return;
  int saved_errno = errno;
  give_up(LUPE_SAMPLING_FOREIGN);
  errno = saved_errno;
}

INTERPOSED int sigwait(const sigset_t *restrict set, int *restrict sig) {
  if (!next.sigwait) look_up();
  if (!next.sigwait) return ENOSYS;
  waits_for(set);
  return next.sigwait(set, sig);
}

INTERPOSED int sigwaitinfo(const sigset_t *restrict set, siginfo_t *restrict info) {
  if (!next.sigwaitinfo) look_up();
  if (!next.sigwaitinfo) return missing();
  waits_for(set);
  return next.sigwaitinfo(set, info);
}

INTERPOSED int sigtimedwait(const sigset_t *restrict set, siginfo_t *restrict info,
                            const struct timespec *restrict timeout) {
  if (!next.sigtimedwait) look_up();
  if (!next.sigtimedwait) return missing();
  waits_for(set);
  return next.sigtimedwait(set, info, timeout);
}

INTERPOSED int signalfd(int fd, const sigset_t *mask, int flags) {
  if (!next.signalfd) look_up();
  if (!next.signalfd) return missing();
  waits_for(mask);
  return next.signalfd(fd, mask, flags);
}

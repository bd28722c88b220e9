#include "core/agent/cpu.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/agent/cpu_handler.h"
#include "core/agent/unwind.h"
#include "core/agent/unwind_x86_64.h"
#include "core/agent/wiped.h"
#include "core/clock.h"

/* glibc's sigaction itself: signals.c interposes the name. */
extern int __sigaction(int number, const struct sigaction *act, struct sigaction *old);

enum {
  KERNEL_MASK_BYTES = 8,
  PENDING_MAX = 4, /* of the program's own: one for the process, one for the thread, its timers' */
};

/* Guarded by cpu_lock unless noted. `timers` is valid while cpu_installed says so: a forked child finds its
 * parent's here. */
static struct {
  lupe_segment *segment;
  int64_t interval_ns;       /* also in the page, for the handler */
  struct sigaction replaced; /* by it; stays true in forked children, which inherit the handler */
  _Atomic uint32_t generation;
  size_t timers_end;               /* above, there is none */
  int timers[LUPE_CPU_TIMERS_MAX]; /* by place: the kernel's number + 1; 0: none */
  uint64_t random;                 /* agent's thread */
} cpu;

/* initial-exec, as everything thread-local in the agent. */
static _Thread_local bool unblock_after_fork;

static uint64_t sigprof_mask(void) {
  return UINT64_C(1) << (SIGPROF - 1);
}

/* ---- the lock ----
 * Whoever holds it has blocked all signals, so that no handler of the program's can want it on top. */

static void wait_on(_Atomic uint32_t *lock) {
  lupe_system_call(SYS_futex, (long)lock, FUTEX_WAIT_PRIVATE, 2, 0, 0, 0);
}

static void acquire(_Atomic uint32_t *lock) { /* 0: free, 1: held, 2: held, and others wait */
  uint32_t seen = 0;
  if (atomic_compare_exchange_strong(lock, &seen, 1)) return;
  while (atomic_exchange(lock, 2) != 0) wait_on(lock);
}

static void release(_Atomic uint32_t *lock) {
  if (atomic_exchange(lock, 0) == 2) lupe_system_call(SYS_futex, (long)lock, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}

static void set_mask(int how, uint64_t mask, uint64_t *old) {
  lupe_system_call(SYS_rt_sigprocmask, how, (long)&mask, (long)old, KERNEL_MASK_BYTES, 0, 0);
}

lupe_cpu_hold lupe_cpu_take_hold(void) {
  lupe_cpu_hold hold = {.held = false};
  lupe_wiped *page = lupe_wiped_page;
  /* Closed: maybe behind a filter that kills for calls which the program does not make. */
  if (!page || atomic_load(&page->cpu_closed) || atomic_load(&page->pid) == 0) return hold;
  /* By the bare system call: in a vforked child glibc's would be right as well, but who knows for how long.
   */
  if (atomic_load(&page->pid) != lupe_system_call(SYS_getpid, 0, 0, 0, 0, 0, 0)) return hold;
  set_mask(SIG_SETMASK, UINT64_MAX, &hold.mask);
  acquire(&page->cpu_lock);
  hold.held = true;
  return hold;
}

void lupe_cpu_let_go(const lupe_cpu_hold *hold) {
  if (!hold->held) return;
  release(&lupe_wiped_page->cpu_lock);
  set_mask(SIG_SETMASK, hold->mask, NULL);
}

/* ---- the disposition, while held ---- */

static bool is_ours(const struct sigaction *a) {
  return (a->sa_flags & SA_SIGINFO) && a->sa_sigaction == lupe_cpu_handler;
}

static bool is_nobodys(const struct sigaction *a) {
  return a->sa_handler == SIG_DFL || a->sa_handler == SIG_IGN;
}

void lupe_cpu_hide(struct sigaction *seen) {
  if (is_ours(seen)) *seen = cpu.replaced;
}

static bool installed(void) {
  return atomic_load(&lupe_wiped_page->cpu_installed);
}

static void delete_timer(size_t place) {
  if (cpu.timers[place] == 0) return;
  lupe_system_call(SYS_timer_delete, cpu.timers[place] - 1, 0, 0, 0, 0, 0);
  cpu.timers[place] = 0;
}

/* Takes the signals that wait for this thread or for the process, and keeps what is not ours. */
static size_t take_pending(siginfo_t kept[PENDING_MAX]) {
  const uint64_t set = sigprof_mask();
  const struct timespec at_once = {0, 0};
  size_t count = 0;
  while (count < PENDING_MAX && lupe_system_call(SYS_rt_sigtimedwait, (long)&set, (long)&kept[count],
                                                 (long)&at_once, KERNEL_MASK_BYTES, 0, 0) == SIGPROF) {
    if (!lupe_cpu_handler_expects(&kept[count])) count++;
  }
  return count;
}

/* The kernel lets only the first thread send in the name of others. */
static void send_again(const siginfo_t *info) {
  long pid = lupe_system_call(SYS_getpid, 0, 0, 0, 0, 0, 0);
  if (info->si_code == SI_TKILL) {
    long tid = lupe_system_call(SYS_gettid, 0, 0, 0, 0, 0, 0);
    lupe_system_call(SYS_tgkill, pid, tid, SIGPROF, 0, 0, 0);
  } else if (lupe_system_call(SYS_rt_sigqueueinfo, pid, SIGPROF, (long)info, 0, 0, 0) != 0) {
    lupe_system_call(SYS_kill, pid, SIGPROF, 0, 0, 0, 0);
  }
}

/* Ignoring a signal throws away those that are pending: one of ours must not be met by the default action.
 * The program's own are sent again: it may be about to wait for one that came while it was blocked. */
static void restore(void) {
  struct sigaction now, ignore = {.sa_handler = SIG_IGN};
  siginfo_t kept[PENDING_MAX] = {0};
  if (__sigaction(SIGPROF, NULL, &now) != 0 || !is_ours(&now)) return;
  size_t count = take_pending(kept);
  __sigaction(SIGPROF, &ignore, NULL);
  __sigaction(SIGPROF, &cpu.replaced, NULL);
  for (size_t i = 0; i < count; i++) send_again(&kept[i]);
}

static void set_state(lupe_sampling_state state) {
  atomic_store_explicit(&cpu.segment->counters.cpu_state, state, memory_order_relaxed);
}

static void stop(void) {
  atomic_store(&lupe_wiped_page->cpu_segment, NULL);
  for (size_t i = 0; i < cpu.timers_end; i++) delete_timer(i);
  cpu.timers_end = 0;
  restore();
  atomic_store(&lupe_wiped_page->cpu_installed, false);
  atomic_fetch_add(&cpu.generation, 1);
}

void lupe_cpu_step_aside(const lupe_cpu_hold *hold, lupe_sampling_state for_good) {
  if (!hold->held) return;
  if (for_good != LUPE_SAMPLING_OFF) atomic_store(&lupe_wiped_page->cpu_given_up, for_good);
  if (!installed()) return;
  stop();
  set_state(for_good != LUPE_SAMPLING_OFF ? for_good : LUPE_SAMPLING_FOREIGN);
}

/* The call that installs also tells what was there, so nothing can come in between. */
static bool install(void) {
  struct sigaction ours = {.sa_sigaction = lupe_cpu_handler,
                           .sa_flags = SA_RESTART | SA_ONSTACK | SA_SIGINFO};
  struct sigaction before;
  if (__sigaction(SIGPROF, NULL, &before) != 0) return false;
  if (is_ours(&before)) return true;
  if (!is_nobodys(&before)) return false;
  cpu.replaced = before;
  lupe_cpu_handler_ignore_others(before.sa_handler == SIG_IGN);
  /* The program's handlers wait until ours is through; so does the C library's, which sigfillset leaves out:
   * pthread_cancel must not make the thread leave from within ours. */
  memset(&ours.sa_mask, 0xff, sizeof ours.sa_mask);
  if (__sigaction(SIGPROF, &ours, &before) != 0) return false;
  if (is_nobodys(&before)) return true;
  __sigaction(SIGPROF, &before, NULL); /* set by the bare system call, this very moment */
  return false;
}

/* ---- the agent's thread ---- */

static uint64_t next_random(void) {
  cpu.random ^= cpu.random << 13;
  cpu.random ^= cpu.random >> 7;
  cpu.random ^= cpu.random << 17;
  return cpu.random;
}

void lupe_cpu_begin(lupe_segment *s, uint32_t hz) {
  lupe_wiped *page = lupe_wiped_page;
  while (cpu.random == 0) {
    if (getrandom(&cpu.random, sizeof cpu.random, GRND_NONBLOCK) != (ssize_t)sizeof cpu.random) {
      cpu.random = lupe_monotonic_ns() << 16 ^ (uint64_t)gettid();
    }
  }
  lupe_cpu_hold hold = lupe_cpu_take_hold();
  if (atomic_load(&page->cpu_cookie) == 0) { /* a new process: what is here was its parent's */
    atomic_store(&page->cpu_cookie, (uint32_t)next_random() | 1);
    memset(cpu.timers, 0, sizeof cpu.timers);
    cpu.timers_end = 0;
  }
  cpu.segment = s;
  lupe_cpu_handler_prepare();
  cpu.interval_ns = 1000000000 / hz;
  atomic_store(&page->cpu_period_ns, (uint32_t)cpu.interval_ns);
  lupe_cpu_let_go(&hold);
}

lupe_sampling_state lupe_cpu_prepare(void) {
  lupe_wiped *page = lupe_wiped_page;
  lupe_sampling_state state = LUPE_SAMPLING_OFF;
  if (!lupe_unwind_supported()) return LUPE_SAMPLING_UNSUPPORTED;
  lupe_cpu_hold hold = lupe_cpu_take_hold();
  if (!hold.held) return state;
  if (!atomic_load(&page->cpu_closed)) {
    lupe_sampling_state given_up = atomic_load(&page->cpu_given_up);
    bool may = given_up == LUPE_SAMPLING_OFF && install();
    if (may) {
      atomic_store(&page->cpu_installed, true);
      atomic_store(&page->cpu_segment, cpu.segment);
    } else if (installed()) {
      stop();
      /* Set by the bare system call, hence by a runtime that saw our handler, and may put it back when it has
       * done with profiling: a late signal of its own timers is not to end the process then. */
      lupe_cpu_handler_ignore_others(true);
    }
    state = may ? LUPE_SAMPLING_ON : given_up != LUPE_SAMPLING_OFF ? given_up : LUPE_SAMPLING_FOREIGN;
  }
  lupe_cpu_let_go(&hold);
  return state;
}

uint32_t lupe_cpu_generation(void) {
  return atomic_load(&cpu.generation);
}

/* A periodic timer stands still only when its thread has ended (another one has its number by now). */
static bool still_runs(int timer) {
  struct itimerspec left = {{0, 0}, {0, 0}};
  return lupe_system_call(SYS_timer_gettime, timer, (long)&left, 0, 0, 0, 0) == 0 &&
         (left.it_value.tv_sec != 0 || left.it_value.tv_nsec != 0);
}

static int64_t seconds_of(int64_t ns) {
  return ns / 1000000000;
}

static bool make_timer(size_t place, pid_t tid) {
  int timer = 0;
  clockid_t thread_clock = (clockid_t)(~(unsigned)tid << 3 | 6); /* of a thread, what the scheduler counts */
  uint64_t cookie = atomic_load(&lupe_wiped_page->cpu_cookie);
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGPROF};
  event.sigev_value.sival_ptr = (void *)(uintptr_t)(cookie << 32 | (uint32_t)tid);
  event._sigev_un._tid = tid;
  if (lupe_system_call(SYS_timer_create, thread_clock, (long)&event, (long)&timer, 0, 0, 0) != 0)
    return false;
  /* The first expiry comes anywhere within the interval, so that threads of a short life count as well. */
  int64_t first_ns = 1 + (int64_t)(next_random() % (uint64_t)cpu.interval_ns);
  struct itimerspec when = {
      .it_value = {seconds_of(first_ns), first_ns % 1000000000},
      .it_interval = {seconds_of(cpu.interval_ns), cpu.interval_ns % 1000000000},
  };
  if (lupe_system_call(SYS_timer_settime, timer, 0, (long)&when, 0, 0, 0) != 0) {
    lupe_system_call(SYS_timer_delete, timer, 0, 0, 0, 0, 0);
    return false;
  }
  cpu.timers[place] = timer + 1;
  if (place >= cpu.timers_end) cpu.timers_end = place + 1;
  return true;
}

bool lupe_cpu_time(size_t place, pid_t tid) {
  lupe_cpu_hold hold = lupe_cpu_take_hold();
  bool timed = false;
  if (hold.held && installed()) {
    if (cpu.timers[place] != 0 && !still_runs(cpu.timers[place] - 1)) delete_timer(place);
    timed = cpu.timers[place] != 0 || make_timer(place, tid);
  }
  lupe_cpu_let_go(&hold);
  return timed;
}

void lupe_cpu_untime(size_t place) {
  lupe_cpu_hold hold = lupe_cpu_take_hold();
  if (hold.held && installed()) delete_timer(place);
  lupe_cpu_let_go(&hold);
}

void lupe_cpu_end(void) {
  lupe_cpu_hold hold = lupe_cpu_take_hold();
  if (hold.held && installed()) stop();
  lupe_cpu_let_go(&hold);
}

/* ---- from outside ---- */

void lupe_cpu_disarm(void) {
  lupe_cpu_hold hold = lupe_cpu_take_hold();
  if (hold.held) {
    atomic_store(&lupe_wiped_page->cpu_closed, true);
    if (installed()) stop();
  }
  lupe_cpu_let_go(&hold);
}

void lupe_cpu_reopen(void) {
  atomic_store(&lupe_wiped_page->cpu_closed, false);
}

void lupe_cpu_before_fork(void) {
  uint64_t before = 0;
  if (!installed()) return; /* no timer; nor a system call, behind a filter */
  set_mask(SIG_BLOCK, sigprof_mask(), &before);
  /* A signal handler may fork amid a fork: it finds the signal blocked, and must not forget who did that. */
  if ((before & sigprof_mask()) == 0) unblock_after_fork = true;
}

void lupe_cpu_after_fork(void) {
  if (unblock_after_fork) set_mask(SIG_UNBLOCK, sigprof_mask(), NULL);
  unblock_after_fork = false;
}

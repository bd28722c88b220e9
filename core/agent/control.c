#include "core/agent/control.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/agent/control_state.h"
#include "core/agent/cpu.h"
#include "core/agent/heap.h"
#include "core/agent/own_threads.h"
#include "core/agent/session.h"
#include "core/agent/wiped.h"
#include "core/wire/ring.h"

enum {
  START_WAIT_MS = 1000,
  FORK_WAIT_MS = 100,
  FINISH_WAIT_MS = 1000,
  RETIRE_WAIT_S = 10,
  GONE_WAIT_MS = 100,
  WRITERS_WAIT_MS = 100,
  GONE_LOOK_NS = 50000,
  LOOK_MS = 10,      /* between two looks whether a proof at exit has ended */
  OUTLIVE_MS = 1000, /* between two looks whether the agent's thread has ended */
};

lupe__control_state lupe__control;

/* ---- small things ---- */

void lupe__control_enter(lupe__phase next) {
  atomic_store(&lupe__control.current, next);
  syscall(SYS_futex, &lupe__control.current, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Waits until the thread is in `wanted` or a later phase, or there is none. */
static void wait_for(lupe__phase wanted, int64_t wait_ms) {
  int64_t deadline = lupe_session_now_ms() + wait_ms;
  uint32_t seen;
  while ((seen = atomic_load(&lupe__control.current)) < (uint32_t)wanted && seen != PHASE_NONE) {
    int64_t left = deadline - lupe_session_now_ms();
    if (left <= 0) return;
    struct timespec timeout = {left / 1000, left % 1000 * 1000000};
    syscall(SYS_futex, &lupe__control.current, FUTEX_WAIT_PRIVATE, seen, &timeout, NULL, 0);
  }
}

/* Unless a thread is in the midst of writing to it. */
bool lupe__control_unmap(_Atomic(lupe_segment *) *segment) {
  if (*segment && atomic_load(&lupe_wiped_page->writers) > 0) return false;
  /* Taken first: a child forked in between must not unmap what it has not got. */
  lupe_segment_unmap(atomic_exchange(segment, NULL));
  return true;
}

static bool is_online(void) {
  lupe__phase now = atomic_load(&lupe__control.current);
  return now == PHASE_ONLINE || now == PHASE_WELCOMED;
}

static pid_t own(size_t place) {
  return atomic_load(&lupe_wiped_page->own[place]);
}

/* What has been joined may be on its last steps in the kernel, and still be seen. True: it is gone. */
static bool wait_until_gone(pid_t tid, int64_t until_ms) {
  const struct timespec pause = {0, GONE_LOOK_NS};
  while (tid != 0 && tid != gettid() && syscall(SYS_tgkill, lupe__control.pid, tid, 0) == 0) {
    if (lupe_session_now_ms() >= until_ms) return false;
    nanosleep(&pause, NULL);
  }
  return true;
}

static bool start_thread(void) {
  sigset_t all, before;
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setstacksize(&attributes, LUPE_AGENT_STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&lupe__control.thread, &attributes, lupe__control_thread, NULL);
  if (failed == EINVAL) { /* too little for this program's thread-local storage */
    failed = pthread_create(&lupe__control.thread, NULL, lupe__control_thread, NULL);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  atomic_store(&lupe__control.joinable, failed == 0);
  return failed == 0;
}

/* ---- the last thread ----
 *
 * When a program's first thread leaves by pthread_exit, the process ends with its last thread, which then
 * flushes and closes what the program left open. The agent's thread must not be that last one: it does not
 * have the program's descriptors. So the thread that has started the agent, which is the first one or lives
 * on beside it, starts one as it leaves that has them, and that ends when the agent's has ended.
 *
 * An embedded runtime has more threads, which wait for lupe_stop and so would never leave the place to a last
 * one. Where only they are left, the process is ended as the C library does it on the last thread: by exit,
 * whose handlers stop them. */

static pthread_key_t leaving;
static sigset_t leavers_mask;

/* Whoever stops the agent, or ends its thread for another reason, joins it before this thread could. */
static void join(void) {
  if (atomic_exchange(&lupe__control.joinable, false)) {
    pthread_join(lupe__control.thread, NULL);
  } else {
    wait_until_gone(own(LUPE_OWN_AGENT), lupe_session_now_ms() + GONE_WAIT_MS);
  }
}

static bool has_finished(void) {
  lupe__phase now = atomic_load(&lupe__control.current);
  return now == PHASE_NONE || now == PHASE_FINISHED;
}

static void *outlive_agent(void *unused) {
  lupe_own_threads_set(LUPE_OWN_OUTLIVER, gettid());
  while (!has_finished()) wait_for(PHASE_FINISHED, OUTLIVE_MS);
  join();
  pthread_sigmask(SIG_SETMASK, &leavers_mask, NULL); /* for what the program does as it exits */
  if (atomic_load(&lupe__control.deserted)) exit(EXIT_SUCCESS);
  return unused;
}

static void on_leaving(void *unused) {
  pthread_t last;
  (void)unused;
  if (atomic_load(&lupe__control.current) == PHASE_NONE || atomic_load(&lupe__control.left)) return;
  if (lupe__control.pid != getpid() || atomic_exchange(&lupe__control.outlived, true)) return;
  /* No signal may find the new thread: it would have gone to those that the program has left. */
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &leavers_mask);
  int failed = pthread_create(&last, NULL, outlive_agent, NULL);
  pthread_sigmask(SIG_SETMASK, &leavers_mask, NULL);
  if (failed == 0) {
    pthread_detach(last);
    return;
  }
  atomic_store(&lupe__control.outlived, false);
  lupe_control_finish();
  join();
}

/* ---- from outside ---- */

static void start(lupe__phase wanted, int64_t wait_ms) {
  lupe__control.pid = getpid();
  lupe_own_threads_set(LUPE_OWN_AGENT, 0);
  lupe_own_threads_set(LUPE_OWN_OUTLIVER, 0);
  atomic_store(&lupe__control.outlived, false);
  atomic_store(&lupe__control.deserted, false);
  atomic_store(&lupe__control.stopping, false);
  atomic_store(&lupe__control.given_up, false);
  atomic_store(&lupe__control.leave, STAY);
  atomic_store(&lupe__control.outcome, LUPE_OK);
  atomic_store(&lupe__control.proves_until, 0);
  atomic_store(&lupe__control.current, PHASE_STARTING);
  pthread_setspecific(leaving, &lupe__control);
  if (start_thread()) {
    wait_for(wanted, wait_ms);
  } else {
    atomic_store(&lupe__control.outcome, LUPE_ENOMEM);
    atomic_store(&lupe__control.current, PHASE_NONE);
    lupe_heap_restore();
  }
}

/* libc's memcpy and its kin have one name and many bodies, of which the loader takes the one for this
 * processor. dlsym answers with that. */
static void find_memory_functions(void) {
  static const char *const names[LUPE_MEMORY_FUNCTIONS] = {LUPE_MEMORY_FUNCTION_NAMES};
  for (size_t i = 0; i < LUPE_MEMORY_FUNCTIONS && lupe__control.memory_functions[i] == 0; i++) {
    lupe__control.memory_functions[i] = (uint64_t)(uintptr_t)dlsym(RTLD_NEXT, names[i]);
  }
}

/* The one that outlives the agent's thread ends by itself; it may be about to begin, too. If there is none,
 * none comes any more: it would say who it is after its place was cleared. */
static bool wait_for_outliver(int64_t until_ms) {
  while (atomic_exchange(&lupe__control.outlived, true) && own(LUPE_OWN_OUTLIVER) == 0) {
    if (lupe_session_now_ms() >= until_ms) return false;
    poll(NULL, 0, 1);
  }
  return wait_until_gone(own(LUPE_OWN_OUTLIVER), until_ms);
}

/* Joins a thread that has finished, and clears away what it left. */
static lupe_status clear_away(int64_t until_ms) {
  if (!has_finished() || !wait_until_gone(own(LUPE_OWN_AGENT), until_ms)) return LUPE_EAGAIN;
  if (atomic_exchange(&lupe__control.joinable, false)) pthread_join(lupe__control.thread, NULL);
  if (!wait_for_outliver(until_ms)) return LUPE_EAGAIN;
  lupe_own_threads_set(LUPE_OWN_AGENT, 0);
  lupe_own_threads_set(LUPE_OWN_OUTLIVER, 0);
  lupe__control_enter(PHASE_NONE);
  return LUPE_OK;
}

/* What a thread writes to stays mapped. */
static bool unmap_segments(void) {
  bool idle = false;
  for (int i = 0; !(idle = lupe__control_unmap(&lupe__control.segment)) && i < WRITERS_WAIT_MS; i++)
    poll(NULL, 0, 1);
  return idle && lupe__control_unmap(&lupe__control.parents_segment);
}

/* In a process that the agent's last thread was not of. */
static void forget_parents(void) {
  if (lupe__control.pid == getpid()) return;
  lupe__control.pid = getpid();
  atomic_store(&lupe__control.current, PHASE_NONE);
  atomic_store(&lupe__control.joinable, false);
}

lupe_status lupe_control_prepare(void) {
  return pthread_key_create(&leaving, on_leaving) == 0 ? LUPE_OK : LUPE_ENOMEM;
}

bool lupe_control_may_start(void) {
  forget_parents();
  if (atomic_load(&lupe__control.current) == PHASE_FINISHED) {
    clear_away(lupe_session_now_ms() + FINISH_WAIT_MS);
  }
  return atomic_load(&lupe__control.current) == PHASE_NONE;
}

lupe_status lupe_control_start(const char *socket_path, bool leave_allocator, bool until_welcome) {
  size_t length = strlen(socket_path);
  if (length == 0 || length >= sizeof lupe__control.path) return LUPE_EINVAL;
  if (atomic_load(&lupe__control.left) || atomic_load(&lupe__control.exiting)) return LUPE_EUNSUPPORTED;
  unmap_segments();
  memcpy(lupe__control.path, socket_path, length + 1);
  lupe__control.leave_allocator = leave_allocator;
  lupe_heap_prepare(leave_allocator, &lupe__control.heap);
  lupe__control.forked = false;
  atomic_store(&lupe__control.comes_back, false);
  atomic_store(&lupe__control.away, false);
  find_memory_functions();
  lupe_cpu_reopen();
  start(until_welcome ? PHASE_WELCOMED : PHASE_ONLINE, START_WAIT_MS);
  lupe__phase reached = atomic_load(&lupe__control.current);
  lupe_status outcome = atomic_load(&lupe__control.outcome);
  if (is_online() && (reached == PHASE_WELCOMED || !until_welcome)) return LUPE_OK;
  return reached == PHASE_NONE || (reached == PHASE_FINISHED && outcome != LUPE_OK) ? outcome : LUPE_ENOENT;
}

void lupe_control_after_fork(void) {
  uint32_t parents = atomic_load(&lupe__control.current);
  if (parents == PHASE_NONE || parents == PHASE_FINISHED) return;
  if (atomic_load(&lupe__control.stopping) || atomic_load(&lupe__control.given_up)) {
    forget_parents();
    lupe__control_unmap(&lupe__control.segment);
    lupe_heap_restore();
    return;
  }
  lupe__control.forked = true;
  if (lupe__control
          .segment) { /* NULL: the parent is a forked child too, and has not unmapped its parent's yet */
    lupe__control.parents_segment = lupe__control.segment;
    lupe__control.segment = NULL;
  }
  /* Only root can change who it is before the thread has connected. Nobody waits for who is away: the child
   * looks for the daemon as its parent does. */
  bool waits = geteuid() == 0 && !atomic_load(&lupe__control.away);
  start(PHASE_CONNECTED, waits ? FORK_WAIT_MS : 0);
}

static void ask_to_leave(lupe__wish how) {
  atomic_store(&lupe__control.leave, how);
  syscall(SYS_futex, &lupe__control.leave, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
  pid_t tid = own(LUPE_OWN_AGENT);
  if (tid != 0 && !has_finished()) syscall(SYS_tgkill, lupe__control.pid, tid, LUPE__WAKE_SIGNAL);
}

/* Who exits amid an allocation has a lock that the agent waits for: then there is no proof either. */
static void send_away(void) {
  ask_to_leave(LEAVE_POLITELY);
  int64_t now = lupe_session_now_ms(), until = now + FINISH_WAIT_MS;
  for (; !has_finished() && now < until; now = lupe_session_now_ms()) {
    if (now < atomic_load(&lupe__control.proves_until)) until = now + FINISH_WAIT_MS;
    wait_for(PHASE_FINISHED, LOOK_MS);
  }
}

void lupe_control_finish(void) {
  if (!is_online() || atomic_load(&lupe__control.left)) return;
  if (lupe__control.pid != getpid()) return;
  lupe_cpu_disarm();
  atomic_store(&lupe__control.exiting, true);
  send_away();
}

void lupe_control_leave(void) {
  if (atomic_load(&lupe__control.current) == PHASE_NONE || atomic_load(&lupe__control.left)) return;
  if (lupe__control.pid != getpid() || atomic_exchange(&lupe__control.left, true)) return;
  int saved_errno = errno;
  lupe_cpu_disarm();
  if (atomic_load(&lupe__control.current) != PHASE_FINISHED) send_away();
  /* Not joined: outlive_agent may do that. A filter for all threads must not find it on its last steps. */
  wait_until_gone(own(LUPE_OWN_AGENT), lupe_session_now_ms() + GONE_WAIT_MS);
  errno = saved_errno;
}

lupe_status lupe_control_stop(void) {
  if (lupe__control.pid != getpid() || atomic_load(&lupe__control.left)) return LUPE_OK;
  if (atomic_load(&lupe__control.current) == PHASE_NONE) return unmap_segments() ? LUPE_OK : LUPE_EAGAIN;
  atomic_store(&lupe__control.stopping, true);
  lupe_cpu_end();
  send_away();
  if (!has_finished()) lupe_cpu_disarm(); /* it waits for something; what it does then goes on without us */
  lupe_status status = clear_away(lupe_session_now_ms() + GONE_WAIT_MS);
  if (status != LUPE_OK) return status;
  return unmap_segments() ? LUPE_OK : LUPE_EAGAIN;
}

bool lupe_control_online(void) {
  return is_online() && lupe__control.pid == getpid();
}

bool lupe_control_has_left(void) {
  return atomic_load(&lupe__control.left);
}

pid_t lupe_control_thread_id(void) {
  pid_t tid = 0;
  if (atomic_load(&lupe__control.current) == PHASE_NONE || atomic_load(&lupe__control.left)) return 0;
  if (lupe__control.pid != getpid()) return 0;
  for (int i = 0; !has_finished() && (tid = own(LUPE_OWN_AGENT)) == 0 && i < START_WAIT_MS; i++)
    poll(NULL, 0, 1);
  return has_finished() ? 0 : tid != 0 ? tid : -1;
}

bool lupe_control_retire(bool only_single) {
  struct timespec deadline;
  if (atomic_load(&lupe__control.current) == PHASE_NONE || atomic_load(&lupe__control.left)) return false;
  if (lupe__control.pid != getpid()) return false;
  /* 0: /proc cannot be read, so who knows */
  if (only_single && lupe__control_leader().threads != 2) return false;
  lupe_cpu_disarm();
  ask_to_leave(LEAVE_SILENTLY);
  clock_gettime(CLOCK_REALTIME, &deadline);
  deadline.tv_sec += RETIRE_WAIT_S;
  if (!atomic_exchange(&lupe__control.joinable, false)) return false;
  if (pthread_timedjoin_np(lupe__control.thread, NULL, &deadline) != 0) {
    atomic_store(&lupe__control.joinable, true);
    return false;
  }
  lupe_own_threads_set(LUPE_OWN_AGENT, 0);
  atomic_store(&lupe__control.current, PHASE_NONE);
  return true;
}

#include "core/agent/control.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/agent/cpu.h"
#include "core/agent/session.h"
#include "core/wire/ring.h"

enum {
  START_WAIT_MS = 1000,
  FORK_WAIT_MS = 100,
  FINISH_WAIT_MS = 1000,
  FORK_QUIET_MS = 100,
  GONE_WAIT_MS = 100,
  LOOK_MS = 10,          /* between two looks whether a proof at exit has ended */
  LOOK_AROUND_MS = 1000, /* between two looks at the program's threads */
  HURRIED_MS = 50,       /* the same once the first one has ended, or where the wake signal cannot be told */
  OWN_THREADS = 3,       /* the leader's zombie, the agent's thread, the one that outlives it */
  WAKE_SIGNAL = SIGURG,  /* ignored by default: harmless wherever it might end up */
};

typedef enum phase {
  PHASE_NONE,      /* there is no thread */
  PHASE_STARTING,  /* not connected yet */
  PHASE_CONNECTED, /* connected, HELLO not said */
  PHASE_ONLINE,    /* HELLO said, sampling on */
  PHASE_FINISHED,  /* the thread touches nothing any more */
} phase;

/* What the agent's thread is asked to do. */
typedef enum wish { STAY, LEAVE_POLITELY, LEAVE_SILENTLY } wish;

/* Written by the thread that starts the agent's, before it does; `current` and `leave` by both. */
static struct {
  char path[sizeof((struct sockaddr_un *)0)->sun_path];
  lupe_heap_info heap;
  bool forked;
  pid_t pid; /* whose thread it is: differs in vforked and unhandled forked children */
  pthread_t thread;
  lupe_segment *segment;         /* of this process */
  lupe_segment *parents_segment; /* in a forked child: still mapped, to be unmapped */
  _Atomic uint32_t current;      /* phase; a futex */
  _Atomic uint32_t leave;        /* wish; a futex */
  atomic_bool exiting;           /* LEAVE_POLITELY, since the program exits */
  _Atomic int64_t
      proves_until;       /* lupe_session_now_ms(): at exit, a proof is under way at the longest; 0: none */
  _Atomic pid_t tid;      /* of the agent's thread, as the kernel names it */
  _Atomic pid_t outliver; /* of the thread that outlives it; 0: none */
  uint64_t memory_functions[LUPE_MEMORY_FUNCTIONS];
  atomic_bool left; /* by lupe_control_leave: once and for all */
} control;

/* ---- small things ---- */

static void enter(phase next) {
  atomic_store(&control.current, next);
  syscall(SYS_futex, &control.current, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Waits until the thread is in `wanted` or a later phase. */
static void wait_for(phase wanted, int64_t wait_ms) {
  int64_t deadline = lupe_session_now_ms() + wait_ms;
  uint32_t seen;
  while ((seen = atomic_load(&control.current)) < (uint32_t)wanted) {
    int64_t left = deadline - lupe_session_now_ms();
    if (left <= 0) return;
    struct timespec timeout = {left / 1000, left % 1000 * 1000000};
    syscall(SYS_futex, &control.current, FUTEX_WAIT_PRIVATE, seen, &timeout, NULL, 0);
  }
}

/* /proc/PID/stat of the leading thread: its state, the process's thread count and start. Zeros where /proc is
 * not to be read. */
typedef struct leader {
  char state;
  long threads;
  unsigned long long start_ticks;
} leader;

static leader read_leader(void) {
  leader l = {0};
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)control.pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return l;
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  if (n <= 0) return l;
  text[n] = '\0';
  char *p = strrchr(text, ')'); /* the name before it may hold anything */
  leader found;
  if (p && sscanf(p + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d %llu",
                  &found.state, &found.threads, &found.start_ticks) == 3) {
    l = found;
  }
  return l;
}

/* ---- the thread ---- */

static lupe_hello introduce(void) {
  lupe_hello hello = {
      .version = LUPE_WIRE_VERSION,
      .pid = control.pid,
      .ppid = getppid(),
      .heap_state = control.heap.state,
      .start_ticks = read_leader().start_ticks,
      .sample_period_bytes = control.heap.sample_period_bytes,
      .forked = control.forked,
  };
  memcpy(hello.allocator, control.heap.allocator, sizeof hello.allocator);
  memcpy(hello.memory_functions, control.memory_functions, sizeof hello.memory_functions);
  /* Not /proc/self/exe: that is the interpreter of a script, and behind a link the other name. */
  const char *executed = (const char *)getauxval(AT_EXECFN);
  const char *base = executed ? strrchr(executed, '/') : NULL;
  snprintf(hello.name, sizeof hello.name, "%s", base ? base + 1 : executed ? executed : "");
  return hello;
}

/* Becomes readable when WAKE_SIGNAL waits for this thread. Nobody reads it: that could take a signal which
 * waits for the whole process, and is the program's. -1: not to be had. */
static int open_wake(void) {
  sigset_t wake;
  sigemptyset(&wake);
  sigaddset(&wake, WAKE_SIGNAL);
  return signalfd(-1, &wake, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Waits for a message, a wish that the thread leave, or `timeout_ms`. Returns whether there is a message. */
static bool listen_for(const lupe_session *se, int *wake, int64_t timeout_ms) {
  if (*wake < 0 && timeout_ms > HURRIED_MS) timeout_ms = HURRIED_MS;
  struct pollfd sources[2] = {{.fd = se->socket, .events = POLLIN}, {.fd = *wake, .events = POLLIN}};
  int ready = poll(sources, 2, (int)timeout_ms);
  if (ready <= 0) return false;
  if (sources[1].revents && atomic_load(&control.leave) == STAY) { /* the program's own signal, see above */
    close(*wake);
    *wake = -1;
  }
  return sources[0].revents != 0;
}

/* The same while sampling is on. Each SIGPROF in the process would wake a poll that has a signal's descriptor
 * (some hundred times a second, for nothing): so the wish is waited for, and the socket looked at afterwards.
 */
static bool doze(const lupe_session *se, int64_t timeout_ms) {
  struct timespec timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000000};
  struct pollfd socket = {.fd = se->socket, .events = POLLIN};
  syscall(SYS_futex, &control.leave, FUTEX_WAIT_PRIVATE, STAY, &timeout, NULL, 0);
  return poll(&socket, 1, 0) > 0;
}

/* Waits until something is due. Returns whether there is a message. */
static bool pause_until(const lupe_session *se, int *wake, int64_t due_ms) {
  int64_t now = lupe_session_now_ms(), sampling_due = lupe_sampler_due_ms(&se->sampler);
  if (se->enabled && se->figures_due_ms < due_ms) due_ms = se->figures_due_ms;
  if (lupe_session_proof_due_ms(se) < due_ms) due_ms = lupe_session_proof_due_ms(se);
  if (sampling_due < due_ms) due_ms = sampling_due;
  int64_t left_ms = due_ms > now ? due_ms - now : 0;
  return sampling_due == INT64_MAX ? listen_for(se, wake, left_ms) : doze(se, left_ms);
}

/* Until the runtime is gone or the thread is to leave. While a command has more to do, that goes on between
 * the other work. */
static void serve(lupe_session *se, int *wake) {
  int64_t look_due_ms = lupe_session_now_ms() + LOOK_AROUND_MS;
  for (;;) {
    bool message = !se->busy && pause_until(se, wake, look_due_ms);
    uint32_t leave = atomic_load(&control.leave);
    se->own[1] = atomic_load(&control.outliver);
    if (leave == LEAVE_POLITELY) {
      /* The runtime's first word may say what is wanted at the end. */
      if (message && lupe_session_answer(se) != LUPE_OK) return;
      lupe_session_farewell(se, atomic_load(&control.exiting));
    }
    if (leave != STAY) return;
    if (se->busy && lupe_session_go_on(se) != LUPE_OK) return;
    if (message && lupe_session_answer(se) != LUPE_OK) return;
    int64_t now = lupe_session_now_ms();
    if (now >= look_due_ms) {
      leader l = read_leader(); /* a zombie after pthread_exit */
      if (l.state == 'Z' && l.threads <= OWN_THREADS) {
        lupe_session_farewell(se, false);
        return;
      }
      look_due_ms = now + (l.state == 'Z' ? HURRIED_MS : LOOK_AROUND_MS);
    }
    if (se->enabled && now >= se->figures_due_ms) {
      lupe_session_refresh(se);
      se->figures_due_ms = now + se->figures_interval_ms;
    }
    if (now >= lupe_session_proof_due_ms(se) && lupe_session_prove_on(se, now) != LUPE_OK) return;
    lupe_sampler_run(&se->sampler, now, se->own, sizeof se->own / sizeof se->own[0]);
  }
}

static void converse(lupe_session *se, int *wake) {
  if (lupe_session_own_descriptors() != LUPE_OK || lupe_session_connect(se, control.path) != LUPE_OK) return;
  *wake = open_wake();
  lupe_sampler_open(&se->sampler);
  enter(PHASE_CONNECTED);
  if (control.forked) {
    int64_t quiet_until = lupe_session_now_ms() + FORK_QUIET_MS, now;
    while ((now = lupe_session_now_ms()) < quiet_until && atomic_load(&control.leave) == STAY) {
      if (listen_for(se, wake, quiet_until - now)) return; /* nobody speaks before us: the runtime is gone */
    }
    if (atomic_load(&control.leave) != STAY) return;
    lupe_segment *parents = control.parents_segment;
    control.parents_segment = NULL; /* first: a child forked in between must not unmap what it has not got */
    lupe_segment_unmap(parents);
  }
  lupe_hello hello = introduce();
  lupe_status opened = lupe_session_open(se, &hello);
  control.segment = se->segment;
  if (opened != LUPE_OK) return;
  enter(PHASE_ONLINE);
  serve(se, wake);
}

static void *agent_main(void *unused) {
  lupe_session se = {
      .socket = -1,
      .has_profiles = control.heap.sample_period_bytes != 0,
      .sample_period_bytes = control.heap.sample_period_bytes,
      .proof = LUPE_PROOF_INIT,
      .own = {gettid()},
      .first_frame = __builtin_frame_address(0),
      .proves_until = &control.proves_until,
      .enabled = true,
      .figures_interval_ms = LOOK_AROUND_MS,
  };
  int wake = -1;
  struct sched_param normal = {0};
  atomic_store(&control.tid, gettid());
  sched_setscheduler(0, SCHED_OTHER, &normal); /* a real-time program's thread started us */
  pthread_setname_np(pthread_self(), "lupe-agent");
  lupe_heap_hide_thread();
  converse(&se, &wake);
  lupe_session_close(&se);
  if (wake >= 0) close(wake);
  enter(PHASE_FINISHED);
  return unused;
}

static bool start_thread(void) {
  sigset_t all, before;
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setstacksize(&attributes, LUPE_AGENT_STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&control.thread, &attributes, agent_main, NULL);
  if (failed == EINVAL) { /* too little for this program's thread-local storage */
    failed = pthread_create(&control.thread, NULL, agent_main, NULL);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return failed == 0;
}

/* ---- the last thread ----
 *
 * When a program's first thread leaves by pthread_exit, the process ends with its last thread, which then
 * flushes and closes what the program left open. The agent's thread must not be that last one: it does not
 * have the program's descriptors. So the first thread, as it leaves, starts one that has them and that ends
 * when the agent's has ended. */

static pthread_key_t leaving;
static sigset_t leavers_mask;

static void *outlive_agent(void *unused) {
  atomic_store(&control.outliver, gettid());
  while (atomic_load(&control.current) != PHASE_FINISHED) wait_for(PHASE_FINISHED, LOOK_AROUND_MS);
  pthread_join(control.thread, NULL);
  pthread_sigmask(SIG_SETMASK, &leavers_mask, NULL); /* for what the program does as it exits */
  return unused;
}

static void on_leaving(void *unused) {
  pthread_t last;
  (void)unused;
  if (atomic_load(&control.current) == PHASE_NONE || atomic_load(&control.left)) return;
  if (control.pid != getpid()) return;
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
  lupe_control_finish();
  pthread_join(control.thread, NULL);
}

/* ---- from outside ---- */

static void start(phase wanted, int64_t wait_ms) {
  control.pid = getpid();
  atomic_store(&control.outliver, 0);
  atomic_store(&control.leave, STAY);
  atomic_store(&control.proves_until, 0);
  atomic_store(&control.current, PHASE_STARTING);
  pthread_setspecific(leaving, &control);
  if (start_thread()) {
    wait_for(wanted, wait_ms);
  } else {
    atomic_store(&control.current, PHASE_NONE);
    lupe_heap_activate(false);
  }
}

/* libc's memcpy and its kin have one name and many bodies, of which the loader takes the one for this
 * processor. dlsym answers with that. */
static void find_memory_functions(void) {
  static const char *const names[LUPE_MEMORY_FUNCTIONS] = {LUPE_MEMORY_FUNCTION_NAMES};
  for (size_t i = 0; i < LUPE_MEMORY_FUNCTIONS; i++) {
    control.memory_functions[i] = (uint64_t)(uintptr_t)dlsym(RTLD_NEXT, names[i]);
  }
}

void lupe_control_start(const char *socket_path, const lupe_heap_info *heap) {
  size_t length = strlen(socket_path);
  if (length == 0 || length >= sizeof control.path) return;
  if (pthread_key_create(&leaving, on_leaving) != 0) return;
  memcpy(control.path, socket_path, length + 1);
  control.heap = *heap;
  find_memory_functions();
  start(PHASE_ONLINE, START_WAIT_MS);
}

void lupe_control_after_fork(void) {
  uint32_t parents = atomic_load(&control.current);
  if (parents == PHASE_NONE || parents == PHASE_FINISHED) return;
  control.forked = true;
  if (control.segment) { /* NULL: the parent is a forked child too, and has not unmapped its parent's yet */
    control.parents_segment = control.segment;
    control.segment = NULL;
  }
  /* Only root can change who it is before the thread has connected. */
  start(PHASE_CONNECTED, geteuid() == 0 ? FORK_WAIT_MS : 0);
}

static void ask_to_leave(wish how) {
  atomic_store(&control.leave, how);
  syscall(SYS_futex, &control.leave, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
  if (atomic_load(&control.current) != PHASE_FINISHED) pthread_kill(control.thread, WAKE_SIGNAL);
}

/* Who exits amid an allocation has a lock that the agent waits for: then there is no proof either. */
static void send_away(void) {
  ask_to_leave(LEAVE_POLITELY);
  int64_t now = lupe_session_now_ms(), until = now + FINISH_WAIT_MS;
  for (; atomic_load(&control.current) != PHASE_FINISHED && now < until; now = lupe_session_now_ms()) {
    if (now < atomic_load(&control.proves_until)) until = now + FINISH_WAIT_MS;
    wait_for(PHASE_FINISHED, LOOK_MS);
  }
}

void lupe_control_finish(void) {
  if (atomic_load(&control.current) != PHASE_ONLINE || atomic_load(&control.left)) return;
  if (control.pid != getpid()) return;
  lupe_cpu_disarm();
  atomic_store(&control.exiting, true);
  send_away();
}

void lupe_control_leave(void) {
  if (atomic_load(&control.current) == PHASE_NONE || atomic_load(&control.left)) return;
  if (control.pid != getpid() || atomic_exchange(&control.left, true)) return;
  int saved_errno = errno;
  lupe_cpu_disarm();
  if (atomic_load(&control.current) != PHASE_FINISHED) send_away();
  /* Not joined: outlive_agent may do that. A filter for all threads must not find it on its last steps. */
  for (int i = 0; i < GONE_WAIT_MS && syscall(SYS_tgkill, control.pid, control.tid, 0) == 0; i++) {
    poll(NULL, 0, 1);
  }
  errno = saved_errno;
}

bool lupe_control_has_left(void) {
  return atomic_load(&control.left);
}

bool lupe_control_retire(void) {
  struct timespec deadline;
  if (atomic_load(&control.current) == PHASE_NONE || atomic_load(&control.left)) return false;
  if (control.pid != getpid()) return false;
  if (read_leader().threads != 2) return false; /* 0: /proc cannot be read, so who knows */
  lupe_cpu_disarm();
  ask_to_leave(LEAVE_SILENTLY);
  clock_gettime(CLOCK_REALTIME, &deadline);
  deadline.tv_sec += FINISH_WAIT_MS / 1000;
  if (pthread_timedjoin_np(control.thread, NULL, &deadline) != 0) return false;
  atomic_store(&control.current, PHASE_NONE);
  return true;
}

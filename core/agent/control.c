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
#include "core/agent/heap.h"
#include "core/agent/own_memory.h"
#include "core/agent/own_threads.h"
#include "core/agent/session.h"
#include "core/agent/wiped.h"
#include "core/wire/ring.h"

enum {
  START_WAIT_MS = 1000,
  FORK_WAIT_MS = 100,
  FINISH_WAIT_MS = 1000,
  FORK_QUIET_MS = 100,
  GONE_WAIT_MS = 100,
  WRITERS_WAIT_MS = 100,
  GONE_LOOK_NS = 50000,
  LOOK_MS = 10,          /* between two looks whether a proof at exit has ended */
  AWAY_FIRST_MS = 500,   /* before a daemon that went away is looked for; then twice as long each time, */
  AWAY_MAX_MS = 10000,   /* up to this */
  LOOK_AROUND_MS = 1000, /* between two looks at the program's threads */
  HURRIED_MS = 50,       /* the same once the first one has ended, or where the wake signal cannot be told */
  OWN_THREADS = 3,       /* the leader's zombie, the agent's thread, the one that outlives it */
  WAKE_SIGNAL = SIGURG,  /* ignored by default: harmless wherever it might end up */
};

typedef enum phase {
  PHASE_NONE,      /* there is no thread */
  PHASE_STARTING,  /* not connected yet */
  PHASE_CONNECTED, /* connected, HELLO not said */
  PHASE_ONLINE,    /* HELLO said, the heap's sampling on */
  PHASE_WELCOMED,  /* all sampling is as the runtime wants it */
  PHASE_FINISHED,  /* the thread touches nothing any more */
} phase;

/* What the agent's thread is asked to do. */
typedef enum wish { STAY, LEAVE_POLITELY, LEAVE_SILENTLY } wish;

/* Written by the thread that starts the agent's, before it does; `current`, `leave` and `segment` by both. */
static struct {
  char path[sizeof((struct sockaddr_un *)0)->sun_path];
  lupe_heap_info heap; /* and by the agent's while `away` */
  bool leave_allocator;
  bool forked;
  _Atomic pid_t pid; /* whose thread it is: differs in vforked and unhandled forked children */
  pthread_t thread;
  atomic_bool joinable;            /* `thread` is, and nobody is about to */
  atomic_bool outlived;            /* a thread that outlives it has been started */
  atomic_bool stopping;            /* by lupe_control_stop */
  atomic_bool away;                /* a daemon is: the thread looks for it */
  _Atomic(lupe_segment *) segment; /* of this process; may be there still when the thread has finished */
  _Atomic(lupe_segment *) parents_segment; /* in a forked child: still mapped, to be unmapped */
  _Atomic uint32_t current;                /* phase; a futex */
  _Atomic uint32_t leave;                  /* wish; a futex */
  atomic_bool exiting;                     /* LEAVE_POLITELY, since the program exits */
  _Atomic int64_t
      proves_until;         /* lupe_session_now_ms(): at exit, a proof is under way at the longest; 0: none */
  _Atomic uint32_t outcome; /* lupe_status: why the thread has finished */
  uint64_t memory_functions[LUPE_MEMORY_FUNCTIONS];
  atomic_bool left; /* by lupe_control_leave: once and for all */
} control;

/* ---- small things ---- */

static void enter(phase next) {
  atomic_store(&control.current, next);
  syscall(SYS_futex, &control.current, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Waits until the thread is in `wanted` or a later phase, or there is none. */
static void wait_for(phase wanted, int64_t wait_ms) {
  int64_t deadline = lupe_session_now_ms() + wait_ms;
  uint32_t seen;
  while ((seen = atomic_load(&control.current)) < (uint32_t)wanted && seen != PHASE_NONE) {
    int64_t left = deadline - lupe_session_now_ms();
    if (left <= 0) return;
    struct timespec timeout = {left / 1000, left % 1000 * 1000000};
    syscall(SYS_futex, &control.current, FUTEX_WAIT_PRIVATE, seen, &timeout, NULL, 0);
  }
}

static bool is_online(void) {
  phase now = atomic_load(&control.current);
  return now == PHASE_ONLINE || now == PHASE_WELCOMED;
}

static pid_t own(size_t place) {
  return atomic_load(&lupe_wiped_page->own[place]);
}

/* What has been joined may be on its last steps in the kernel, and still be seen. True: it is gone. */
static bool wait_until_gone(pid_t tid, int64_t until_ms) {
  const struct timespec pause = {0, GONE_LOOK_NS};
  while (tid != 0 && tid != gettid() && syscall(SYS_tgkill, control.pid, tid, 0) == 0) {
    if (lupe_session_now_ms() >= until_ms) return false;
    nanosleep(&pause, NULL);
  }
  return true;
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

/* Unless a thread is in the midst of writing to it. */
static bool unmap(_Atomic(lupe_segment *) *segment) {
  if (*segment && atomic_load(&lupe_wiped_page->writers) > 0) return false;
  /* Taken first: a child forked in between must not unmap what it has not got. */
  lupe_segment_unmap(atomic_exchange(segment, NULL));
  return true;
}

/* Waits for a message, a wish that the thread leave, or `timeout_ms`. Returns whether there is a message. */
static bool listen_for(const lupe_session *se, int *wake, int64_t timeout_ms) {
  if (*wake < 0 && timeout_ms > HURRIED_MS) timeout_ms = HURRIED_MS;
  if (atomic_load(&control.leave) != STAY) timeout_ms = 0; /* whoever wished that may not have known us yet */
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
static lupe_status serve(lupe_session *se, int *wake) {
  lupe_status status = LUPE_OK;
  int64_t look_due_ms = lupe_session_now_ms() + LOOK_AROUND_MS;
  for (;;) {
    bool message = !se->busy && pause_until(se, wake, look_due_ms);
    uint32_t leave = atomic_load(&control.leave);
    if (leave == LEAVE_POLITELY) {
      /* The runtime's first word may say what is wanted at the end. */
      if (message) status = lupe_session_answer(se);
      if (status == LUPE_OK) lupe_session_farewell(se, atomic_load(&control.exiting));
    }
    if (leave != STAY) return status;
    if (se->busy) status = lupe_session_go_on(se);
    if (message) status = lupe_session_answer(se);
    if (status != LUPE_OK) return status;
    if (se->welcomed && atomic_load(&control.current) == PHASE_ONLINE) enter(PHASE_WELCOMED);
    int64_t now = lupe_session_now_ms();
    if (now >= look_due_ms) {
      leader l = read_leader(); /* a zombie after pthread_exit */
      if (l.state == 'Z' && l.threads <= OWN_THREADS) {
        lupe_session_farewell(se, false);
        return LUPE_OK;
      }
      look_due_ms = now + (l.state == 'Z' ? HURRIED_MS : LOOK_AROUND_MS);
    }
    if (se->enabled && now >= se->figures_due_ms) {
      lupe_session_refresh(se);
      se->figures_due_ms = now + se->figures_interval_ms;
    }
    if (now >= lupe_session_proof_due_ms(se)) status = lupe_session_prove_on(se, now);
    if (status != LUPE_OK) return status;
    lupe_sampler_run(&se->sampler, now);
  }
}

static lupe_status converse(lupe_session *se, int *wake) {
  lupe_status status = lupe_session_connect(se, control.path);
  if (status != LUPE_OK) return status;
  if (atomic_load(&control.away)) {
    lupe_heap_prepare(control.leave_allocator, &control.heap);
    atomic_store(&control.away, false);
  }
  *wake = open_wake();
  lupe_sampler_open(&se->sampler);
  enter(PHASE_CONNECTED);
  if (control.forked) {
    int64_t quiet_until = lupe_session_now_ms() + FORK_QUIET_MS, now;
    while ((now = lupe_session_now_ms()) < quiet_until && atomic_load(&control.leave) == STAY) {
      if (listen_for(se, wake, quiet_until - now)) return LUPE_ENOENT; /* nobody speaks before us */
    }
    if (atomic_load(&control.leave) != STAY) return LUPE_OK;
    unmap(&control.parents_segment);
  }
  lupe_hello hello = introduce();
  status = lupe_session_open(se, &hello);
  control.segment = se->segment;
  if (status != LUPE_OK) return status;
  enter(PHASE_ONLINE);
  return serve(se, wake);
}

/* From a connection to its end. *comes_back: the runtime has said that it does. */
static lupe_status one_session(const void *first_frame, bool *comes_back) {
  lupe_session se = {
      .socket = -1,
      .has_profiles = control.heap.sample_period_bytes != 0,
      .sample_period_bytes = control.heap.sample_period_bytes,
      .proof = LUPE_PROOF_INIT,
      .first_frame = first_frame,
      .proves_until = &control.proves_until,
      .enabled = true,
      .figures_interval_ms = LOOK_AROUND_MS,
  };
  int wake = -1;
  lupe_status status = converse(&se, &wake);
  *comes_back = se.comes_back;
  lupe_session_close(&se);
  if (wake >= 0) close(wake);
  return status;
}

/* False: the thread is to leave, or it is the only one that the program has left. */
static bool stay_away(int64_t pause_ms) {
  int64_t until_ms = lupe_session_now_ms() + pause_ms, left_ms;
  while ((left_ms = until_ms - lupe_session_now_ms()) > 0) {
    leader l = read_leader();
    if (l.state == 'Z' && l.threads <= OWN_THREADS) return false;
    int64_t look_ms = l.state == 'Z' ? HURRIED_MS : LOOK_AROUND_MS;
    if (left_ms > look_ms) left_ms = look_ms;
    struct timespec timeout = {left_ms / 1000, left_ms % 1000 * 1000000};
    syscall(SYS_futex, &control.leave, FUTEX_WAIT_PRIVATE, STAY, &timeout, NULL, 0);
    if (atomic_load(&control.leave) != STAY) return false;
  }
  return true;
}

/* A session, and where a daemon went away the next one. */
static lupe_status live(const void *first_frame) {
  bool is_daemons = false;
  int64_t pause_ms = AWAY_FIRST_MS;
  lupe_status status = lupe_session_own_descriptors();
  while (status == LUPE_OK) {
    bool comes_back;
    status = one_session(first_frame, &comes_back);
    if (comes_back) pause_ms = AWAY_FIRST_MS;
    is_daemons = is_daemons || comes_back;
    if (!is_daemons || atomic_load(&control.leave) != STAY) return status;
    atomic_store(&control.away, true);
    enter(PHASE_STARTING);
    do {
      if (!stay_away(pause_ms)) return status;
      pause_ms = pause_ms < AWAY_MAX_MS / 2 ? pause_ms * 2 : AWAY_MAX_MS;
    } while (!unmap(&control.segment)); /* who is in the midst of writing to it has all the time */
    status = LUPE_OK;
  }
  return status;
}

static void *agent_main(void *unused) {
  struct sched_param normal = {0};
  lupe_own_threads_set(LUPE_OWN_AGENT, gettid());
  sched_setscheduler(0, SCHED_OTHER, &normal); /* a real-time program's thread started us */
  pthread_setname_np(pthread_self(), "lupe-agent");
  lupe_own_memory_enter();
  atomic_store(&control.outcome, live(__builtin_frame_address(0)));
  lupe_own_memory_purge();
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
  atomic_store(&control.joinable, failed == 0);
  return failed == 0;
}

/* ---- the last thread ----
 *
 * When a program's first thread leaves by pthread_exit, the process ends with its last thread, which then
 * flushes and closes what the program left open. The agent's thread must not be that last one: it does not
 * have the program's descriptors. So the thread that has started the agent, which is the first one or lives
 * on beside it, starts one as it leaves that has them, and that ends when the agent's has ended. */

static pthread_key_t leaving;
static sigset_t leavers_mask;

/* Whoever stops the agent, or ends its thread for another reason, joins it before this thread could. */
static void join(void) {
  if (atomic_exchange(&control.joinable, false)) {
    pthread_join(control.thread, NULL);
  } else {
    wait_until_gone(own(LUPE_OWN_AGENT), lupe_session_now_ms() + GONE_WAIT_MS);
  }
}

static bool has_finished(void) {
  phase now = atomic_load(&control.current);
  return now == PHASE_NONE || now == PHASE_FINISHED;
}

static void *outlive_agent(void *unused) {
  lupe_own_threads_set(LUPE_OWN_OUTLIVER, gettid());
  while (!has_finished()) wait_for(PHASE_FINISHED, LOOK_AROUND_MS);
  join();
  pthread_sigmask(SIG_SETMASK, &leavers_mask, NULL); /* for what the program does as it exits */
  return unused;
}

static void on_leaving(void *unused) {
  pthread_t last;
  (void)unused;
  if (atomic_load(&control.current) == PHASE_NONE || atomic_load(&control.left)) return;
  if (control.pid != getpid() || atomic_exchange(&control.outlived, true)) return;
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
  atomic_store(&control.outlived, false);
  lupe_control_finish();
  join();
}

/* ---- from outside ---- */

static void start(phase wanted, int64_t wait_ms) {
  control.pid = getpid();
  lupe_own_threads_set(LUPE_OWN_AGENT, 0);
  lupe_own_threads_set(LUPE_OWN_OUTLIVER, 0);
  atomic_store(&control.outlived, false);
  atomic_store(&control.stopping, false);
  atomic_store(&control.away, false);
  atomic_store(&control.leave, STAY);
  atomic_store(&control.outcome, LUPE_OK);
  atomic_store(&control.proves_until, 0);
  atomic_store(&control.current, PHASE_STARTING);
  pthread_setspecific(leaving, &control);
  if (start_thread()) {
    wait_for(wanted, wait_ms);
  } else {
    atomic_store(&control.outcome, LUPE_ENOMEM);
    atomic_store(&control.current, PHASE_NONE);
    lupe_heap_restore();
  }
}

/* libc's memcpy and its kin have one name and many bodies, of which the loader takes the one for this
 * processor. dlsym answers with that. */
static void find_memory_functions(void) {
  static const char *const names[LUPE_MEMORY_FUNCTIONS] = {LUPE_MEMORY_FUNCTION_NAMES};
  for (size_t i = 0; i < LUPE_MEMORY_FUNCTIONS && control.memory_functions[i] == 0; i++) {
    control.memory_functions[i] = (uint64_t)(uintptr_t)dlsym(RTLD_NEXT, names[i]);
  }
}

/* The one that outlives the agent's thread ends by itself; it may be about to begin, too. */
static bool wait_for_outliver(int64_t until_ms) {
  while (atomic_load(&control.outlived) && own(LUPE_OWN_OUTLIVER) == 0) {
    if (lupe_session_now_ms() >= until_ms) return false;
    poll(NULL, 0, 1);
  }
  return wait_until_gone(own(LUPE_OWN_OUTLIVER), until_ms);
}

/* Joins a thread that has finished, and clears away what it left. */
static lupe_status clear_away(int64_t until_ms) {
  if (!has_finished() || !wait_until_gone(own(LUPE_OWN_AGENT), until_ms)) return LUPE_EAGAIN;
  if (atomic_exchange(&control.joinable, false)) pthread_join(control.thread, NULL);
  if (!wait_for_outliver(until_ms)) return LUPE_EAGAIN;
  lupe_own_threads_set(LUPE_OWN_AGENT, 0);
  lupe_own_threads_set(LUPE_OWN_OUTLIVER, 0);
  enter(PHASE_NONE);
  return LUPE_OK;
}

/* What a thread writes to stays mapped. */
static bool unmap_segments(void) {
  bool idle = false;
  for (int i = 0; !(idle = unmap(&control.segment)) && i < WRITERS_WAIT_MS; i++) poll(NULL, 0, 1);
  return idle && unmap(&control.parents_segment);
}

/* In a process that the agent's last thread was not of. */
static void forget_parents(void) {
  if (control.pid == getpid()) return;
  control.pid = getpid();
  atomic_store(&control.current, PHASE_NONE);
  atomic_store(&control.joinable, false);
}

lupe_status lupe_control_prepare(void) {
  return pthread_key_create(&leaving, on_leaving) == 0 ? LUPE_OK : LUPE_ENOMEM;
}

bool lupe_control_may_start(void) {
  forget_parents();
  if (atomic_load(&control.current) == PHASE_FINISHED) {
    clear_away(lupe_session_now_ms() + FINISH_WAIT_MS);
  }
  return atomic_load(&control.current) == PHASE_NONE;
}

lupe_status lupe_control_start(const char *socket_path, bool leave_allocator, bool until_welcome) {
  size_t length = strlen(socket_path);
  if (length == 0 || length >= sizeof control.path) return LUPE_EINVAL;
  if (atomic_load(&control.left) || atomic_load(&control.exiting)) return LUPE_EUNSUPPORTED;
  unmap_segments();
  memcpy(control.path, socket_path, length + 1);
  control.leave_allocator = leave_allocator;
  lupe_heap_prepare(leave_allocator, &control.heap);
  control.forked = false;
  find_memory_functions();
  lupe_cpu_reopen();
  start(until_welcome ? PHASE_WELCOMED : PHASE_ONLINE, START_WAIT_MS);
  phase reached = atomic_load(&control.current);
  lupe_status outcome = atomic_load(&control.outcome);
  if (is_online() && (reached == PHASE_WELCOMED || !until_welcome)) return LUPE_OK;
  return reached == PHASE_NONE || (reached == PHASE_FINISHED && outcome != LUPE_OK) ? outcome : LUPE_ENOENT;
}

void lupe_control_after_fork(void) {
  uint32_t parents = atomic_load(&control.current);
  if (parents == PHASE_NONE || parents == PHASE_FINISHED) return;
  if (atomic_load(&control.stopping) || atomic_load(&control.away)) {
    forget_parents();
    unmap(&control.segment);
    lupe_heap_restore();
    return;
  }
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
  pid_t tid = own(LUPE_OWN_AGENT);
  if (tid != 0 && !has_finished()) syscall(SYS_tgkill, control.pid, tid, WAKE_SIGNAL);
}

/* Who exits amid an allocation has a lock that the agent waits for: then there is no proof either. */
static void send_away(void) {
  ask_to_leave(LEAVE_POLITELY);
  int64_t now = lupe_session_now_ms(), until = now + FINISH_WAIT_MS;
  for (; !has_finished() && now < until; now = lupe_session_now_ms()) {
    if (now < atomic_load(&control.proves_until)) until = now + FINISH_WAIT_MS;
    wait_for(PHASE_FINISHED, LOOK_MS);
  }
}

void lupe_control_finish(void) {
  if (!is_online() || atomic_load(&control.left)) return;
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
  wait_until_gone(own(LUPE_OWN_AGENT), lupe_session_now_ms() + GONE_WAIT_MS);
  errno = saved_errno;
}

lupe_status lupe_control_stop(void) {
  if (control.pid != getpid() || atomic_load(&control.left)) return LUPE_OK;
  if (atomic_load(&control.current) == PHASE_NONE) return unmap_segments() ? LUPE_OK : LUPE_EAGAIN;
  atomic_store(&control.stopping, true);
  lupe_cpu_end();
  send_away();
  if (!has_finished()) lupe_cpu_disarm(); /* it waits for something; what it does then goes on without us */
  lupe_status status = clear_away(lupe_session_now_ms() + GONE_WAIT_MS);
  if (status != LUPE_OK) return status;
  return unmap_segments() ? LUPE_OK : LUPE_EAGAIN;
}

bool lupe_control_online(void) {
  return is_online() && control.pid == getpid();
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
  if (!atomic_exchange(&control.joinable, false)) return false;
  if (pthread_timedjoin_np(control.thread, NULL, &deadline) != 0) {
    atomic_store(&control.joinable, true);
    return false;
  }
  lupe_own_threads_set(LUPE_OWN_AGENT, 0);
  atomic_store(&control.current, PHASE_NONE);
  return true;
}

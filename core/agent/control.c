#include "core/agent/control.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
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
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/wire/channel.h"
#include "core/wire/ring.h"

enum {
  START_WAIT_MS = 1000,
  FORK_WAIT_MS = 100,
  FINISH_WAIT_MS = 1000,
  FORK_QUIET_MS = 100,
  SEND_WAIT_MS = 1000,
  CONNECT_ATTEMPTS = 20, /* 2 ms apart, while the runtime's queue is full */
  CONNECT_PAUSE_MS = 2,
  STACK_BYTES = 256 * 1024,
  LOOK_AROUND_MS = 1000, /* between two looks at the program's threads */
  HURRIED_MS = 50,       /* the same once the first one has ended, or where the wake signal cannot be told */
  FIGURES_MIN_MS = 50,
  FIGURES_MAX_MS = 60000,
  OWN_THREADS = 3,      /* the leader's zombie, the agent's thread, the one that outlives it */
  WAKE_SIGNAL = SIGURG, /* ignored by default: harmless wherever it might end up */
};

typedef enum phase {
  PHASE_NONE,      /* there is no thread */
  PHASE_STARTING,  /* not connected yet */
  PHASE_CONNECTED, /* connected, HELLO not said */
  PHASE_ONLINE,    /* HELLO said, sampling on */
  PHASE_FINISHED,  /* the thread touches nothing any more */
} phase;

/* Written by the thread that starts the agent's, before it does; `current` and `finish_wanted` by both. */
static struct {
  char path[sizeof((struct sockaddr_un *)0)->sun_path];
  lupe_heap_info heap;
  bool forked;
  pid_t pid; /* whose thread it is: differs in vforked and unhandled forked children */
  pthread_t thread;
  lupe_segment *parents_segment; /* in a forked child: still mapped, to be unmapped */
  _Atomic uint32_t current;      /* phase; a futex */
  _Atomic uint32_t finish_wanted;
} control;

/* The thread's own. */
typedef struct session {
  int socket;
  int wake; /* signalfd, -1: not usable */
  lupe_segment *segment;
  bool enabled;
  int64_t figures_interval_ms;
  int64_t figures_due_ms, look_due_ms; /* CLOCK_MONOTONIC */
} session;

static lupe_segment *mapped_segment; /* the one of this process, kept mapped: pushes may be under way */

/* ---- small things ---- */

static int64_t clock_ns(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t now_ms(void) {
  return clock_ns(CLOCK_MONOTONIC) / 1000000;
}

static void sleep_ms(int64_t ms) {
  struct timespec left = {ms / 1000, ms % 1000 * 1000000};
  while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR) continue;
}

static void enter(phase next) {
  atomic_store(&control.current, next);
  syscall(SYS_futex, &control.current, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Waits until the thread is in `wanted` or a later phase. */
static void wait_for(phase wanted, int64_t wait_ms) {
  int64_t deadline = now_ms() + wait_ms;
  uint32_t seen;
  while ((seen = atomic_load(&control.current)) < (uint32_t)wanted) {
    int64_t left = deadline - now_ms();
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

/* ---- setting up ---- */

/* An empty descriptor table for this thread alone, its first three numbers taken by something that
 * cannot be written: a library's message to "stderr" must not reach our socket. */
static bool own_descriptors(void) {
  if (close_range(0, ~0U, CLOSE_RANGE_UNSHARE) != 0) return false;
  int fd;
  do {
    fd = memfd_create("lupe-nothing", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) != 0) return false;
  } while (fd < 2);
  return true;
}

static bool connect_runtime(session *se) {
  lupe_status status = LUPE_EAGAIN;
  for (int i = 0; status == LUPE_EAGAIN && i < CONNECT_ATTEMPTS; i++) {
    if (i > 0) sleep_ms(CONNECT_PAUSE_MS);
    status = lupe_channel_connect(control.path, &se->socket);
  }
  if (status != LUPE_OK) return false;
  pid_t pid;
  uid_t uid;
  return lupe_channel_peer(se->socket, &pid, &uid) == LUPE_OK && (uid == geteuid() || uid == 0);
}

/* ---- talking ---- */

/* False: the runtime is gone, or has not read for too long. */
static bool say(session *se, uint32_t type, const void *body, size_t bytes, int pass_fd) {
  lupe_status status = lupe_channel_send(se->socket, type, body, bytes, pass_fd);
  if (status == LUPE_EAGAIN) {
    struct pollfd room = {.fd = se->socket, .events = POLLOUT};
    poll(&room, 1, SEND_WAIT_MS);
    status = lupe_channel_send(se->socket, type, body, bytes, pass_fd);
  }
  return status == LUPE_OK;
}

/* New segment, HELLO, sampling on. */
static bool go_online(session *se) {
  int fd;
  if (lupe_segment_create(&fd, &se->segment) != LUPE_OK) return false;
  mapped_segment = se->segment;
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
  /* Not /proc/self/exe: that is the interpreter of a script, and behind a link the other name. */
  const char *executed = (const char *)getauxval(AT_EXECFN);
  const char *base = executed ? strrchr(executed, '/') : NULL;
  snprintf(hello.name, sizeof hello.name, "%s", base ? base + 1 : executed ? executed : "");
  bool said = say(se, LUPE_HELLO, &hello, sizeof hello, fd);
  close(fd);
  if (!said) return false;
  lupe_heap_arm(se->segment);
  lupe_heap_activate(true);
  return true;
}

static bool send_profile(session *se, uint64_t serial) {
  lupe_profile_reply reply = {.serial = serial, .time_ms = clock_ns(CLOCK_REALTIME) / 1000000};
  int64_t start_ns = clock_ns(CLOCK_MONOTONIC);
  int fd = memfd_create("lupe-profile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  reply.status = fd < 0 ? errno : lupe_heap_dump(fd);
  reply.elapsed_ns = (uint64_t)(clock_ns(CLOCK_MONOTONIC) - start_ns);
  if (reply.status == 0) {
    /* The runtime may map it: it must not change any more. */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
      reply.status = errno;
    } else {
      atomic_fetch_add_explicit(&se->segment->counters.profiles, 1, memory_order_relaxed);
      atomic_fetch_add_explicit(&se->segment->counters.profile_ns, reply.elapsed_ns, memory_order_relaxed);
    }
  }
  bool said = say(se, LUPE_PROFILED, &reply, sizeof reply, reply.status == 0 ? fd : -1);
  if (fd >= 0) close(fd);
  return said;
}

static void refresh_figures(session *se) {
  lupe_allocator_figures figures;
  if (lupe_heap_read_figures(&figures) == LUPE_OK) lupe_segment_publish_figures(se->segment, &figures);
  atomic_store_explicit(&se->segment->counters.thread_cpu_ns, (uint64_t)clock_ns(CLOCK_THREAD_CPUTIME_ID),
                        memory_order_relaxed);
}

static bool on_welcome(session *se, const lupe_welcome *w) {
  if (w->version != LUPE_WIRE_VERSION) return false;
  int64_t interval_ms = w->figures_interval_ms;
  if (interval_ms < FIGURES_MIN_MS) interval_ms = FIGURES_MIN_MS;
  if (interval_ms > FIGURES_MAX_MS) interval_ms = FIGURES_MAX_MS;
  se->figures_interval_ms = interval_ms;
  se->figures_due_ms = now_ms();
  se->enabled = w->enabled != 0;
  lupe_heap_activate(se->enabled);
  lupe_heap_arm(se->enabled ? se->segment : NULL);
  return true;
}

/* Takes one message. False: the conversation is over. */
static bool answer(session *se) {
  lupe_message m;
  union {
    lupe_welcome welcome;
    lupe_profile_request profile;
  } body;
  lupe_status status = lupe_channel_receive(se->socket, &m, &body, sizeof body, NULL);
  if (status == LUPE_EAGAIN) return true;
  if (status != LUPE_OK) return false;
  if (m.type == LUPE_WELCOME && m.body_bytes == sizeof body.welcome) return on_welcome(se, &body.welcome);
  if (m.type == LUPE_PROFILE && m.body_bytes == sizeof body.profile) {
    return send_profile(se, body.profile.serial);
  }
  return false;
}

/* ---- the thread ---- */

static void say_farewell(session *se) {
  if (se->enabled) {
    refresh_figures(se);
    if (control.heap.sample_period_bytes != 0 && !send_profile(se, 0)) return;
  }
  say(se, LUPE_GOODBYE, NULL, 0, -1);
}

static void serve(session *se) {
  for (;;) {
    int64_t now = now_ms(), due = se->look_due_ms;
    if (se->enabled && se->figures_due_ms < due) due = se->figures_due_ms;
    int64_t timeout = due > now ? due - now : 0;
    if (se->wake < 0 && timeout > HURRIED_MS) timeout = HURRIED_MS;
    struct pollfd sources[2] = {{.fd = se->socket, .events = POLLIN}, {.fd = se->wake, .events = POLLIN}};
    int ready = poll(sources, 2, (int)timeout);
    if (ready < 0 && errno != EINTR) return;
    if (atomic_load(&control.finish_wanted)) {
      say_farewell(se);
      return;
    }
    /* Not ours: a signal of the program's own waits for the process. Reading it would steal it. */
    if (ready > 0 && sources[1].revents) {
      close(se->wake);
      se->wake = -1;
    }
    if (ready > 0 && sources[0].revents && !answer(se)) return;
    now = now_ms();
    if (now >= se->look_due_ms) {
      leader l = read_leader(); /* a zombie after pthread_exit */
      if (l.state == 'Z' && l.threads <= OWN_THREADS) {
        say_farewell(se);
        return;
      }
      se->look_due_ms = now + (l.state == 'Z' ? HURRIED_MS : LOOK_AROUND_MS);
    }
    if (se->enabled && now >= se->figures_due_ms) {
      refresh_figures(se);
      se->figures_due_ms = now + se->figures_interval_ms;
    }
  }
}

static void *agent_main(void *unused) {
  session se = {.socket = -1, .wake = -1, .enabled = true, .figures_interval_ms = LOOK_AROUND_MS};
  struct sched_param normal = {0};
  sched_setscheduler(0, SCHED_OTHER, &normal); /* a real-time program's thread started us */
  pthread_setname_np(pthread_self(), "lupe-agent");
  lupe_heap_hide_thread();
  if (!own_descriptors() || !connect_runtime(&se)) goto finished;
  enter(PHASE_CONNECTED);
  if (control.forked) {
    sleep_ms(FORK_QUIET_MS);
    lupe_segment_unmap(control.parents_segment);
    control.parents_segment = NULL;
  }
  sigset_t wake;
  sigemptyset(&wake);
  sigaddset(&wake, WAKE_SIGNAL);
  se.wake = signalfd(-1, &wake, SFD_CLOEXEC | SFD_NONBLOCK);
  se.look_due_ms = now_ms() + LOOK_AROUND_MS;
  if (!go_online(&se)) goto finished;
  enter(PHASE_ONLINE);
  serve(&se);

finished:
  lupe_heap_activate(false);
  lupe_heap_arm(NULL);
  if (se.socket >= 0) close(se.socket);
  enter(PHASE_FINISHED);
  return unused;
}

static bool start_thread(void) {
  sigset_t all, before;
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
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

static void *outlive_agent(void *unused) {
  while (atomic_load(&control.current) != PHASE_FINISHED) wait_for(PHASE_FINISHED, LOOK_AROUND_MS);
  pthread_join(control.thread, NULL);
  return unused;
}

static void on_leaving(void *unused) {
  pthread_t last;
  (void)unused;
  if (control.pid != getpid() || atomic_load(&control.current) == PHASE_NONE) return;
  if (pthread_create(&last, NULL, outlive_agent, NULL) == 0) {
    pthread_detach(last);
    return;
  }
  lupe_control_finish();
  pthread_join(control.thread, NULL);
}

/* ---- from outside ---- */

static void start(phase wanted, int64_t wait_ms) {
  control.pid = getpid();
  atomic_store(&control.finish_wanted, 0);
  atomic_store(&control.current, PHASE_STARTING);
  pthread_setspecific(leaving, &control);
  if (start_thread()) {
    wait_for(wanted, wait_ms);
  } else {
    atomic_store(&control.current, PHASE_NONE);
    lupe_heap_activate(false);
  }
}

void lupe_control_start(const char *socket_path, const lupe_heap_info *heap) {
  size_t length = strlen(socket_path);
  if (length == 0 || length >= sizeof control.path) return;
  if (pthread_key_create(&leaving, on_leaving) != 0) return;
  memcpy(control.path, socket_path, length + 1);
  control.heap = *heap;
  start(PHASE_ONLINE, START_WAIT_MS);
}

void lupe_control_after_fork(void) {
  uint32_t parents = atomic_load(&control.current);
  if (parents == PHASE_NONE || parents == PHASE_FINISHED) return;
  control.forked = true;
  if (mapped_segment) { /* NULL: the parent is a forked child too, and has not unmapped its parent's yet */
    control.parents_segment = mapped_segment;
    mapped_segment = NULL;
  }
  start(PHASE_CONNECTED, FORK_WAIT_MS);
}

void lupe_control_finish(void) {
  if (control.pid != getpid() || atomic_load(&control.current) != PHASE_ONLINE) return;
  atomic_store(&control.finish_wanted, 1);
  pthread_kill(control.thread, WAKE_SIGNAL);
  wait_for(PHASE_FINISHED, FINISH_WAIT_MS);
}

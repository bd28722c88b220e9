#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/agent/control.h"
#include "core/agent/control_state.h"
#include "core/agent/kernel_text.h"
#include "core/agent/own_memory.h"
#include "core/agent/own_threads.h"
#include "core/agent/session.h"

enum {
  FORK_QUIET_MS = 100,
  AWAY_FIRST_MS = 500,   /* before a daemon that went away is looked for; then twice as long each time, */
  AWAY_MAX_MS = 10000,   /* up to this */
  LOOK_AROUND_MS = 1000, /* between two looks at the program's threads */
  HURRIED_MS = 50,       /* the same once the first one has ended, or where the wake signal cannot be told */
};

lupe__leader lupe__control_leader(void) {
  lupe__leader l = {0};
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)lupe__control.pid);
  if (lupe_kernel_text_read(AT_FDCWD, path, text, sizeof text) <= 0) return l;
  char *p = strrchr(text, ')'); /* the name before it may hold anything */
  lupe__leader found;
  if (p && sscanf(p + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d %llu",
                  &found.state, &found.threads, &found.start_ticks) == 3) {
    l = found;
  }
  return l;
}

/* Threads of lupe's beside the agent's two. */
static size_t count_others(void) {
  return lupe_own_threads_adopted() + lupe_own_threads_expected();
}

/* Whether the program has ended but for lupe's threads. Its first one is a zombie then, and the last one that
 * left has started the one that outlives us: which is told whether it is the last, or there are others. */
static bool is_deserted(const lupe__leader *l) {
  if (l->state != 'Z') return false;
  size_t others = count_others();
  size_t own = 2 + lupe_own_threads_lives(LUPE_OWN_OUTLIVER) + others;
  if (l->threads > (long)own) return false;
  atomic_store(&lupe__control.deserted, others > 0);
  return true;
}

static lupe_hello introduce(void) {
  lupe_hello hello = {
      .version = LUPE_WIRE_VERSION,
      .pid = lupe__control.pid,
      .ppid = getppid(),
      .heap_state = lupe__control.heap.state,
      .start_ticks = lupe__control_leader().start_ticks,
      .sample_period_bytes = lupe__control.heap.sample_period_bytes,
      .forked = lupe__control.forked,
  };
  memcpy(hello.allocator, lupe__control.heap.allocator, sizeof hello.allocator);
  memcpy(hello.memory_functions, lupe__control.memory_functions, sizeof hello.memory_functions);
  /* Not /proc/self/exe: that is the interpreter of a script, and behind a link the other name. */
  const char *executed = (const char *)getauxval(AT_EXECFN);
  const char *base = executed ? strrchr(executed, '/') : NULL;
  snprintf(hello.name, sizeof hello.name, "%s", base ? base + 1 : executed ? executed : "");
  return hello;
}

/* Becomes readable when LUPE__WAKE_SIGNAL waits for this thread. Nobody reads it: that could take a signal
 * which waits for the whole process, and is the program's. -1: not to be had. */
static int open_wake(void) {
  sigset_t wake;
  sigemptyset(&wake);
  sigaddset(&wake, LUPE__WAKE_SIGNAL);
  return signalfd(-1, &wake, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Waits for a message, a wish that the thread leave, or `timeout_ms`. Returns whether there is a message. */
static bool listen_for(const lupe_session *se, int *wake, int64_t timeout_ms) {
  if (*wake < 0 && timeout_ms > HURRIED_MS) timeout_ms = HURRIED_MS;
  /* Whoever wished that may not have known us yet, and sent no signal. */
  if (atomic_load(&lupe__control.leave) != STAY) timeout_ms = 0;
  struct pollfd sources[2] = {{.fd = se->socket, .events = POLLIN}, {.fd = *wake, .events = POLLIN}};
  int ready = poll(sources, 2, (int)timeout_ms);
  if (ready <= 0) return false;
  if (sources[1].revents && atomic_load(&lupe__control.leave) == STAY) { /* the program's own signal */
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
  syscall(SYS_futex, &lupe__control.leave, FUTEX_WAIT_PRIVATE, STAY, &timeout, NULL, 0);
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
    uint32_t leave = atomic_load(&lupe__control.leave);
    if (leave == LEAVE_POLITELY) {
      /* The runtime's first word may say what is wanted at the end. */
      if (message) status = lupe_session_answer(se);
      if (status == LUPE_OK) lupe_session_farewell(se, atomic_load(&lupe__control.exiting));
    }
    if (leave != STAY) return status;
    if (se->busy) status = lupe_session_go_on(se);
    if (message) status = lupe_session_answer(se);
    if (se->comes_back) atomic_store(&lupe__control.comes_back, true);
    if (status != LUPE_OK) return status;
    if (se->welcomed && atomic_load(&lupe__control.current) == PHASE_ONLINE)
      lupe__control_enter(PHASE_WELCOMED);
    int64_t now = lupe_session_now_ms();
    if (now >= look_due_ms) {
      lupe__leader l = lupe__control_leader(); /* a zombie after pthread_exit */
      if (is_deserted(&l)) {
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
  lupe_status status = lupe_session_connect(se, lupe__control.path);
  if (status != LUPE_OK) return status;
  if (atomic_load(&lupe__control.away)) {
    lupe_heap_prepare(lupe__control.leave_allocator, &lupe__control.heap);
    atomic_store(&lupe__control.away, false);
  }
  *wake = open_wake();
  lupe_sampler_open(&se->sampler);
  lupe__control_enter(PHASE_CONNECTED);
  if (lupe__control.forked) {
    int64_t quiet_until = lupe_session_now_ms() + FORK_QUIET_MS, now;
    while ((now = lupe_session_now_ms()) < quiet_until && atomic_load(&lupe__control.leave) == STAY) {
      if (listen_for(se, wake, quiet_until - now)) return LUPE_ENOENT; /* nobody speaks before us */
    }
    if (atomic_load(&lupe__control.leave) != STAY) return LUPE_OK;
    lupe__control_unmap(&lupe__control.parents_segment);
  }
  lupe_hello hello = introduce();
  status = lupe_session_open(se, &hello);
  lupe__control.segment = se->segment;
  if (status != LUPE_OK) return status;
  lupe__control_enter(PHASE_ONLINE);
  return serve(se, wake);
}

/* How far a session came. */
typedef struct course {
  bool connected, welcomed;
} course;

static lupe_status one_session(const void *first_frame, course *out) {
  lupe_session se = {
      .socket = -1,
      .has_profiles = lupe__control.heap.sample_period_bytes != 0,
      .sample_period_bytes = lupe__control.heap.sample_period_bytes,
      .proof = LUPE_PROOF_INIT,
      .first_frame = first_frame,
      .proves_until = &lupe__control.proves_until,
      .enabled = true,
      .figures_interval_ms = LOOK_AROUND_MS,
  };
  int wake = -1;
  lupe_status status = converse(&se, &wake);
  *out = (course){.connected = se.socket >= 0, .welcomed = se.welcomed};
  lupe_session_close(&se);
  if (wake >= 0) close(wake);
  return status;
}

/* False: the thread is to leave, or it is the only one that the program has left. */
static bool stay_away(int64_t pause_ms) {
  int64_t until_ms = lupe_session_now_ms() + pause_ms, left_ms;
  while ((left_ms = until_ms - lupe_session_now_ms()) > 0) {
    lupe__leader l = lupe__control_leader();
    if (is_deserted(&l)) return false;
    int64_t look_ms = l.state == 'Z' ? HURRIED_MS : LOOK_AROUND_MS;
    if (left_ms > look_ms) left_ms = look_ms;
    struct timespec timeout = {left_ms / 1000, left_ms % 1000 * 1000000};
    syscall(SYS_futex, &lupe__control.leave, FUTEX_WAIT_PRIVATE, STAY, &timeout, NULL, 0);
    if (atomic_load(&lupe__control.leave) != STAY) return false;
  }
  return true;
}

/* Where an embedded runtime has failed, its other threads wait for lupe_stop: somebody has to look whether
 * the program ends. */
static void watch(void) {
  if (count_others() == 0 || atomic_load(&lupe__control.deserted)) return;
  atomic_store(&lupe__control.given_up, true);
  lupe__control_enter(PHASE_STARTING);
  while (stay_away(AWAY_MAX_MS)) continue;
}

/* A session, and where a daemon went away the next one. It may have gone before a forked child connected; but
 * a child that it does not take in has nothing to look for. */
static lupe_status live(const void *first_frame) {
  bool known = false;
  int64_t pause_ms = AWAY_FIRST_MS;
  lupe_status status = lupe_session_own_descriptors();
  while (status == LUPE_OK) {
    course last;
    status = one_session(first_frame, &last);
    if (last.welcomed) pause_ms = AWAY_FIRST_MS;
    known = known || last.welcomed;
    if (atomic_load(&lupe__control.leave) != STAY) return status;
    if (!atomic_load(&lupe__control.comes_back) || (last.connected && !known)) {
      if (last.welcomed) watch();
      return status;
    }
    atomic_store(&lupe__control.away, true);
    lupe__control_enter(PHASE_STARTING);
    do {
      if (!stay_away(pause_ms)) return status;
      pause_ms = pause_ms < AWAY_MAX_MS / 2 ? pause_ms * 2 : AWAY_MAX_MS;
      /* whoever writes to them has all the time */
    } while (!lupe__control_unmap(&lupe__control.segment) ||
             !lupe__control_unmap(&lupe__control.parents_segment));
    status = LUPE_OK;
  }
  return status;
}

void *lupe__control_thread(void *unused) {
  struct sched_param normal = {0};
  lupe_own_threads_set(LUPE_OWN_AGENT, gettid());
  sched_setscheduler(0, SCHED_OTHER, &normal); /* a real-time program's thread started us */
  pthread_setname_np(pthread_self(), "lupe-agent");
  lupe_own_memory_enter();
  atomic_store(&lupe__control.outcome, live(__builtin_frame_address(0)));
  lupe_own_memory_purge();
  lupe__control_enter(PHASE_FINISHED);
  return unused;
}

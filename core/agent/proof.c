#include "core/agent/proof.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/agent/proof_child.h"
#include "core/agent/proof_facts.h"
#include "core/agent/proof_room.h"
#include "core/agent/proof_scan.h"
#include "core/agent/quiet_fork.h"
#include "core/agent/session.h"
#include "core/clock.h"

enum {
  LOOK_MS = 10,   /* between two looks whether the child has ended */
  ROOM_MS = 1000, /* and at what memory is left */
};

static void end(lupe_proof *p, lupe_proof_outcome outcome, int error) {
  p->phase = LUPE_PROOF_ENDED;
  p->reply.outcome = outcome;
  p->reply.error = error;
  p->reply.elapsed_ns = (uint64_t)(lupe_clock_ns(CLOCK_MONOTONIC) - p->start_ns);
  p->reply.time_ms = lupe_clock_ns(CLOCK_REALTIME) / 1000000;
}

/* ---- may it? ---- */

static lupe_proof_outcome check(lupe_proof *p) {
  const lupe_proof_limits *limits = &p->asked.limits;
  if (p->asked.sample_period_bytes == 0) return LUPE_PROOF_NO_PROFILING;
  lupe_status quiet = lupe_quiet_fork_check();
  if (quiet != LUPE_OK) return quiet == LUPE_EINUSE ? LUPE_PROOF_SIGSYS_TAKEN : LUPE_PROOF_UNSUPPORTED;
  uint64_t anonymous = p->reply.anonymous_bytes = lupe_proof_anonymous_bytes();
  if (anonymous == 0) return LUPE_PROOF_NO_PROC;
  if (anonymous > limits->max_heap_bytes) return LUPE_PROOF_HEAP_TOO_LARGE;
  double wanted = (double)limits->min_free_bytes + limits->min_free_share * (double)anonymous;
  return (double)lupe_proof_room_bytes() < wanted ? LUPE_PROOF_NO_MEMORY : LUPE_PROOF_COMPLETE;
}

/* ---- scans ---- */

typedef struct scan_of {
  lupe_proof_job job;
  lupe_proof_facts facts;
} scan_of;

static void run_child(void *arg) {
  const scan_of *s = arg;
  lupe_proof_child_run(&s->job, &s->facts);
}

static void scan(lupe_proof *p, bool second) {
  const lupe_proof_progress none = {0};
  lupe_proof_outcome refused = check(p);
  if (refused != LUPE_PROOF_COMPLETE) {
    end(p, refused, 0);
    return;
  }
  if (pwrite(p->progress_fd, &none, sizeof none, 0) != (ssize_t)sizeof none) {
    end(p, LUPE_PROOF_FORK_FAILED, errno);
    return;
  }
  scan_of s;
  lupe_status status =
      lupe_proof_facts_gather(&s.facts, p->asked.own, p->asked.own_count, p->asked.first_frame);
  if (status != LUPE_OK) {
    end(p, status == LUPE_ENOENT ? LUPE_PROOF_NO_PROC : LUPE_PROOF_FORK_FAILED,
        status == LUPE_ENOENT ? 0 : ENOMEM);
    return;
  }
  if (s.facts.vfork || s.facts.sigsys_blocked) {
    lupe_proof_facts_release(&s.facts);
    end(p, s.facts.vfork ? LUPE_PROOF_VFORK : LUPE_PROOF_SIGSYS_TAKEN, 0);
    return;
  }
  s.job = (lupe_proof_job){
      .limits = p->asked.limits,
      .sample_period_bytes = p->asked.sample_period_bytes,
      .parent = getpid(),
      .parents_tid = gettid(),
      .second = second,
      .progress_fd = p->progress_fd,
      .seen_fd = p->seen_fd,
      .block_fd = p->block_fd,
  };
  int64_t start_ns = lupe_clock_ns(CLOCK_MONOTONIC);
  pid_t child = lupe_quiet_fork(run_child, &s);
  int failed = errno;
  uint64_t pause_ns = (uint64_t)(lupe_clock_ns(CLOCK_MONOTONIC) - start_ns);
  lupe_proof_facts_release(&s.facts);
  if (child < 0) {
    end(p, LUPE_PROOF_FORK_FAILED, failed);
    return;
  }
  if (pause_ns > p->reply.pause_ns) p->reply.pause_ns = pause_ns;
  int64_t now_ms = lupe_session_now_ms();
  p->child = child;
  p->phase = second ? LUPE_PROOF_SECOND : LUPE_PROOF_FIRST;
  p->due_ms = now_ms + LOOK_MS;
  p->stopped_for = LUPE_PROOF_COMPLETE;
  p->room_ms = now_ms + ROOM_MS;
  p->kill_ms = now_ms + p->asked.limits.max_ms + LUPE_PROOF_GRACE_MS;
}

static int new_file(const char *name) {
  return memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

void lupe_proof_begin(lupe_proof *p, const lupe_proof_asked *asked) {
  *p = LUPE_PROOF_INIT;
  p->asked = *asked;
  p->reply.serial = asked->serial;
  p->start_ns = lupe_clock_ns(CLOCK_MONOTONIC);
  p->progress_fd = new_file("lupe-proof-progress");
  p->seen_fd = new_file("lupe-proof-seen");
  p->block_fd = new_file("lupe-proof");
  if (p->progress_fd < 0 || p->seen_fd < 0 || p->block_fd < 0)
    end(p, LUPE_PROOF_FORK_FAILED, errno);
  else
    scan(p, false);
}

int64_t lupe_proof_due_ms(const lupe_proof *p) {
  return p->phase == LUPE_PROOF_IDLE ? INT64_MAX : p->due_ms;
}

/* The child has ended, with `status` as waitpid gives it. */
static void after_scan(lupe_proof *p, int status) {
  lupe_proof_progress told = {0};
  bool read = pread(p->progress_fd, &told, sizeof told, 0) == (ssize_t)sizeof told;
  p->child = 0;
  p->reply.read_bytes = told.read_bytes;
  if (p->stopped_for != LUPE_PROOF_COMPLETE && !told.ended) {
    end(p, p->stopped_for, 0);
  } else if (!read || !told.ended) {
    end(p, LUPE_PROOF_KILLED, WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status));
  } else if (told.outcome != LUPE_PROOF_COMPLETE) {
    end(p, told.outcome, told.error);
  } else if (p->phase == LUPE_PROOF_FIRST) {
    p->phase = LUPE_PROOF_PAUSED;
    p->due_ms = lupe_session_now_ms() + p->asked.limits.interval_ms;
  } else if (lupe_session_seal(p->block_fd) != LUPE_OK) {
    end(p, LUPE_PROOF_FORK_FAILED, errno);
  } else {
    end(p, LUPE_PROOF_COMPLETE, 0);
  }
}

static uint64_t ns(struct timeval t) {
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_usec * 1000;
}

/* As waitpid: 0 while it runs. */
static pid_t reap(lupe_proof *p, int *status, int flags) {
  struct rusage used = {0};
  pid_t ended = wait4(p->child, status, __WCLONE | flags, &used);
  if (ended > 0) p->child_cpu_ns += ns(used.ru_utime) + ns(used.ru_stime);
  return ended;
}

/* Its end is seen the next time. */
static void stop_child(lupe_proof *p, lupe_proof_outcome outcome, int64_t now_ms) {
  kill(p->child, SIGKILL);
  if (p->stopped_for == LUPE_PROOF_COMPLETE) p->stopped_for = outcome;
  p->due_ms = now_ms + 1;
}

/* It looks at clock and memory itself, where it gets a core; the copies that the program's writes make grow
 * without it too. */
static void look_at_child(lupe_proof *p, int64_t now_ms) {
  int status = 0;
  pid_t ended = reap(p, &status, WNOHANG);
  if (ended == p->child) {
    after_scan(p, status);
  } else if (ended < 0 && errno != EINTR) { /* somebody waited with __WALL */
    after_scan(p, 0);
  } else if (now_ms >= p->kill_ms) {
    stop_child(p, LUPE_PROOF_TIME, now_ms);
  } else if (now_ms >= p->room_ms && lupe_proof_room_bytes() < p->asked.limits.min_free_bytes) {
    stop_child(p, LUPE_PROOF_SHORT, now_ms);
  } else {
    if (now_ms >= p->room_ms) p->room_ms = now_ms + ROOM_MS;
    p->due_ms = now_ms + LOOK_MS;
  }
}

void lupe_proof_step(lupe_proof *p, int64_t now_ms) {
  if (now_ms < p->due_ms) return;
  if (p->phase == LUPE_PROOF_FIRST || p->phase == LUPE_PROOF_SECOND)
    look_at_child(p, now_ms);
  else if (p->phase == LUPE_PROOF_PAUSED)
    scan(p, true);
}

void lupe_proof_abandon(lupe_proof *p) {
  if (p->phase == LUPE_PROOF_IDLE || p->phase == LUPE_PROOF_ENDED) return;
  if (p->child > 0) {
    /* Where somebody has waited for it, with __WALL, its number may be another's by now. */
    if (reap(p, NULL, WNOHANG) == 0) {
      kill(p->child, SIGKILL);
      while (reap(p, NULL, 0) < 0 && errno == EINTR) continue;
    }
    p->child = 0;
  }
  end(p, LUPE_PROOF_LEAVING, 0);
}

static void close_file(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

void lupe_proof_clear(lupe_proof *p) {
  close_file(&p->progress_fd);
  close_file(&p->seen_fd);
  close_file(&p->block_fd);
  p->phase = LUPE_PROOF_IDLE;
}

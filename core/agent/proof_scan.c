#include "core/agent/proof_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/agent/proof_room.h"
#include "core/clock.h"

enum {
  NICE = 10,
  TURN_NS = 100000,
  LOOK_BYTES = 64 << 20,
  BYTES_PER_PAGE_PASSED = 64 /* that are read in the time it takes to pass one */
};

sigjmp_buf lupe_proof_fault;
volatile sig_atomic_t lupe_proof_trying;
static lupe_proof_scan *current;

static void on_fault(int signal) {
  if (lupe_proof_trying) siglongjmp(lupe_proof_fault, 1);
  lupe_proof_give_up(current, LUPE_PROOF_KILLED, signal);
}

static void write_file(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (write(fd, text, strlen(text)) < 0) errno = 0; /* as good as it gets */
  close(fd);
}

/* Others come first, and whoever wakes up gets the core at once: so the turns are short, where the kernel
 * knows that (Linux 6.12). But not the idle policy: on a busy machine a scan would never end, and what the
 * program writes meanwhile is copied. */
static void be_modest(void) {
  struct attributes { /* sched_attr, which the C library has no name for */
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
  } wanted = {.size = sizeof wanted, .policy = SCHED_OTHER, .nice = NICE, .runtime_ns = TURN_NS};
  if (syscall(SYS_sched_setattr, 0, &wanted, 0) != 0) setpriority(PRIO_PROCESS, 0, NICE);
}

void lupe_proof_scan_begin(lupe_proof_scan *s, pid_t parent) {
  struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
  sigset_t faults;
  current = s;
  sigemptyset(&faults);
  sigaddset(&faults, SIGSEGV);
  sigaddset(&faults, SIGBUS);
  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGBUS, &action, NULL);
  sigprocmask(SIG_UNBLOCK, &faults, NULL);
  /* Raw: the agent has a prctl of its own for the program's calls. */
  syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  syscall(SYS_prctl, PR_SET_NAME, "lupe-proof", 0, 0, 0);
  be_modest();
  write_file("/proc/self/oom_score_adj", "1000"); /* if anything has to go, it is this */
  s->deadline_ns = lupe_clock_ns(CLOCK_MONOTONIC) + s->limits.max_ms * INT64_C(1000000);
  if (getppid() != parent) lupe_proof_give_up(s, LUPE_PROOF_LEAVING, 0);
}

static _Noreturn void tell(lupe_proof_scan *s, lupe_proof_outcome outcome, int error) {
  lupe_proof_progress p = {.read_bytes = s->read_bytes, .ended = 1, .outcome = outcome, .error = error};
  ssize_t written = pwrite(s->progress_fd, &p, sizeof p, 0);
  _exit(written == (ssize_t)sizeof p ? 0 : 1);
}

void lupe_proof_give_up(lupe_proof_scan *s, lupe_proof_outcome outcome, int error) {
  tell(s, outcome, error);
}

void lupe_proof_finish(lupe_proof_scan *s) {
  tell(s, LUPE_PROOF_COMPLETE, 0);
}

void lupe_proof_charge(lupe_proof_scan *s, size_t bytes) {
  s->table_bytes += bytes;
  if (s->table_bytes > s->limits.max_table_bytes) lupe_proof_give_up(s, LUPE_PROOF_TABLES, 0);
}

void *lupe_proof_table(lupe_proof_scan *s, size_t bytes, size_t expected_bytes) {
  lupe_proof_charge(s, expected_bytes);
  void *table = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (table == MAP_FAILED) lupe_proof_give_up(s, LUPE_PROOF_TABLES, errno);
  return table;
}

void lupe_proof_read(lupe_proof_scan *s, size_t bytes) {
  s->read_bytes += bytes;
  s->passed_bytes += bytes;
  if (s->passed_bytes < s->look_bytes) return;
  s->look_bytes = s->passed_bytes + LOOK_BYTES;
  if (lupe_clock_ns(CLOCK_MONOTONIC) > s->deadline_ns) lupe_proof_give_up(s, LUPE_PROOF_TIME, 0);
  if (s->read_bytes / LUPE_PROOF_READ_TIMES > s->limits.max_heap_bytes)
    lupe_proof_give_up(s, LUPE_PROOF_BYTES, 0);
  if (lupe_proof_room_bytes() < s->limits.min_free_bytes) lupe_proof_give_up(s, LUPE_PROOF_SHORT, 0);
  lupe_proof_progress p = {.read_bytes = s->read_bytes};
  if (pwrite(s->progress_fd, &p, sizeof p, 0) < 0) errno = 0; /* only for who asks how far it came */
}

void lupe_proof_pass(lupe_proof_scan *s, size_t pages) {
  s->passed_bytes += pages * BYTES_PER_PAGE_PASSED;
  lupe_proof_read(s, 0);
}

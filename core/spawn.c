/* Two functions run in other processes, in our memory: `keep` in the keeper, `become` in what becomes the
 * program. They use the kernel alone, and nothing of libc: its errno and its sanitized forms would be those
 * of the thread that has called us, which goes on. */
#include "core/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
  STACK_BYTES = 16384, /* of each of the two */
  GUARD_BYTES = 4096,
  ROOM_BYTES = 2 * (GUARD_BYTES + STACK_BYTES) + 4096,
  FIRST_FD = 3,
  KERNEL_SIGNALS = 64,
  LOOK_NS = 20000000, /* while it starts: whether the keeper was killed */
};

/* What the keeper has come to. The caller waits for the next after NEW and takes it to GO_ON. */
enum { NEW, FAILED, STARTED, GO_ON, ENDED };

struct lupe_spawned {
  /* Of the keeper until it has started or failed; then of the caller but for `state`, `status` and `usage`.
   */
  _Atomic uint32_t state;
  int error; /* of what could not be done */
  int32_t pid;
  int status;
  struct rusage usage;

  lupe_spawn_options options;
  int fds[LUPE_SPAWN_FDS_MAX];
  int32_t parent;
  char *become_stack;

  int32_t keeper;
  int keeper_fd, program_fd;
  bool reaped;
};

/* ---- In the other processes. ---- */

/* libc's own clone. By its usual name ThreadSanitizer would take its place, and once a child that shares our
 * memory had begun, it would take this thread for that child and look at it no more. */
int __clone(int (*body)(void *), void *stack, int flags, void *arg, ...);

#define BARE __attribute__((no_stack_protector, no_sanitize("address", "thread", "undefined"), noinline))
#define BARE_INLINE \
  static inline     \
      __attribute__((no_stack_protector, no_sanitize("address", "thread", "undefined"), always_inline))

/* A system call that touches no errno: negative is an error. */
BARE_INLINE long call(long number, long a, long b, long c, long d, long e) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                   : "rcx", "r11", "memory");
  return result;
}

BARE_INLINE void wake(_Atomic uint32_t *word) {
  call(SYS_futex, (long)word, FUTEX_WAKE_PRIVATE, 1, 0, 0);
}

/* As the kernel has it. */
typedef struct kernel_action {
  void (*handler)(int);
  unsigned long flags;
  void (*restorer)(void);
  uint64_t mask;
} kernel_action;

BARE_INLINE void default_signals(void) {
  kernel_action action;
  action.handler = SIG_DFL;
  action.flags = 0;
  action.restorer = NULL;
  action.mask = 0;
  for (int i = 1; i <= KERNEL_SIGNALS; i++)
    call(SYS_rt_sigaction, i, (long)&action, 0, sizeof action.mask, 0); /* refused for two */
}

/* The standard streams and `fds` where they are to be, everything else closed. A negative errno, or 0. */
BARE_INLINE long arrange_fds(lupe_spawned *s) {
  long first_free = FIRST_FD + (long)s->options.fd_count, fd = 0;
  for (size_t i = 0; i < s->options.fd_count; i++) { /* out of each other's way */
    fd = call(SYS_fcntl, s->fds[i], F_DUPFD_CLOEXEC, first_free, 0, 0);
    if (fd < 0) return fd;
    s->fds[i] = (int)fd;
  }
  for (size_t i = 0; i < s->options.fd_count; i++) {
    fd = call(SYS_dup3, s->fds[i], FIRST_FD + (long)i, 0, 0, 0);
    if (fd < 0) return fd;
  }
  static const char nothing[] = "/dev/null";
  call(SYS_close, STDIN_FILENO, 0, 0, 0, 0);
  call(SYS_close, STDOUT_FILENO, 0, 0, 0, 0);
  for (int i = STDIN_FILENO; i <= STDOUT_FILENO; i++) {
    fd = call(SYS_openat, AT_FDCWD, (long)nothing, O_RDWR, 0, 0);
    if (fd < 0) return fd;
  }
  return call(SYS_close_range, first_free, ~0U, 0, 0, 0);
}

BARE static int become(void *arg) {
  lupe_spawned *s = arg;
  const uint64_t none = 0;
  long error = call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (error == 0) error = arrange_fds(s);
  if (error == 0) {
    default_signals();
    call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&none, 0, sizeof none, 0);
    error =
        call(SYS_execve, (long)s->options.file, (long)s->options.argv, (long)s->options.environment, 0, 0);
  }
  s->error = (int)-error; /* it is our memory: the keeper and the caller wait */
  return (int)call(SYS_exit_group, 127, 0, 0, 0, 0);
}

BARE_INLINE void tell(lupe_spawned *s, uint32_t state) {
  atomic_store_explicit(&s->state, state, memory_order_release);
  wake(&s->state);
}

/* The parent or the program has ended: waits for either. */
BARE_INLINE void wait_for_an_end(long parent, long program) {
  struct pollfd ends[2];
  ends[0].fd = (int)parent;
  ends[1].fd = (int)program;
  ends[0].events = ends[1].events = POLLIN;
  ends[0].revents = ends[1].revents = 0;
  while (ends[0].revents == 0 && ends[1].revents == 0) {
    call(SYS_ppoll, (long)ends, 2, 0, 0, 0); /* all signals are blocked */
  }
}

/* Where the program has ended, or is to be killed, that takes no time. */
BARE_INLINE void wait_a_grace(long program, unsigned grace_ms) {
  struct timespec left;
  struct pollfd end;
  left.tv_sec = grace_ms / 1000;
  left.tv_nsec = (long)(grace_ms % 1000) * 1000000;
  end.fd = (int)program;
  end.events = POLLIN;
  end.revents = 0;
  call(SYS_ppoll, (long)&end, 1, (long)&left, 0, 0);
}

BARE static int keep(void *arg) {
  lupe_spawned *s = arg;
  static const char name[] = "lupe-keeper";
  long parent = -1, program = -1, pid = 0, error;
  default_signals(); /* ours: SIGCHLD may have been ignored, and the program would be reaped by nobody */
  call(SYS_prctl, PR_SET_NAME, (long)name, 0, 0, 0);
  error = s->options.dies_with_thread ? call(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) : 0;
  if (error == 0) error = parent = call(SYS_pidfd_open, s->parent, 0, 0, 0, 0);
  if (error >= 0) {
    /* libc's clone touches errno where it fails; the thread whose errno that is waits for us. */
    pid = __clone(become, s->become_stack, CLONE_VM | CLONE_VFORK | SIGCHLD, s);
    error = pid < 0 ? -EAGAIN : -s->error;
  }
  if (error == 0) error = program = call(SYS_pidfd_open, pid, 0, 0, 0, 0);
  if (error < 0) {
    if (pid > 0) call(SYS_kill, pid, SIGKILL, 0, 0, 0);
    if (pid > 0) call(SYS_wait4, pid, 0, __WALL, 0, 0);
    s->error = (int)-error;
    tell(s, FAILED);
    return (int)call(SYS_exit_group, 1, 0, 0, 0, 0);
  }
  /* No descriptor of ours is held open by the keeper. */
  long low = parent < program ? parent : program, high = parent < program ? program : parent;
  if (low > 0) call(SYS_close_range, 0, low - 1, 0, 0, 0);
  if (high > low + 1) call(SYS_close_range, low + 1, high - 1, 0, 0, 0);
  call(SYS_close_range, high + 1, ~0U, 0, 0, 0);
  s->pid = (int32_t)pid;
  tell(s, STARTED);
  /* Until then its number is not to become another's: the caller opens it. */
  while (atomic_load_explicit(&s->state, memory_order_acquire) == STARTED) {
    struct timespec look = {0, LOOK_NS};
    struct pollfd end = {(int)parent, POLLIN, 0};
    call(SYS_futex, (long)&s->state, FUTEX_WAIT_PRIVATE, STARTED, (long)&look, 0);
    look.tv_nsec = 0;
    if (call(SYS_ppoll, (long)&end, 1, (long)&look, 0, 0) > 0) break;
  }
  wait_for_an_end(parent, program);
  wait_a_grace(program, s->options.grace_ms);
  int status;
  struct rusage usage;
  if (call(SYS_wait4, pid, (long)&status, __WALL | WNOHANG, (long)&usage, 0) == pid) {
    s->status = status;
    s->usage.ru_utime.tv_sec = usage.ru_utime.tv_sec;
    s->usage.ru_utime.tv_usec = usage.ru_utime.tv_usec;
    s->usage.ru_stime.tv_sec = usage.ru_stime.tv_sec;
    s->usage.ru_stime.tv_usec = usage.ru_stime.tv_usec;
    atomic_store_explicit(&s->state, ENDED, memory_order_release);
  }
  return (int)call(SYS_exit_group, 0, 0, 0, 0, 0);
}

/* ---- In ours. ---- */

static bool has_ended(const lupe_spawned *s, int timeout_ms) {
  struct pollfd end = {.fd = s->keeper_fd, .events = POLLIN};
  int n;
  do n = poll(&end, 1, timeout_ms);
  while (n < 0 && errno == EINTR);
  return n > 0;
}

/* The keeper has ended. */
static void reap(lupe_spawned *s) {
  if (s->reaped) return;
  pid_t pid;
  do pid = waitpid(s->keeper, NULL, __WALL);
  while (pid < 0 && errno == EINTR);
  s->reaped = true;
}

static void let_go(lupe_spawned *s) {
  if (s->keeper_fd >= 0) close(s->keeper_fd);
  if (s->program_fd >= 0) close(s->program_fd);
  munmap((char *)s - (ROOM_BYTES - 4096), ROOM_BYTES);
}

/* The struct, behind two stacks with a guard below each. */
static lupe_spawned *make_room(void) {
  _Static_assert(sizeof(lupe_spawned) <= 4096, "the room's last page");
  char *room = mmap(NULL, ROOM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (room == MAP_FAILED) return NULL;
  madvise(room, ROOM_BYTES, MADV_DONTFORK);
  mprotect(room, GUARD_BYTES, PROT_NONE);
  mprotect(room + GUARD_BYTES + STACK_BYTES, GUARD_BYTES, PROT_NONE);
  lupe_spawned *s = (lupe_spawned *)(room + ROOM_BYTES - 4096);
  s->become_stack = room + GUARD_BYTES + STACK_BYTES;
  s->keeper_fd = s->program_fd = -1;
  return s;
}

/* Until the keeper has started the program, or failed, or was killed. */
static uint32_t await_start(lupe_spawned *s) {
  uint32_t state;
  while ((state = atomic_load_explicit(&s->state, memory_order_acquire)) == NEW) {
    const struct timespec look = {0, LOOK_NS};
    call(SYS_futex, (long)&s->state, FUTEX_WAIT_PRIVATE, NEW, (long)&look, 0);
    if (!has_ended(s, 0)) continue;
    state = atomic_load_explicit(&s->state, memory_order_acquire);
    return state == NEW ? ENDED : state;
  }
  return state;
}

static lupe_status status_of(int error) {
  return error == ENOSYS ? LUPE_EUNSUPPORTED : LUPE_EIO;
}

lupe_status lupe_spawn(lupe_spawned **out, const lupe_spawn_options *o, int *out_error) {
  if (!o->file || !o->argv || !o->argv[0] || !o->environment || o->fd_count > LUPE_SPAWN_FDS_MAX)
    return LUPE_EINVAL;
  lupe_spawned *s = make_room();
  if (!s) return LUPE_ENOMEM;
  s->options = *o;
  if (o->fd_count > 0) memcpy(s->fds, o->fds, o->fd_count * sizeof *o->fds);
  s->parent = getpid();

  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* the keeper's, too: no handler of ours may run in it */
  s->keeper = __clone(keep, s, CLONE_VM | CLONE_PIDFD, s, &s->keeper_fd);
  int error = errno;
  uint32_t state = FAILED;
  if (s->keeper > 0) {
    /* Kernels before 5.2 know of no such descriptor, and then the keeper cannot be waited for. */
    state = s->keeper_fd >= 0 ? await_start(s) : FAILED;
    error = s->keeper_fd >= 0 ? s->error : ENOSYS;
    if (s->keeper_fd < 0) kill(s->keeper, SIGKILL);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (state == STARTED) {
    s->program_fd = (int)syscall(SYS_pidfd_open, s->pid, 0);
    error = errno;
    atomic_store_explicit(&s->state, GO_ON, memory_order_release);
    wake(&s->state);
    if (s->program_fd >= 0) {
      *out = s;
      return LUPE_OK;
    }
    kill(s->keeper, SIGKILL); /* and the program with it */
  } else if (state == ENDED) {
    error = ECANCELED; /* killed by somebody */
  }
  if (s->keeper > 0) reap(s);
  let_go(s);
  *out_error = error;
  return status_of(error);
}

pid_t lupe_spawn_pid(const lupe_spawned *s) {
  return s->pid;
}

int lupe_spawn_fd(const lupe_spawned *s) {
  return s->keeper_fd;
}

void lupe_spawn_kill(const lupe_spawned *s) {
  syscall(SYS_pidfd_send_signal, s->program_fd, SIGKILL, NULL, 0);
}

static uint64_t of_usage(const struct timeval *t) {
  return (uint64_t)t->tv_sec * 1000000000 + (uint64_t)t->tv_usec * 1000;
}

uint64_t lupe_spawn_cpu_ns(const lupe_spawned *s) {
  if (atomic_load_explicit(&s->state, memory_order_acquire) == ENDED)
    return of_usage(&s->usage.ru_utime) + of_usage(&s->usage.ru_stime);
  clockid_t clock;
  struct timespec used;
  if (clock_getcpuclockid(s->pid, &clock) != 0 || clock_gettime(clock, &used) != 0) return 0;
  return (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
}

bool lupe_spawn_wait(lupe_spawned *s, int timeout_ms, lupe_spawn_end *out) {
  if (!s->reaped && !has_ended(s, timeout_ms)) return false;
  reap(s);
  out->known = atomic_load_explicit(&s->state, memory_order_acquire) == ENDED;
  out->status = out->known ? s->status : SIGKILL;
  return true;
}

void lupe_spawn_free(lupe_spawned *s) {
  if (!s) return;
  lupe_spawn_end end;
  if (!s->reaped) {
    lupe_spawn_kill(s);
    lupe_spawn_wait(s, -1, &end);
  }
  let_go(s);
}

#include "core/script/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const char *const unable =
    "this build has sanitizers, which read files and start threads when they report";
#elif !defined(__x86_64__)
static const char *const unable = "the list of system calls is for x86-64";
#else
static const char *const unable = NULL;
#endif

/* What a Lua state with a compiler, its socket, a snapshot and an abort() need. */
static const uint32_t allowed[] = {
    /* what is open */
    SYS_read, SYS_write, SYS_recvmsg, SYS_sendmsg, SYS_close, SYS_lseek, SYS_fstat,
    /* memory; LuaJIT writes machine code and then makes it executable */
    SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_brk,
    /* time, and waiting for itself */
    SYS_clock_gettime, SYS_gettimeofday, SYS_futex, SYS_sched_yield, SYS_restart_syscall, SYS_getrandom,
    /* signals to itself (see tgkill), and the end */
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack, SYS_getpid, SYS_gettid, SYS_exit,
    SYS_exit_group};

enum { COUNT = sizeof allowed / sizeof allowed[0], MOST_STEPS = 2 * COUNT + 24 };

#define FIELD(name) ((uint32_t)offsetof(struct seccomp_data, name))
#define LOW_HALF(i) ((uint32_t)(offsetof(struct seccomp_data, args) + (i) * sizeof(uint64_t)))
#define LOAD(offset) ((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (offset)))
#define RETURN(action) ((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, (action)))
#define UNLESS(value, skip) ((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skip)))

static const uint32_t refused = SECCOMP_RET_ERRNO | EPERM;

/* `call` is allowed where the low half of argument `i` is `value`; the number of the call is loaded. */
static size_t allow_where(struct sock_filter *at, uint32_t call, unsigned i, uint32_t value) {
  at[0] = UNLESS(call, 4);
  at[1] = LOAD(LOW_HALF(i));
  at[2] = UNLESS(value, 1);
  at[3] = RETURN(SECCOMP_RET_ALLOW);
  at[4] = RETURN(refused);
  return 5;
}

static size_t write_filter(struct sock_filter steps[MOST_STEPS]) {
  size_t n = 0;
  steps[n++] = LOAD(FIELD(arch));
  steps[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
  steps[n++] = RETURN(SECCOMP_RET_KILL_PROCESS); /* a call by another table: the numbers mean other things */
  steps[n++] = LOAD(FIELD(nr));
  for (size_t i = 0; i < COUNT; i++) {
    steps[n++] = UNLESS(allowed[i], 1);
    steps[n++] = RETURN(SECCOMP_RET_ALLOW);
  }
  n += allow_where(steps + n, SYS_tgkill, 0, (uint32_t)getpid()); /* abort() */
  n += allow_where(steps + n, SYS_fcntl, 1, F_DUPFD_CLOEXEC);     /* others ask for signals to anybody */
  /* fstat(). The path, which is empty then, is memory, and no filter sees that: so size and times of a file
   * can be asked by its path. */
  n += allow_where(steps + n, SYS_newfstatat, 3, AT_EMPTY_PATH);
  steps[n++] = RETURN(refused);
  return n;
}

const char *lupe_confine(void) {
  static char why[128];
  if (unable) return unable;
  struct sock_filter steps[MOST_STEPS];
  const struct sock_fprog program = {.len = (unsigned short)write_filter(steps), .filter = steps};
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    snprintf(why, sizeof why, "the kernel refuses a seccomp filter: %s", strerror(errno));
    return why;
  }
  return NULL;
}

#include "core/agent/quiet_fork.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "core/agent/unwind_x86_64.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
/* The C library's fork, by a name that nobody interposes. */
extern pid_t __fork(void);

enum { DISPATCH_OFF = 0, DISPATCH_ON = 1, LET_PASS = 0, TRAP = 1, BY_DISPATCH = 2 /* si_code */ };
#define EXIT_SIGNAL_MASK 0xffL

static _Thread_local volatile char selector; /* the kernel reads it at each system call of this thread */
static struct {
  void (*run)(void *arg);
  void *arg;
} in_child;
static atomic_bool taken; /* SIGSYS is ours */

/* The kernel's own form of an action: the C library's has no room for where the handler returns to. */
typedef struct kernel_action {
  void (*handler)(int, siginfo_t *, void *);
  unsigned long flags;
  void (*restorer)(void);
  uint64_t mask;
} kernel_action;
#define KERNEL_SA_RESTORER 0x04000000UL
static kernel_action before; /* what SIGSYS was, while it is taken */

/* Where the handler returns to: a system call too, which must pass while all others are trapped. */
void lupe_quiet_return(void);
extern const char lupe_quiet_return_end[];
__asm__(
    ".text\n"
    ".hidden lupe_quiet_return\n"
    ".hidden lupe_quiet_return_end\n"
    ".type lupe_quiet_return, @function\n"
    "lupe_quiet_return:\n"
    "  mov $15, %eax\n" /* SYS_rt_sigreturn */
    "  syscall\n"
    "  ud2\n"
    "lupe_quiet_return_end:\n"
    ".size lupe_quiet_return, . - lupe_quiet_return\n");

static long act(const kernel_action *new, kernel_action *old) {
  return lupe_system_call(SYS_rt_sigaction, SIGSYS, (long)new, (long)old, sizeof new->mask, 0, 0);
}

/* On the thread that forks, at a system call of the C library's. What the handler calls must not be trapped
 * again: hence raw, and with the selector off. */
static void on_trapped(int signal, siginfo_t *info, void *context) {
  if (info->si_code <= 0 && (uintptr_t)before.handler == (uintptr_t)SIG_IGN) return; /* sent by somebody */
  if (info->si_code != BY_DISPATCH) { /* the program's: a filter. It would have ended it */
    const kernel_action fatal = {0};
    act(&fatal, NULL);
    raise(signal);
    return;
  }
  selector = LET_PASS;
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  long number = info->si_syscall, first = registers[REG_RDI];
  if (number == SYS_clone) first &= ~EXIT_SIGNAL_MASK;
  registers[REG_RAX] = lupe_system_call(number, first, registers[REG_RSI], registers[REG_RDX],
                                        registers[REG_R10], registers[REG_R8], registers[REG_R9]);
  if (number != SYS_clone)
    selector = TRAP; /* what comes after the clone passes */
  else if (registers[REG_RAX] == 0)
    in_child.run(in_child.arg);
}

static long dispatch(long mode) {
  if (mode == DISPATCH_OFF)
    return lupe_system_call(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, mode, 0, 0, 0, 0);
  long passes = (long)lupe_quiet_return, bytes = (long)lupe_quiet_return_end - passes;
  return lupe_system_call(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, mode, passes, bytes, (long)&selector, 0);
}

lupe_status lupe_quiet_fork_check(void) {
  kernel_action now = {0};
  if (act(NULL, &now) != 0) return LUPE_EUNSUPPORTED;
  if ((uintptr_t)now.handler != (uintptr_t)SIG_DFL && (uintptr_t)now.handler != (uintptr_t)SIG_IGN)
    return LUPE_EINUSE;
  selector = LET_PASS;
  if (dispatch(DISPATCH_ON) != 0) return LUPE_EUNSUPPORTED;
  return dispatch(DISPATCH_OFF) == 0 ? LUPE_OK : LUPE_EUNSUPPORTED;
}

/* Unless the program has set a handler of its own meanwhile. */
static void give_back(void) {
  kernel_action now = {0};
  if (act(NULL, &now) == 0 && now.handler == on_trapped) act(&before, NULL);
}

void lupe_quiet_fork_after_fork_in_child(void) {
  if (atomic_exchange(&taken, false)) give_back();
}

pid_t lupe_quiet_fork(void (*run)(void *arg), void *arg) {
  const kernel_action ours = {.handler = on_trapped,
                              .flags = SA_SIGINFO | SA_NODEFER | KERNEL_SA_RESTORER,
                              .restorer = lupe_quiet_return};
  sigset_t sigsys, mask;
  if (lupe_quiet_fork_check() != LUPE_OK) {
    errno = ENOTSUP;
    return -1;
  }
  sigemptyset(&sigsys);
  sigaddset(&sigsys, SIGSYS);
  long refused = act(&ours, &before);
  if (refused != 0) {
    errno = (int)-refused;
    return -1;
  }
  pthread_sigmask(SIG_UNBLOCK, &sigsys, &mask);
  atomic_store(&taken, true);
  in_child.run = run;
  in_child.arg = arg;
  dispatch(DISPATCH_ON);
  selector = TRAP;
  pid_t pid = __fork();
  int failed = errno;
  selector = LET_PASS;
  dispatch(DISPATCH_OFF);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  give_back();
  atomic_store(&taken, false);
  errno = failed;
  return pid;
}

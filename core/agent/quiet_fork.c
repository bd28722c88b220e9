#include "core/agent/quiet_fork.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "core/agent/unwind_x86_64.h"

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
/* The C library's sigaction, by a name that nobody interposes. */
extern int __sigaction(int sig, const struct sigaction *act, struct sigaction *oact);

enum { DISPATCH_OFF = 0, DISPATCH_ON = 1, LET_PASS = 0, TRAP = 1, BY_DISPATCH = 2 /* si_code */ };
enum { RETURN_BYTES = 16 /* from the beginning of the code that ends a handler: nine, and what pads them */ };
#define EXIT_SIGNAL_MASK 0xffL

static _Thread_local volatile char selector; /* the kernel reads it at each system call of this thread */
static _Thread_local bool running;
static bool ignored; /* SIGSYS, by the program */

/* On the thread that forks, at a system call of the C library's. What the handler calls must not be trapped
 * again: hence raw, and with the selector off. */
static void on_trapped(int signal, siginfo_t *info, void *context) {
  if (info->si_code <= 0 && ignored) return; /* sent by somebody */
  if (info->si_code != BY_DISPATCH) {        /* the program's: a filter. It would have ended it */
    struct sigaction fatal = {.sa_handler = SIG_DFL};
    __sigaction(signal, &fatal, NULL);
    raise(signal);
    return;
  }
  selector = LET_PASS;
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  long number = info->si_syscall, first = registers[REG_RDI];
  if (number == SYS_clone) first &= ~EXIT_SIGNAL_MASK;
  registers[REG_RAX] = lupe_system_call(number, first, registers[REG_RSI], registers[REG_RDX],
                                        registers[REG_R10], registers[REG_R8], registers[REG_R9]);
  if (number != SYS_clone) selector = TRAP; /* what comes after the clone passes, in both processes */
}

/* `always`: code of RETURN_BYTES whose system calls pass whatever the selector says; 0: none. */
static long dispatch(long mode, long always) {
  long where = mode == DISPATCH_ON ? (long)&selector : 0;
  return lupe_system_call(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, mode, always, always ? RETURN_BYTES : 0,
                          where, 0);
}

/* Where the handler of SIGSYS returns to: the C library's call of rt_sigreturn, which nobody can make in its
 * stead. Only the kernel tells. 0: unknown. */
static long handlers_return(void) {
  struct {
    void *handler;
    unsigned long flags;
    void *restorer;
    uint64_t mask;
  } kernels = {0};
  long failed = lupe_system_call(SYS_rt_sigaction, SIGSYS, 0, (long)&kernels, sizeof kernels.mask, 0, 0);
  return failed ? 0 : (long)kernels.restorer;
}

lupe_status lupe_quiet_fork_check(void) {
  struct sigaction now;
  if (__sigaction(SIGSYS, NULL, &now) != 0) return LUPE_EUNSUPPORTED;
  if (now.sa_handler != SIG_DFL && now.sa_handler != SIG_IGN) return LUPE_EINUSE;
  selector = LET_PASS;
  if (dispatch(DISPATCH_ON, 0) != 0) return LUPE_EUNSUPPORTED;
  return dispatch(DISPATCH_OFF, 0) == 0 ? LUPE_OK : LUPE_EUNSUPPORTED;
}

bool lupe_quiet_fork_running(void) {
  return running;
}

pid_t lupe_quiet_fork(void) {
  struct sigaction ours = {.sa_sigaction = on_trapped, .sa_flags = SA_SIGINFO | SA_NODEFER}, before;
  sigset_t sigsys, mask;
  if (lupe_quiet_fork_check() != LUPE_OK) {
    errno = ENOTSUP;
    return -1;
  }
  sigemptyset(&sigsys);
  sigaddset(&sigsys, SIGSYS);
  if (__sigaction(SIGSYS, &ours, &before) != 0) return -1;
  ignored = before.sa_handler == SIG_IGN;
  long always = handlers_return();
  if (always == 0) {
    __sigaction(SIGSYS, &before, NULL);
    errno = ENOTSUP;
    return -1;
  }
  pthread_sigmask(SIG_UNBLOCK, &sigsys, &mask);
  running = true;
  dispatch(DISPATCH_ON, always);
  selector = TRAP;
  pid_t pid = fork();
  int failed = errno;
  selector = LET_PASS;
  running = false;
  if (pid == 0)
    return 0; /* dispatch does not pass to a child, and what the handlers are does not matter there */
  dispatch(DISPATCH_OFF, 0);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  struct sigaction now; /* the program's by now, where it has set one meanwhile */
  if (__sigaction(SIGSYS, NULL, &now) == 0 && now.sa_sigaction == on_trapped)
    __sigaction(SIGSYS, &before, NULL);
  errno = failed;
  return pid;
}

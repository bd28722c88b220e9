/* namespace.c -- unshare and setns, as the program calls them.
 * The kernel lets only a process with a single thread enter a user namespace, and only one that shares its
 * directories with nobody join a mount namespace. A program with one thread has two under the agent: so the
 * agent's leaves first. What is executed inside the namespace has an agent of its own again. */
#include <errno.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/agent/control.h"

enum { RETRIES = 100 }; /* 1 ms apart */
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

/* `retired`: the thread that just ended may still count, so EINVAL is not final at once. */
static int call(bool retired, long number, long first, long second) {
  const struct timespec pause = {0, 1000000};
  long result = syscall(number, first, second);
  for (int i = 0; retired && result < 0 && errno == EINVAL && i < RETRIES; i++) {
    nanosleep(&pause, NULL);
    result = syscall(number, first, second);
  }
  return (int)result;
}

__attribute__((visibility("default"))) int unshare(int flags) {
  bool single = (flags & (CLONE_NEWUSER | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM)) != 0;
  return call(single && lupe_control_retire(true), SYS_unshare, flags, 0);
}

__attribute__((visibility("default"))) int setns(int fd, int nstype) {
  bool single = nstype == 0 || (nstype & (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWTIME)) != 0;
  return call(single && lupe_control_retire(true), SYS_setns, fd, nstype);
}

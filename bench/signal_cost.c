// flags: -O2 -g
/* signal_cost.c -- what the kernel takes to deliver a signal to a handler that does nothing, and to return
 * from it: the part of a CPU sample that the handler itself cannot see. Prints one JSON object. */
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { TURNS = 200000 };

static void nothing(int number, siginfo_t *info, void *context) {
  (void)number, (void)info, (void)context;
}

static double cpu_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(void) {
  struct sigaction action = {.sa_sigaction = nothing, .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
  sigaction(SIGPROF, &action, NULL);
  pid_t pid = getpid();
  double before = cpu_ns();
  for (int i = 0; i < TURNS; i++) syscall(SYS_tgkill, pid, pid, SIGPROF);
  printf("{\"ns_per_signal\":%.1f}\n", (cpu_ns() - before) / TURNS);
  return 0;
}

// link: pthread
// flags: -O2
/* proof_parent.c -- a program that would notice a child that is none of its own.
 * usage: proof_parent HEAP_MIB
 *
 * It forks a child 20 times a second and waits for any child, with a handler for SIGCHLD; two threads
 * allocate and free; a third sleeps by an interval timer. It prints a numbered line ten times a second. A
 * line on standard input ends it: then it prints, as JSON, what it has forked, waited for, and been told of,
 * and what was not as it should be. */
#include "bench/load.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

enum { MIB = 1024 * 1024, BLOCK = 1024, EXIT_CODE = 7, SLOTS = 2048, FORK_EVERY_MS = 50 };

static atomic_bool stopping;
static _Atomic unsigned long children_signalled, timer_expirations, interrupted;
static char **held;
static size_t held_count;

static void on_child(int number) {
  (void)number;
  atomic_fetch_add(&children_signalled, 1);
}

static void hold(size_t bytes) {
  held_count = bytes / BLOCK;
  held = malloc(held_count * sizeof *held);
  if (held == NULL) load_fail("malloc");
  for (size_t i = 0; i < held_count; i++) {
    held[i] = malloc(BLOCK);
    if (held[i] == NULL) load_fail("malloc");
    memset(held[i], (int)i, BLOCK);
  }
}

static void *churn(void *argument) {
  char *slots[SLOTS] = {0};
  unsigned seed = (unsigned)(size_t)argument;
  struct timespec pause = {.tv_nsec = 1000000};
  while (!atomic_load(&stopping)) {
    for (int i = 0; i < 200; i++) {
      unsigned random = (unsigned)rand_r(&seed);
      char **slot = &slots[random % SLOTS];
      free(*slot);
      *slot = malloc(16 + random % 2000);
      if (*slot == NULL) load_fail("malloc");
      **slot = 1;
      held[random % held_count][random % BLOCK]++;
    }
    nanosleep(&pause, NULL);
  }
  for (int i = 0; i < SLOTS; i++) free(slots[i]);
  return NULL;
}

static void *tick(void *unused) {
  struct itimerspec every = {.it_interval.tv_nsec = 10000000, .it_value.tv_nsec = 10000000};
  int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  uint64_t count;
  if (fd < 0 || timerfd_settime(fd, 0, &every, NULL) != 0) load_fail("timerfd");
  while (!atomic_load(&stopping)) {
    if (read(fd, &count, sizeof count) == sizeof count) {
      atomic_fetch_add(&timer_expirations, count);
    } else {
      atomic_fetch_add(&interrupted, 1);
    }
  }
  close(fd);
  return unused;
}

static void only_here(int how) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  pthread_sigmask(how, &set, NULL);
}

int main(int argc, char **argv) {
  struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART};
  struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
  pthread_t threads[3];
  unsigned long forked = 0, waited = 0, strange = 0, lines = 0;
  if (argc != 2) {
    fputs("usage: proof_parent HEAP_MIB\n", stderr);
    return 2;
  }
  hold(strtoull(argv[1], NULL, 10) * MIB);
  sigaction(SIGCHLD, &action, NULL);
  only_here(SIG_BLOCK); /* for the threads; the main one takes it */
  for (size_t i = 0; i < 2; i++) pthread_create(&threads[i], NULL, churn, (void *)(i + 1));
  pthread_create(&threads[2], NULL, tick, NULL);
  only_here(SIG_UNBLOCK);
  setvbuf(stdout, NULL, _IOLBF, 0);
  uint64_t next_line_ns = load_now_ns();
  while (poll(&input, 1, FORK_EVERY_MS) <= 0) {
    int status;
    if (waitpid(-1, &status, WNOHANG) != -1 || errno != ECHILD) strange++;
    pid_t pid = fork();
    if (pid == 0) _exit(EXIT_CODE);
    if (pid < 0) load_fail("fork");
    forked++;
    if (waitpid(-1, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_CODE) {
      waited++;
    } else {
      strange++;
    }
    if (load_now_ns() < next_line_ns) continue;
    printf("line %lu\n", lines++);
    next_line_ns += 100000000;
  }
  atomic_store(&stopping, true);
  for (size_t i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  printf(
      "{\"forked\":%lu,\"waited\":%lu,\"signalled\":%lu,\"strange\":%lu,\"lines\":%lu,\"expirations\":%lu,"
      "\"interrupted\":%lu}\n",
      forked, waited, atomic_load(&children_signalled), strange, lines, atomic_load(&timer_expirations),
      atomic_load(&interrupted));
  return 0;
}

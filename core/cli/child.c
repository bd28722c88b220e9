#include "core/cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

struct lupe_child {
  pid_t pid;
  bool ended;
  int signal_fd;
  int open_handles;
  uv_poll_t signals;
  uv_signal_t ended_signal;
  lupe_child_exit_cb on_exit;
  void *arg;
};

enum { OPEN_FILES_MAX = 65536 /* enough for the agents of as many processes, and for HTTP */ };

static const int passed_on[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, SIGALRM};
/* A reader that left; a terminal that is somebody else's by now, when the report is written; a file that may
 * not grow any more: all of them are errors that a write returns, not reasons to die. */
static const int ignored[] = {SIGPIPE, SIGTTOU, SIGXFSZ};
enum { IGNORED = sizeof ignored / sizeof ignored[0] };

/* As lupe was started, and as the program is to be. */
static struct {
  sigset_t mask;
  struct sigaction actions[IGNORED];
  struct rlimit files;
} inherited;

static void fill_passed_on(sigset_t *set) {
  sigemptyset(set);
  for (size_t i = 0; i < sizeof passed_on / sizeof passed_on[0]; i++) sigaddset(set, passed_on[i]);
}

void lupe_child_prepare(void) {
  sigset_t set;
  fill_passed_on(&set);
  pthread_sigmask(SIG_BLOCK, &set, &inherited.mask);
  const struct sigaction ignore = {.sa_handler = SIG_IGN};
  for (size_t i = 0; i < IGNORED; i++) sigaction(ignored[i], &ignore, &inherited.actions[i]);
  getrlimit(RLIMIT_NOFILE, &inherited.files);
  struct rlimit files = inherited.files;
  if (files.rlim_cur >= OPEN_FILES_MAX) return;
  files.rlim_cur = files.rlim_max < OPEN_FILES_MAX ? files.rlim_max : OPEN_FILES_MAX;
  setrlimit(RLIMIT_NOFILE, &files);
}

static void reap(lupe_child *c) {
  int status;
  if (c->ended || waitpid(c->pid, &status, WNOHANG) != c->pid) return;
  c->ended = true;
  c->on_exit(c->arg, status);
}

static void on_sigchld(uv_signal_t *handle, int signal) {
  (void)signal;
  reap(handle->data);
}

static void on_signal(uv_poll_t *handle, int status, int events) {
  (void)events;
  lupe_child *c = handle->data;
  struct signalfd_siginfo info;
  if (status != 0) return;
  while (read(c->signal_fd, &info, sizeof info) == sizeof info) {
    /* From the terminal (SI_KERNEL) the whole foreground group has it already. */
    if (info.ssi_code != SI_KERNEL) lupe_child_signal(c, (int)info.ssi_signo);
  }
}

/* In the child, between fork and exec: async-signal-safe calls only. */
static _Noreturn void execute(char *const argv[], char *const environment[], int error_fd) {
  for (size_t i = 0; i < IGNORED; i++) sigaction(ignored[i], &inherited.actions[i], NULL);
  setrlimit(RLIMIT_NOFILE, &inherited.files);
  sigprocmask(SIG_SETMASK, &inherited.mask, NULL);
  execvpe(argv[0], argv, environment);
  int error = errno;
  ssize_t n = write(error_fd, &error, sizeof error);
  _exit(n == sizeof error ? 127 : 126);
}

lupe_status lupe_child_start(lupe_child **out, uv_loop_t *loop, char *const argv[], char *const environment[],
                             lupe_child_exit_cb on_exit, void *arg, int *exec_errno) {
  lupe_child *c = calloc(1, sizeof *c);
  if (!c) return LUPE_ENOMEM;
  c->on_exit = on_exit;
  c->arg = arg;
  sigset_t set;
  fill_passed_on(&set);
  c->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (c->signal_fd < 0) goto no_signalfd;
  int errors[2];
  if (pipe2(errors, O_CLOEXEC) != 0) goto no_pipe;

  c->pid = fork();
  if (c->pid < 0) goto no_fork;
  if (c->pid == 0) execute(argv, environment, errors[1]);
  close(errors[1]);
  ssize_t n;
  do n = read(errors[0], exec_errno, sizeof *exec_errno);
  while (n < 0 && errno == EINTR);
  close(errors[0]);
  if (n == sizeof *exec_errno) {
    waitpid(c->pid, NULL, 0);
    goto no_pipe;
  }

  uv_signal_init(loop, &c->ended_signal);
  uv_poll_init(loop, &c->signals, c->signal_fd);
  c->open_handles = 2;
  c->ended_signal.data = c->signals.data = c;
  uv_signal_start(&c->ended_signal, on_sigchld, SIGCHLD);
  uv_poll_start(&c->signals, UV_READABLE, on_signal);
  *out = c;
  raise(SIGCHLD); /* it may have ended before SIGCHLD was watched */
  return LUPE_OK;

no_fork:
  *exec_errno = errno;
  close(errors[0]);
  close(errors[1]);
no_pipe:
  close(c->signal_fd);
no_signalfd:
  free(c);
  return LUPE_EIO;
}

pid_t lupe_child_pid(const lupe_child *c) {
  return c->pid;
}

void lupe_child_signal(lupe_child *c, int signal) {
  if (!c->ended) kill(c->pid, signal);
}

static void on_closed(uv_handle_t *handle) {
  lupe_child *c = handle->data;
  if (--c->open_handles == 0) {
    close(c->signal_fd);
    free(c);
  }
}

void lupe_child_free(lupe_child *c) {
  if (!c) return;
  uv_close((uv_handle_t *)&c->ended_signal, on_closed);
  uv_close((uv_handle_t *)&c->signals, on_closed);
}

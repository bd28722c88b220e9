#include "core/cli/serve.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/cli/child.h"
#include "core/cli/start.h"
#include "core/cli/users.h"
#include "core/runtime.h"

enum { EXIT_LUPE_FAILED = 125 };

typedef struct serve {
  uv_loop_t loop;
  lupe_runtime *runtime;
  uv_poll_t signals;
  int signal_fd;
  bool ending;
} serve;

/* Tells systemd, where that started lupe and waits to be told (sd_notify(3)). */
static void notify(const char *state) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address.sun_path) return;
  size_t bytes = strlen(path);
  memcpy(address.sun_path, path, bytes);
  if (path[0] == '@') address.sun_path[0] = '\0';
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
                       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes)) < 0)
    fprintf(stderr, "lupe: %s (NOTIFY_SOCKET): %s\n", path, strerror(errno));
  if (fd >= 0) close(fd);
}

static void end(serve *s) {
  if (s->ending) return;
  s->ending = true;
  notify("STOPPING=1");
  uv_close((uv_handle_t *)&s->signals, NULL);
  lupe_runtime_close(s->runtime, NULL, NULL);
}

static void on_signal(uv_poll_t *handle, int status, int events) {
  (void)events;
  serve *s = handle->data;
  struct signalfd_siginfo info;
  if (status == 0 && read(s->signal_fd, &info, sizeof info) == sizeof info) end(s);
}

static int watch_signals(serve *s) {
  static const int ends[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
  sigset_t set;
  sigemptyset(&set);
  for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) sigaddset(&set, ends[i]);
  s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (s->signal_fd < 0) return -1;
  uv_poll_init(&s->loop, &s->signals, s->signal_fd);
  s->signals.data = s;
  uv_poll_start(&s->signals, UV_READABLE, on_signal);
  return 0;
}

static int start(serve *s, lupe_vm *vm, const lupe_paths *paths, const lupe_command *command,
                 const lupe_peers *peers) {
  lupe_runtime_options options = lupe_start_options(command, &s->loop, vm, paths);
  options.socket = command->socket;
  options.serves = true;
  options.peers = *peers;
  if (watch_signals(s) != 0) {
    fprintf(stderr, "lupe: no signals: %s\n", strerror(errno));
    return EXIT_LUPE_FAILED;
  }
  if (lupe_start_runtime(&s->runtime, &options) != LUPE_OK) {
    uv_close((uv_handle_t *)&s->signals, NULL);
    return EXIT_LUPE_FAILED;
  }
  lupe_start_announce(command, s->runtime);
  fprintf(stderr, "lupe: programs connect to %s\n", command->socket);
  notify("READY=1");
  return 0;
}

int lupe_serve(lupe_vm *vm, const lupe_paths *paths, const lupe_command *command) {
  char error[LUPE_VM_ERROR_BYTES];
  serve s = {.signal_fd = -1};
  lupe_peers peers;
  if (lupe_users_parse(command->users, &peers, error, sizeof error) != LUPE_OK) {
    fprintf(stderr, "lupe: %s\n", error);
    return EXIT_LUPE_FAILED;
  }
  umask(0077);          /* what it keeps is nobody else's */
  lupe_child_prepare(); /* signals are read from a descriptor, by whoever waits for them */
  int code = EXIT_LUPE_FAILED;
  if (uv_loop_init(&s.loop) != 0) {
    fprintf(stderr, "lupe: no event loop: %s\n", strerror(errno));
    goto no_loop;
  }
  code = start(&s, vm, paths, command, &peers);
  uv_run(&s.loop, UV_RUN_DEFAULT);
  uv_loop_close(&s.loop);
  if (s.signal_fd >= 0) close(s.signal_fd);
no_loop:
  free((void *)(uintptr_t)peers.uids);
  return code;
}

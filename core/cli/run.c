#include "core/cli/run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "core/cli/child.h"
#include "core/cli/output.h"
#include "core/cli/program.h"
#include "core/cli/start.h"
#include "core/runtime.h"

enum {
  EXIT_LUPE_FAILED = 125,
  EXIT_NOT_EXECUTABLE = 126,
  EXIT_NOT_FOUND = 127,
  HANDSHAKE_MS = 3000, /* a program that has not been heard of by then is not being profiled */
  KILL_MS = 5000,      /* from SIGTERM to SIGKILL after --duration */
  PATIENCE_MS = 1000,  /* silence while the last report is made */
  LINES_MS = 2000,     /* for the source lines in it that are not known yet */
};

typedef struct run {
  const lupe_command *command;
  uv_loop_t loop;
  lupe_runtime *runtime;
  lupe_child *child;
  uv_timer_t duration, handshake, patience;
  lupe_ending ending;
  bool ended;
  bool expected; /* the program's kind lets it be profiled */
  int exit_code;
} run;

static const char *const unprofilable[] = {
    [LUPE_PROGRAM_STATIC] = "it is statically linked, so nothing can be preloaded into it",
    [LUPE_PROGRAM_PRIVILEGED] =
        "it changes its user or capabilities (setuid, setgid, file capabilities), and the "
        "loader preloads nothing into such programs",
    [LUPE_PROGRAM_FOREIGN] = "it is built for another architecture than lupe",
};

/* -- the report ------------------------------------------------------------------------------- */

static void on_closed(void *arg) {
  (void)arg;
}

static void finish(run *r) {
  uv_close((uv_handle_t *)&r->patience, NULL);
  lupe_child_free(r->child);
  lupe_runtime_close(r->runtime, on_closed, NULL);
}

static void on_report(void *arg, const char *text, size_t bytes) {
  run *r = arg;
  const char *path = r->command->output;
  int error = text && bytes && path ? lupe_output_file(path, text, bytes) : 0;
  if (error) {
    fprintf(stderr, "lupe: the report could not be written to %s: %s; here it is:\n", path, strerror(error));
  }
  if (!text) {
    r->exit_code = EXIT_LUPE_FAILED;
  } else if (!path || error) {
    (void)lupe_output_all(STDERR_FILENO, text, bytes); /* whoever closed stderr does not want it */
  }
  finish(r);
}

static void on_patience(uv_timer_t *timer) {
  (void)timer;
  fprintf(stderr, "lupe: reading the last heap profile ...\n");
}

/* -- the program ------------------------------------------------------------------------------ */

static void on_child_exit(void *arg, int status) {
  run *r = arg;
  r->ended = true;
  r->ending.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  r->ending.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  r->ending.pid = lupe_child_pid(r->child);
  r->ending.argv = r->command->argv;
  r->ending.color = !r->command->output && lupe_output_colors(STDERR_FILENO);
  r->ending.columns = lupe_output_columns(STDERR_FILENO);
  r->exit_code = r->ending.signal ? 128 + r->ending.signal : r->ending.exit_code;
  uv_close((uv_handle_t *)&r->duration, NULL);
  uv_close((uv_handle_t *)&r->handshake, NULL);
  if (!r->command->end_wanted) {
    finish(r);
    return;
  }
  uv_timer_start(&r->patience, on_patience, PATIENCE_MS, 0);
  lupe_runtime_report(r->runtime, &r->ending, LINES_MS, on_report, r);
}

static void on_duration(uv_timer_t *timer) {
  run *r = timer->data;
  lupe_child_signal(r->child, r->ending.timed_out ? SIGKILL : SIGTERM);
  r->ending.timed_out = true;
  uv_timer_start(timer, on_duration, KILL_MS, 0);
}

/* A program that runs and does not speak to us would end in an empty report: say so while it runs. */
static void on_handshake_due(uv_timer_t *timer) {
  run *r = timer->data;
  if (!r->expected || lupe_runtime_saw(r->runtime, lupe_child_pid(r->child))) return;
  fprintf(
      stderr,
      "lupe: %s (process %d) is not being profiled: it has not answered. It may have dropped LD_PRELOAD or "
      "LUPE_SOCKET from its environment, or forbid them.\n",
      r->command->argv[0], (int)lupe_child_pid(r->child));
}

static int explain_exec_failure(const char *command, int error) {
  fprintf(stderr, "lupe: %s: %s\n", command, error == ENOENT ? "command not found" : strerror(error));
  return error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

/* Looks at the program before anything is started. 0: go on. */
static int inspect(run *r) {
  const char *command = r->command->argv[0];
  lupe_program program;
  lupe_status status = lupe_program_inspect(command, getenv("PATH"), &program);
  if (status == LUPE_ENOENT) return explain_exec_failure(command, ENOENT);
  if (status != LUPE_OK) return explain_exec_failure(command, EACCES);
  r->expected = r->command->profile && program.kind == LUPE_PROGRAM_DYNAMIC;
  if (program.kind == LUPE_PROGRAM_DYNAMIC || !r->command->profile) return 0;
  r->ending.reason = unprofilable[program.kind];
  fprintf(stderr, "lupe: %s cannot be profiled: %s%s\n", program.path, unprofilable[program.kind],
          r->command->require ? "" : ". It runs without (--require refuses such programs)");
  return r->command->require ? EXIT_LUPE_FAILED : 0;
}

static int start(run *r, lupe_vm *vm, const lupe_paths *paths) {
  char error[LUPE_VM_ERROR_BYTES];
  const lupe_command *command = r->command;
  lupe_runtime_options options = lupe_start_options(command, &r->loop, vm, paths);
  if (lupe_start_runtime(&r->runtime, &options) != LUPE_OK) return EXIT_LUPE_FAILED;
  char **environment;
  int code = EXIT_LUPE_FAILED, exec_errno = 0;
  if (lupe_command_environment(vm, paths, lupe_runtime_socket(r->runtime), &environment, error,
                               sizeof error) != LUPE_OK) {
    fprintf(stderr, "lupe: %s\n", error);
    goto no_child;
  }
  lupe_start_announce(command, r->runtime);
  lupe_status status =
      lupe_child_start(&r->child, &r->loop, command->argv, environment, on_child_exit, r, &exec_errno);
  lupe_command_free_environment(environment);
  if (status != LUPE_OK) {
    if (exec_errno) {
      code = explain_exec_failure(command->argv[0], exec_errno);
    } else {
      fprintf(stderr, "lupe: %s could not be started: %s\n", command->argv[0], strerror(errno));
    }
    goto no_child;
  }

  uv_timer_init(&r->loop, &r->duration);
  uv_timer_init(&r->loop, &r->handshake);
  uv_timer_init(&r->loop, &r->patience);
  r->duration.data = r->handshake.data = r->patience.data = r;
  if (command->duration_s > 0)
    uv_timer_start(&r->duration, on_duration, (uint64_t)(command->duration_s * 1e3), 0);
  uv_timer_start(&r->handshake, on_handshake_due, HANDSHAKE_MS, 0);
  return 0;

no_child:
  lupe_runtime_close(r->runtime, on_closed, NULL);
  return code;
}

int lupe_run(lupe_vm *vm, const lupe_paths *paths, const lupe_command *command) {
  run r = {.command = command};
  int code = inspect(&r);
  if (code != 0) return code;
  lupe_child_prepare();
  if (uv_loop_init(&r.loop) != 0) {
    fprintf(stderr, "lupe: no event loop: %s\n", strerror(errno));
    return EXIT_LUPE_FAILED;
  }
  code = start(&r, vm, paths);
  uv_run(&r.loop, UV_RUN_DEFAULT);
  uv_loop_close(&r.loop);
  return code ? code : r.exit_code;
}

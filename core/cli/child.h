/* child.h -- the program that `lupe run` starts: one child, its signals, its end.
 * The child keeps lupe's standard streams, terminal and process group. Signals sent to lupe are passed on;
 * those that the terminal sends reach the child by themselves, since it is in the same group. Owner and
 * thread: the loop's. */
#ifndef LUPE_CLI_CHILD_H
#define LUPE_CLI_CHILD_H

#include <sys/types.h>
#include <uv.h>

#include "core/lupe.h"

typedef struct lupe_child lupe_child;
/* `status` as of waitpid. Called once, on the loop. */
typedef void (*lupe_child_exit_cb)(void *arg, int status);

/* Sets what lupe needs for itself: the signals to be passed on are blocked, those that a failing write sends
 * are ignored, as many files may be open as the system allows. The child gets all of it back as lupe was
 * started with. Call before any thread is started, so that all inherit it. */
void lupe_child_prepare(void);

/* Runs `argv` with `environment` (both NULL-terminated; the command is looked up along its PATH).
 * LUPE_EIO: it could not be executed, *exec_errno says why; nothing is left behind. */
lupe_status lupe_child_start(lupe_child **out, uv_loop_t *loop, char *const argv[], char *const environment[],
                             lupe_child_exit_cb on_exit, void *arg, int *exec_errno);
pid_t lupe_child_pid(const lupe_child *c);
void lupe_child_signal(lupe_child *c, int signal);
/* Stops watching; the child itself is not touched. Its handles are freed as the loop runs on. NULL is a
 * no-op. */
void lupe_child_free(lupe_child *c);

#endif

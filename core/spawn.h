/* spawn.h -- starts a program as a process that its parent's code does not notice: no page table is copied,
 * no SIGCHLD comes, waitpid(-1) does not find it, and it is reaped however the parent treats SIGCHLD.
 *
 * execve makes every process one whose end is told by SIGCHLD, so the program is not our child but that of a
 * keeper: a process of ours that shares our memory, never executes anything, and whose end is told by nothing
 * but its descriptor. It starts the program, waits for it, writes down how it ended, and ends; "lupe-keeper"
 * is its name. Only waitpid with __WALL or __WCLONE finds it. Whoever adds up the memory of processes counts
 * ours twice, as long as it is there.
 *
 * The program is killed where the keeper is, or our process ends. Needs Linux 5.9. Nothing but libc.
 * Thread: any; one at a time per struct. */
#ifndef LUPE_SPAWN_H
#define LUPE_SPAWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/lupe.h"

enum { LUPE_SPAWN_FDS_MAX = 4 };

typedef struct lupe_spawned lupe_spawned;

typedef struct lupe_spawn_options {
  const char *file;               /* a path; no search */
  const char *const *argv;        /* NULL-terminated */
  const char *const *environment; /* NULL-terminated */
  /* Descriptors 3, 4, ... of the program; stdin and stdout are /dev/null, stderr is ours, all others are
   * closed. */
  const int *fds;
  size_t fd_count;
  /* The program is also killed when the calling thread ends, such as by an execve of the process. */
  bool dies_with_thread;
  /* Where our process has ended, the program may go on for so long: it has something to clear away, and is
   * told by other ways than this. Our memory stays as long. 0: it is killed at once. Not with
   * dies_with_thread. */
  unsigned grace_ms;
} lupe_spawn_options;

/* Returns when the program is being executed, with all signals at their defaults and none blocked. LUPE_EIO,
 * or LUPE_EUNSUPPORTED where this kernel (or a sandbox) does not have the calls: *out_error is an errno then,
 * of execve for instance, and nothing is left behind. LUPE_ENOMEM; LUPE_EINVAL. */
lupe_status lupe_spawn(lupe_spawned **out, const lupe_spawn_options *options, int *out_error);

pid_t lupe_spawn_pid(const lupe_spawned *s);
/* Readable once it has ended: for poll. Valid until lupe_spawn_free. */
int lupe_spawn_fd(const lupe_spawned *s);
void lupe_spawn_kill(const lupe_spawned *s); /* SIGKILL; of an ended one a no-op */
/* CPU time that it has used so far; all of it once it has ended. */
uint64_t lupe_spawn_cpu_ns(const lupe_spawned *s);

typedef struct lupe_spawn_end {
  int status; /* as waitpid's */
  bool known; /* false: the keeper was killed, and the program with it */
} lupe_spawn_end;

/* Waits for its end, at most `timeout_ms` (-1: without end). False: it still runs. */
bool lupe_spawn_wait(lupe_spawned *s, int timeout_ms, lupe_spawn_end *out);
/* Kills and waits for it, if it still runs. NULL is a no-op. */
void lupe_spawn_free(lupe_spawned *s);

#endif

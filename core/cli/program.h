/* program.h -- what kind of program a command names, and so whether an agent can be preloaded. */
#ifndef LUPE_CLI_PROGRAM_H
#define LUPE_CLI_PROGRAM_H

#include <limits.h>

#include "core/lupe.h"

typedef enum lupe_program_kind {
  LUPE_PROGRAM_DYNAMIC = 0, /* the loader will preload the agent */
  LUPE_PROGRAM_STATIC,      /* no loader runs in it */
  LUPE_PROGRAM_PRIVILEGED,  /* setuid, setgid or file capabilities: the loader ignores LD_PRELOAD */
  LUPE_PROGRAM_FOREIGN,     /* another architecture or word size than lupe's */
} lupe_program_kind;

typedef struct lupe_program {
  char path[PATH_MAX]; /* what will be executed; the interpreter where the command is a script */
  lupe_program_kind kind;
} lupe_program;

/* Finds `command` as execvp would, along `path_variable` (NULL: the system's default), and looks at its file,
 * through up to four `#!` lines. LUPE_ENOENT: no such command; LUPE_EPERM: not executable. */
lupe_status lupe_program_inspect(const char *command, const char *path_variable, lupe_program *out);

#endif

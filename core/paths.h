/* paths.h -- where an installed or freshly built lupe finds its own files.
 * Where this code is in a library (liblupe-runtime.so, in a process of somebody else's), the program `lupe`
 * is looked for beside that first, in a build folder or an installation's bin; everything else then beside
 * the program (a build folder, then an installation's share and lib folders), so that a tree can be moved;
 * then where CMake was told to install. */
#ifndef LUPE_PATHS_H
#define LUPE_PATHS_H

#include <limits.h>

#include "core/lupe.h"

typedef struct lupe_paths {
  char executable[PATH_MAX]; /* the program `lupe`: what is executed as a worker */
  char lua[PATH_MAX];        /* holds lupe/ and routes/ */
  char rules[PATH_MAX];      /* the shipped rules */
  char agent[PATH_MAX];      /* liblupe-agent.so */
  char jemalloc[PATH_MAX];   /* libjemalloc.so.2; "" where the system has none. LUPE_JEMALLOC overrides it */
} lupe_paths;

/* LUPE_ENOENT: a part is missing; *missing names it (static). Thread: any. */
lupe_status lupe_paths_find(lupe_paths *out, const char **missing);

/* The program that belongs to a library of ours at `file`. LUPE_ENOENT. */
lupe_status lupe__paths_program_beside(const char *file, char out[PATH_MAX]);

#endif

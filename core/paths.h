/* paths.h -- where an installed or freshly built lupe finds its own files.
 * Looked for beside the executable first (a build folder, then an installation's share and lib
 * folders), so that a tree can be moved; then where CMake was told to install. */
#ifndef LUPE_PATHS_H
#define LUPE_PATHS_H

#include <limits.h>

#include "core/lupe.h"

typedef struct lupe_paths {
  char executable[PATH_MAX];
  char lua[PATH_MAX];      /* holds lupe/ and routes/ */
  char rules[PATH_MAX];    /* the shipped rules */
  char agent[PATH_MAX];    /* liblupe-agent.so */
  char jemalloc[PATH_MAX]; /* libjemalloc.so.2; "" where the system has none. LUPE_JEMALLOC overrides it */
} lupe_paths;

/* LUPE_ENOENT: a part is missing; *missing names it (static). Thread: any. */
lupe_status lupe_paths_find(lupe_paths *out, const char **missing);

#endif

#include "core/embed/helper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/embed/beside.h"
#include "core/spawn.h"

enum { GRACE_MS = 2000 /* for what it has to write and to clear away where this process has ended */ };

static lupe_spawned *helper;

/* The program's own environment, which may set lupe up, without what would get another library or an agent
 * into lupe itself. The texts are not copied. NULL: no memory. */
static const char **clean_environment(void) {
  static const char *const dropped[] = {"LD_PRELOAD=", "LD_AUDIT=", "MALLOC_CONF=", "LUPE_SOCKET=", NULL};
  size_t count = 0;
  while (environ[count]) count++;
  const char **kept = calloc(count + 1, sizeof *kept), **next = kept;
  if (!kept) return NULL;
  for (size_t i = 0; i < count && environ[i]; i++) {
    bool drop = false;
    for (size_t j = 0; dropped[j]; j++) drop |= strncmp(environ[i], dropped[j], strlen(dropped[j])) == 0;
    if (!drop) *next++ = environ[i];
  }
  return kept;
}

lupe_status lupe__helper_start(int calls, int events, char *why, size_t why_bytes) {
  static const char *const places[] = {"lupe", "../bin/lupe", "../../bin/lupe", LUPE_BIN_DIR "/lupe", NULL};
  char path[PATH_MAX];
  if (lupe__beside(path, places) != LUPE_OK) {
    snprintf(why, why_bytes,
             "this installation is not whole: lupe, the program that is to be the helper, cannot be "
             "found beside liblupe.so or in " LUPE_BIN_DIR);
    return LUPE_ENOENT;
  }
  const char **environment = clean_environment();
  if (!environment) {
    snprintf(why, why_bytes, "no memory for the helper's environment");
    return LUPE_ENOMEM;
  }
  const char *const argv[] = {"lupe", "embedded", "3", "4", NULL};
  const int fds[] = {calls, events};
  const lupe_spawn_options options = {.file = path,
                                      .argv = argv,
                                      .environment = environment,
                                      .fds = fds,
                                      .fd_count = 2,
                                      .grace_ms = GRACE_MS};
  int error = 0;
  lupe_status status = lupe_spawn(&helper, &options, &error);
  free(environment);
  if (status == LUPE_OK) return status;
  helper = NULL;
  snprintf(why, why_bytes, "the helper %s cannot be started: %s", path,
           error ? strerror(error) : lupe_status_text(status));
  return status;
}

bool lupe__helper_end(int64_t wait_ms, bool kills) {
  lupe_spawn_end end;
  bool ended = lupe_spawn_wait(helper, (int)wait_ms, &end);
  if (!ended && !kills) return false;
  lupe_spawn_free(helper);
  helper = NULL;
  return ended;
}

#include "core/paths.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Writes the first of `candidates` (relative ones count from `base`) that exists to `out`. */
static lupe_status first_existing(char out[PATH_MAX], const char *base, const char *const *candidates) {
  for (; *candidates; candidates++) {
    int n = **candidates == '/' ? snprintf(out, PATH_MAX, "%s", *candidates)
                                : snprintf(out, PATH_MAX, "%s/%s", base, *candidates);
    char whole[PATH_MAX];
    if (n >= PATH_MAX || access(out, R_OK) != 0 || !realpath(out, whole)) continue;
    memcpy(out, whole, sizeof whole);
    return LUPE_OK;
  }
  return LUPE_ENOENT;
}

lupe_status lupe_paths_find(lupe_paths *out, const char **missing) {
  /* From the build folder, from PREFIX/bin, from where liblupe-runtime.so is installed; where it was to be.
   */
  static const char *const executable[] = {"lupe", LUPE_PREFIX_OF_LIB "/bin/lupe", NULL};
  static const char *const lua[] = {"../lua/lupe", "../share/lupe/lua/lupe",
                                    LUPE_PREFIX_OF_LIB "/share/lupe/lua/lupe", LUPE_DATA_DIR "/lua/lupe",
                                    NULL};
  static const char *const rules[] = {"../rules", "../share/lupe/rules",
                                      LUPE_PREFIX_OF_LIB "/share/lupe/rules", LUPE_DATA_DIR "/rules", NULL};
  static const char *const agent[] = {"liblupe-agent.so", "../" LUPE_LIB_SUFFIX "/lupe/liblupe-agent.so",
                                      LUPE_LIB_DIR "/liblupe-agent.so", NULL};
  lupe_paths p;
  Dl_info own;
  char base[PATH_MAX];
  *missing = "its own file";
  if (!dladdr((void *)lupe_paths_find, &own) || !realpath(own.dli_fname, base)) return LUPE_ENOENT;
  *strrchr(base, '/') = '\0';
  *missing = "lupe, the program";
  if (first_existing(p.executable, base, executable) != LUPE_OK) return LUPE_ENOENT;
  *missing = "lua/lupe, lupe's own scripts";
  if (first_existing(p.lua, base, lua) != LUPE_OK) return LUPE_ENOENT;
  *strrchr(p.lua, '/') = '\0';
  *missing = "rules, the shipped rules";
  if (first_existing(p.rules, base, rules) != LUPE_OK) return LUPE_ENOENT;
  *missing = "liblupe-agent.so";
  if (first_existing(p.agent, base, agent) != LUPE_OK) return LUPE_ENOENT;

  static const char *const jemalloc[] = {"/usr/local/lib/libjemalloc.so.2",
                                         "/usr/lib/" LUPE_ARCHITECTURE "/libjemalloc.so.2",
                                         "/usr/lib64/libjemalloc.so.2", "/usr/lib/libjemalloc.so.2", NULL};
  const char *given = secure_getenv("LUPE_JEMALLOC");
  const char *const one[] = {given, NULL};
  *missing = "the library that LUPE_JEMALLOC names";
  if (first_existing(p.jemalloc, base, given ? one : jemalloc) != LUPE_OK) {
    if (given) return LUPE_ENOENT;
    p.jemalloc[0] = '\0';
  }
  *out = p;
  return LUPE_OK;
}

#include "core/paths.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

lupe_status lupe__paths_program_beside(const char *file, char out[PATH_MAX]) {
  static const char *const places[] = {
      "lupe", "../bin/lupe", "../../bin/lupe", "../../../bin/lupe", LUPE_BIN_DIR "/lupe", NULL};
  char base[PATH_MAX], found[PATH_MAX];
  if (!realpath(file, base)) return LUPE_ENOENT;
  *strrchr(base, '/') = '\0';
  for (const char *const *place = places; *place; place++) {
    const char *const one[] = {*place, NULL};
    struct stat info;
    /* PREFIX/lib has a folder of this name. */
    if (first_existing(found, base, one) != LUPE_OK || stat(found, &info) != 0) continue;
    if (!S_ISREG(info.st_mode) || access(found, X_OK) != 0) continue;
    memcpy(out, found, sizeof found);
    return LUPE_OK;
  }
  return LUPE_ENOENT;
}

/* The program that this code is of: it is in it, or in one of its libraries, which may be in any process. */
static lupe_status find_program(char out[PATH_MAX]) {
  Dl_info own;
  struct link_map *object;
  if (!dladdr1((void *)lupe_paths_find, &own, (void **)&object, RTLD_DL_LINKMAP)) return LUPE_ENOENT;
  if (object->l_name[0]) return lupe__paths_program_beside(object->l_name, out);
  ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
  if (n <= 0) return LUPE_ENOENT;
  out[n] = '\0';
  return LUPE_OK;
}

lupe_status lupe_paths_find(lupe_paths *out, const char **missing) {
  static const char *const lua[] = {"../lua/lupe", "../share/lupe/lua/lupe", LUPE_DATA_DIR "/lua/lupe", NULL};
  static const char *const rules[] = {"../rules", "../share/lupe/rules", LUPE_DATA_DIR "/rules", NULL};
  static const char *const agent[] = {"liblupe-agent.so", "../" LUPE_LIB_SUFFIX "/lupe/liblupe-agent.so",
                                      LUPE_LIB_DIR "/liblupe-agent.so", NULL};
  lupe_paths p;
  *missing = "lupe, the program";
  if (find_program(p.executable) != LUPE_OK) return LUPE_ENOENT;

  char base[PATH_MAX];
  memcpy(base, p.executable, sizeof base);
  *strrchr(base, '/') = '\0';
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

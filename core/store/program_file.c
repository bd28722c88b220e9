#include "core/store/program_file.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static const char deleted[] = " (deleted)";

size_t lupe_program_path_bytes(const char *path) {
  size_t bytes = strlen(path), remark = sizeof deleted - 1;
  return bytes > remark && strcmp(path + bytes - remark, deleted) == 0 ? bytes - remark : bytes;
}

bool lupe_program_path_is_anonymous(const char *path) {
  static const char *const kinds[] = {"//", "/memfd:", "/SYSV", "/dev/", "/anon_hugepage", "/[", "/drm"};
  if (path[0] != '/') return strcmp(path, "[vdso]") != 0;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (strncmp(path, kinds[i], strlen(kinds[i])) == 0) return true;
  }
  return false;
}

lupe_status lupe_program_file_open(const char *path, const char *alternative, const char *build_id,
                                   lupe_elf_file *out) {
  char plain[PATH_MAX];
  size_t bytes = lupe_program_path_bytes(path);
  bool was_deleted = path[bytes] != '\0';
  bool by_path = path[0] == '/' && bytes < sizeof plain && !lupe_program_path_is_anonymous(path) &&
                 (!was_deleted || build_id);
  if (by_path) {
    memcpy(plain, path, bytes);
    plain[bytes] = '\0';
  }
  const char *places[] = {alternative, by_path ? plain : NULL};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    if (!places[i] || lupe_elf_open(places[i], out) != LUPE_OK) continue;
    if (!build_id || strcmp(build_id, out->build_id) == 0) return LUPE_OK;
    lupe_elf_close(out); /* another build lies there now */
  }
  return LUPE_ENOENT;
}

lupe_status lupe_debug_file_open(const char *debug_root, const char *build_id, lupe_elf_file *out) {
  char path[PATH_MAX];
  if (!build_id[0]) return LUPE_ENOENT;
  int bytes = snprintf(path, sizeof path, "%s/.build-id/%.2s/%s.debug", debug_root, build_id, build_id + 2);
  if (bytes < 0 || (size_t)bytes >= sizeof path || lupe_elf_open(path, out) != LUPE_OK) return LUPE_ENOENT;
  if (strcmp(out->build_id, build_id) == 0) return LUPE_OK;
  lupe_elf_close(out);
  return LUPE_ENOENT;
}

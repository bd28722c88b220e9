#include "core/store/program_file.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char deleted[] = " (deleted)";

size_t lupe_program_path_bytes(const char *path) {
  size_t bytes = strlen(path), remark = sizeof deleted - 1;
  return bytes > remark && strcmp(path + bytes - remark, deleted) == 0 ? bytes - remark : bytes;
}

bool lupe_program_path_is_still(const char *path, size_t bytes, const char *known) {
  size_t remark = sizeof deleted - 1, plain = strlen(known);
  if (bytes == plain + remark && memcmp(path + plain, deleted, remark) == 0) bytes = plain;
  return bytes == plain && memcmp(path, known, plain) == 0;
}

bool lupe_program_path_is_anonymous(const char *path) {
  static const char *const kinds[] = {"//", "/memfd:", "/SYSV", "/dev/", "/anon_hugepage", "/[", "/drm"};
  if (path[0] != '/') return strcmp(path, "[vdso]") != 0;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (strncmp(path, kinds[i], strlen(kinds[i])) == 0) return true;
  }
  return false;
}

static int64_t ns_of(struct timespec time) {
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

void lupe_program_file_look(const char *path, size_t bytes, int32_t pid, lupe_file_version *version) {
  char there[PATH_MAX + 64];
  struct stat s;
  int root = snprintf(there, sizeof there, "/proc/%d/root", (int)pid);
  if (bytes >= PATH_MAX || root < 0) return;
  memcpy(there + root, path, bytes);
  there[(size_t)root + bytes] = '\0';
  const char *here = there + root;
  if (version->inode == 0 || lupe_program_path_is_anonymous(here)) {
    *version = (lupe_file_version){.inode = 0};
    return;
  }
  if (here[lupe_program_path_bytes(here)] != '\0') return; /* deleted */
  if (stat(there, &s) != 0 && stat(here, &s) != 0) return;
  version->bytes = (uint64_t)s.st_size;
  version->mtime_ns = ns_of(s.st_mtim);
}

static bool is_version(const lupe_elf_file *f, const lupe_file_version *version) {
  if (!version || version->mtime_ns == 0) return true;
  return f->bytes == version->bytes && ns_of(f->mtime) == version->mtime_ns;
}

lupe_status lupe_program_file_open(const char *path, const char *alternative, const char *build_id,
                                   const lupe_file_version *version, lupe_elf_file *out) {
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
    if (is_version(out, version) && (!build_id || strcmp(build_id, out->build_id) == 0)) {
      if (i == 0 && by_path) lupe_elf_also(out, plain);
      return LUPE_OK;
    }
    lupe_elf_close(out); /* another one lies there now */
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

#include "core/store/maps_file.h"

#include <errno.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum {
  PIECE = 65536, /* bytes read at once */
  TEXT_BYTES_MAX = 16 << 20,
};

/* A file of /proc may wait for events (kmsg), and a file of a filesystem that a program serves waits for that
 * program: so only these two kinds will do. */
lupe_status lupe_maps_file_check(int fd, bool *out_live) {
  struct stat info;
  struct statfs where;
  if (fstat(fd, &info) != 0 || fstatfs(fd, &where) != 0 || !S_ISREG(info.st_mode)) return LUPE_EINVAL;
  if (where.f_type == TMPFS_MAGIC) {
    *out_live = false;
    return LUPE_OK;
  }
  if (where.f_type != PROC_SUPER_MAGIC) return LUPE_EINVAL;
  char link[64], path[PATH_MAX];
  /* Of this thread: in a process of somebody else's, lupe's threads have descriptors of their own. */
  snprintf(link, sizeof link, "/proc/thread-self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return LUPE_EINVAL;
  path[n] = '\0';
  const char *slash = strrchr(path, '/');
  if (!slash || strcmp(slash, "/maps") != 0) return LUPE_EINVAL;
  *out_live = true;
  return LUPE_OK;
}

/* One read; the kernel's file gives less than asked for, up to the end of a line. */
static lupe_status read_piece(int fd, char *to, size_t capacity, size_t offset, size_t *out_bytes) {
  ssize_t n;
  do n = pread(fd, to, capacity, (off_t)offset);
  while (n < 0 && errno == EINTR);
  if (n < 0 && errno == ESRCH) n = 0; /* the process is gone */
  if (n < 0) return LUPE_EIO;
  *out_bytes = (size_t)n;
  return LUPE_OK;
}

lupe_status lupe_maps_file_read(int fd, lupe_address_map *map) {
  char *piece = malloc(PIECE);
  if (!piece) return LUPE_ENOMEM;
  size_t offset = 0, kept = 0; /* `kept`: of a line that is not complete yet */
  lupe_address_map_begin(map);
  lupe_status status;
  for (;;) {
    size_t n;
    status = read_piece(fd, piece + kept, PIECE - kept, offset, &n);
    if (status != LUPE_OK || n == 0) break;
    offset += n;
    const char *at = piece, *end = piece + kept + n;
    for (const char *newline; (newline = memchr(at, '\n', (size_t)(end - at))); at = newline + 1) {
      status = lupe_address_map_line(map, at, (size_t)(newline - at));
      if (status != LUPE_OK) break;
    }
    kept = (size_t)(end - at);
    if (status == LUPE_OK && (kept == PIECE || offset > TEXT_BYTES_MAX)) status = LUPE_ECORRUPT;
    if (status != LUPE_OK) break;
    memmove(piece, at, kept);
  }
  free(piece);
  if (status != LUPE_OK) return status;
  if (offset == 0) return LUPE_ENOENT;
  if (kept > 0) return LUPE_ECORRUPT; /* it ends inside a line */
  return lupe_address_map_commit(map);
}

#include "core/store/proc_stat.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/status.h"

enum { STAT_BYTES = 2048 /* 52 numbers and a name */ };

lupe_status lupe__proc_open(pid_t pid, int *out_folder) {
  char path[32];
  if (pid <= 0) return LUPE_ENOENT;
  snprintf(path, sizeof path, "/proc/%d", (int)pid);
  int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return lupe__status_of_errno(errno);
  *out_folder = folder;
  return LUPE_OK;
}

lupe_status lupe__proc_read(int folder, const char *name, char *out, size_t capacity, size_t *out_bytes) {
  int fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return lupe__status_of_errno(errno);
  ssize_t n;
  do {
    n = read(fd, out, capacity - 1);
  } while (n < 0 && errno == EINTR);
  int error = errno;
  close(fd);
  if (n < 0) return lupe__status_of_errno(error);
  out[n] = '\0';
  *out_bytes = (size_t)n;
  return LUPE_OK;
}

bool lupe__proc_numbers(const char *text, uint64_t *out, size_t count) {
  for (size_t i = 0; i < count; i++) {
    char *end;
    while (*text == ' ') text++;
    bool negative = *text == '-';
    if (negative) text++;
    if (*text < '0' || *text > '9') return false;
    uint64_t value = strtoull(text, &end, 10);
    out[i] = negative ? 0 : value;
    text = end;
  }
  return true;
}

/* The name may hold blanks and parentheses, so it ends at the last ')'. */
lupe_status lupe__proc_stat(int folder, lupe_proc_stat *out) {
  char text[STAT_BYTES];
  size_t bytes;
  lupe_status status = lupe__proc_read(folder, "stat", text, sizeof text, &bytes);
  if (status != LUPE_OK) return status;
  const char *name = strchr(text, '('), *end = strrchr(text, ')');
  if (!name || !end || end < name || end[1] != ' ' || !end[2]) return LUPE_ECORRUPT;
  lupe_proc_stat parsed = {.state = end[2]};
  if (!lupe__proc_numbers(end + 3, parsed.fields + 1, STAT_USED - 1)) return LUPE_ECORRUPT;
  snprintf(parsed.name, sizeof parsed.name, "%.*s", (int)(end - name - 1), name + 1);
  *out = parsed;
  return LUPE_OK;
}

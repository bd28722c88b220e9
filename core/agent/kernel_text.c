#include "core/agent/kernel_text.h"

#include <fcntl.h>
#include <unistd.h>

ssize_t lupe_kernel_text_read(int folder, const char *path, char *text, size_t capacity) {
  int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  ssize_t n = read(fd, text, capacity - 1);
  close(fd);
  if (n >= 0) text[n] = '\0';
  return n;
}

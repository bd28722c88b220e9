#include "core/agent/own_maps.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int lupe_own_maps_open(void) {
  return open(LUPE_OWN_MAPS, O_RDONLY | O_CLOEXEC);
}

static int write_all(int fd, const char *text, size_t bytes) {
  while (bytes > 0) {
    ssize_t n = write(fd, text, bytes);
    if (n < 0 && errno != EINTR) return errno;
    if (n > 0) text += n, bytes -= (size_t)n;
  }
  return 0;
}

int lupe_own_maps_copy(int maps, int to) {
  char text[4096];
  int error = 0;
  ssize_t n;
  while (error == 0 && (n = read(maps, text, sizeof text)) != 0) {
    if (n > 0) {
      error = write_all(to, text, (size_t)n);
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  return error;
}

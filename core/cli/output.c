#include "core/cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

int lupe_output_all(int fd, const char *text, size_t bytes) {
  while (bytes > 0) {
    ssize_t n = write(fd, text, bytes);
    if (n < 0 && errno == EAGAIN) { /* the program made our common stderr non-blocking */
      struct pollfd room = {.fd = fd, .events = POLLOUT};
      poll(&room, 1, -1);
    } else if (n < 0 && errno != EINTR) {
      return errno;
    }
    if (n > 0) text += n, bytes -= (size_t)n;
  }
  return 0;
}

/* Aside and renamed, so that a full disk never leaves half a report; straight to what is not a file. */
int lupe_output_file(const char *path, const char *text, size_t bytes) {
  char temporary[PATH_MAX];
  struct stat st;
  bool aside = stat(path, &st) != 0 || S_ISREG(st.st_mode);
  if (snprintf(temporary, sizeof temporary, aside ? "%s.XXXXXX" : "%s", path) >= (int)sizeof temporary)
    return ENAMETOOLONG;
  int fd = aside ? mkostemp(temporary, O_CLOEXEC) : open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = lupe_output_all(fd, text, bytes);
  if (aside) {
    mode_t mask = umask(0);
    umask(mask);
    if (error == 0 && (fchmod(fd, 0666 & ~mask) != 0 || fsync(fd) != 0)) error = errno;
    if (error == 0 && rename(temporary, path) != 0) error = errno;
    if (error != 0) unlink(temporary);
  }
  close(fd);
  return error;
}

unsigned lupe_output_columns(int fd) {
  struct winsize size;
  if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char *columns = getenv("COLUMNS");
  long given = columns ? strtol(columns, NULL, 10) : 0;
  return given > 0 && given < 1000 ? (unsigned)given : 80;
}

bool lupe_output_colors(int fd) {
  const char *no_color = getenv("NO_COLOR");
  return isatty(fd) && (!no_color || !*no_color);
}

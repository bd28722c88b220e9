#include "core/agent/proof_lines.h"

#include <stddef.h>
#include <unistd.h>

enum { READ_BYTES = 8192, LINE_BYTES = 4608 /* a path of PATH_MAX, and what stands before it */ };

bool lupe_proof_lines_read(int fd, void (*take)(void *arg, char *line), void *arg) {
  char text[READ_BYTES], line[LINE_BYTES];
  size_t length = 0;
  ssize_t n;
  while ((n = read(fd, text, sizeof text)) > 0) {
    for (ssize_t i = 0; i < n; i++) {
      if (text[i] != '\n') {
        if (length < sizeof line - 1) line[length++] = text[i];
        continue;
      }
      line[length] = '\0';
      length = 0;
      take(arg, line);
    }
  }
  return n == 0;
}

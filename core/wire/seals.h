/* seals.h -- what can still happen to a file that somebody passes. Thread: any. */
#ifndef LUPE_WIRE_SEALS_H
#define LUPE_WIRE_SEALS_H

#include <fcntl.h>
#include <stdbool.h>

/* Whether all of these F_SEAL_* hold for good. A file that knows no seals has none. */
static inline bool lupe_has_seals(int fd, int needed) {
  int seals = fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & needed) == needed;
}

#endif

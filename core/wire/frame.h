/* frame.h -- what goes over a stream socket between the runtime and its worker, and between the runtime and
 * the program that it is embedded in: a length (4 bytes, this machine's byte order), then so many bytes; with
 * the first byte may come one file descriptor. Thread: any, one at a time per struct. */
#ifndef LUPE_WIRE_FRAME_H
#define LUPE_WIRE_FRAME_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

enum { LUPE_FRAME_MAX_BYTES = 64 << 20 };

/* A frame on its way in; zeroed at first except for `fd`, which is -1. */
typedef struct lupe__frame {
  size_t received; /* of length and body */
  unsigned char length[4];
  uint32_t bytes; /* of the body */
  char *body;     /* owned; NUL behind it; NULL where bytes is 0 */
  int fd;         /* owned, CLOEXEC; -1: none came */
} lupe__frame;

/* Reads on. LUPE_OK: the frame is whole; LUPE_EAGAIN: more is to come (not when `wait`); LUPE_ENOENT: the
 * other side is gone; LUPE_ECORRUPT: too long; LUPE_ENOMEM. */
lupe_status lupe__frame_read(lupe__frame *f, int socket, bool wait);
void lupe__frame_clear(lupe__frame *f); /* frees what it holds; ready for the next */

/* Writes on from *sent (0 at first), which it moves. `fd` (-1: none) goes with the first byte. LUPE_OK: all
 * is sent; LUPE_EAGAIN: the socket is full (not when `wait`); LUPE_ENOENT: the other side is gone. */
lupe_status lupe__frame_write(int socket, const void *body, uint32_t bytes, int fd, size_t *sent, bool wait);
#endif

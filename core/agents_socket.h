/* agents_socket.h -- where agents find the runtime: a path in a folder that only the right users reach.
 * Thread: the loop's. */
#ifndef LUPE_AGENTS_SOCKET_H
#define LUPE_AGENTS_SOCKET_H

#include <stdbool.h>
#include <stddef.h>

#include "core/lupe.h"

enum { LUPE_SOCKET_PATH_BYTES = 108 /* of sockaddr_un, with its NUL */ };

typedef struct lupe_agents_socket {
  char path[LUPE_SOCKET_PATH_BYTES];
  char folder[LUPE_SOCKET_PATH_BYTES]; /* "" where it is to stay */
  int lock; /* of the path, or of the folder: held for as long as they are ours. -1: none */
} lupe_agents_socket;

/* A path that nobody has, in a folder (0700) of its own under XDG_RUNTIME_DIR or /tmp, which is locked for as
 * long as it is used. Folders there whose runtime was killed some minutes ago or more are removed before.
 * LUPE_EIO, explained in `error`. */
lupe_status lupe_agents_socket_make(lupe_agents_socket *out, char *error, size_t error_bytes);

/* A path that others know. Its folder is made where it is missing: 0700, or with `shared`, where other users'
 * programs are to connect, 0755; else it must be ours, and nobody else's to write to. The folders around it
 * must be such that nobody could put another one in its place (safe_way.h). What a runtime that died left at
 * the path is removed. Errors are explained in `error`: LUPE_EINUSE: a runtime listens there;
 * LUPE_EINVAL: the path is no good; LUPE_EPERM: the folder is not safe; LUPE_EIO. */
lupe_status lupe_agents_socket_claim(lupe_agents_socket *out, const char *path, bool shared, char *error,
                                     size_t error_bytes);

/* After the socket itself was closed and removed. */
void lupe_agents_socket_release(lupe_agents_socket *s);

#endif

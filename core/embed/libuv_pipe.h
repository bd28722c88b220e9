/* libuv_pipe.h -- the two descriptors that libuv keeps in the program's table.
 * libuv makes a pipe at its first loop, and has a fork handler that closes these two numbers in the child and
 * makes another pipe. Where the program has closed them and opened files of its own there, the child would
 * lose those.
 * Thread: the link's, before it has a descriptor table of its own. */
#ifndef LUPE_EMBED_LIBUV_PIPE_H
#define LUPE_EMBED_LIBUV_PIPE_H

#include "core/lupe.h"

/* Has libuv make that pipe now, in the caller's descriptor table, with fork handlers of ours around libuv's:
 * what is the program's on these numbers stays there in forked children. `library`: a handle that libuv's
 * functions are found by. Where libuv was used before, nothing of it changes. LUPE_EIO: too few descriptors
 * are left, or libuv is not usable; LUPE_ENOMEM. May be called again after both. */
lupe_status lupe__libuv_settle(void *library);

#endif

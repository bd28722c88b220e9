/* runtime_thread.h -- the runtime inside of this process: liblupe-runtime.so, and a thread that it runs on.
 * Thread: the link's, for everything here. */
#ifndef LUPE_EMBED_RUNTIME_THREAD_H
#define LUPE_EMBED_RUNTIME_THREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

/* Opens the library, once in a process's life. While the caller has the program's descriptor table still:
 * libuv keeps two descriptors, and closes them in forked children by their numbers. LUPE_EUNSUPPORTED: the
 * program has a Lua of its own where everybody sees it; LUPE_ENOENT: the library is not there, or not whole;
 * LUPE_EINUSE: a runtime that did not end in time still has not. `why` is written then. */
lupe_status lupe__runtime_load(char *why, size_t why_bytes);

/* Starts the thread, "lupe", with the runtime's ends of the link: it has its own copy of the caller's
 * descriptor table, closes `not_mine` in it, and the caller may close `calls` and `events` in its own when
 * this returns. LUPE_ENOMEM; LUPE_EUNSUPPORTED: it cannot have a table of its own; `why` is written
 * then. */
lupe_status lupe__runtime_run(int calls, int events, const int not_mine[2], char *why, size_t why_bytes);

/* Waits for its end. False: it has not ended in time. */
bool lupe__runtime_join(int64_t wait_ms);

/* In a forked child, which has no such thread. */
void lupe__runtime_forget(void);

#endif

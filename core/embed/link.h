/* link.h -- the front's end of the link with the runtime (embedded.h): a thread that has the sockets, and
 * calls that other threads put to it.
 *
 * The thread, "lupe-link", has a descriptor table of its own. So the program does not see the link's ends,
 * cannot close them, and its children do not inherit them: whatever the program does, the runtime's end sees
 * this process end. One link at a time. */
#ifndef LUPE_EMBED_LINK_H
#define LUPE_EMBED_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/embed/embedded.h"
#include "core/lupe.h"

enum { LUPE__TEXTS_MAX = 4 };

typedef struct lupe__reply {
  char *body; /* owned; NULL: none */
  size_t count;
  const char *texts[LUPE__TEXTS_MAX]; /* point into body; "" from `count` on */
} lupe__reply;

void lupe__reply_clear(lupe__reply *r);

/* Starts the thread, and by it a runtime: in a thread or as a process (LUPE_MODE_IN_PROCESS, _HELPER).
 * Returns when it may be called. Explains failures. Thread: that of lupe_start. */
lupe_status lupe__link_open(lupe_mode mode);

/* Asks, and waits for the answer, at most a minute. The status is the runtime's; what it explains is kept for
 * lupe_error. LUPE_ENOENT: there is no link, or it ended meanwhile. `reply` (zeroed, may be NULL) is written
 * on LUPE_OK. Thread: any but lupe's own. */
lupe_status lupe__link_call(lupe_embedded_op op, const char *const *texts, size_t count, lupe__reply *reply);

/* Has the runtime stop, and ends the thread; calls under way are answered LUPE_ENOENT. A runtime that does
 * not end within `wait_ms` is left to itself, and false is returned. Without `joins` it is enough that the
 * thread has done its work: a program that exits may hold what the last steps of a thread need. Thread: that
 * of lupe_stop. */
bool lupe__link_close(int64_t wait_ms, bool joins);

/* In a forked child: there is no thread, no socket and no runtime here. */
void lupe__link_forget(void);

#endif

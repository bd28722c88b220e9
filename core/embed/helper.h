/* helper.h -- the runtime as a process of its own, `lupe embedded`, that this one starts and ends.
 * Thread: the link's, for everything here. */
#ifndef LUPE_EMBED_HELPER_H
#define LUPE_EMBED_HELPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

/* Starts it with the runtime's ends of the link. LUPE_ENOENT: there is no program; LUPE_EIO,
 * LUPE_EUNSUPPORTED, LUPE_ENOMEM. `why` is written then. */
lupe_status lupe__helper_start(int calls, int events, char *why, size_t why_bytes);

/* Waits for its end: false where that takes longer. It is killed then, or where it is not to be, goes on: it
 * has a moment more once this process has ended. */
bool lupe__helper_end(int64_t wait_ms, bool kills);

#endif

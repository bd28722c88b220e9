/* heap_pages.h -- has jemalloc give back pages that hold nothing: now, or after a time of its own. */
#ifndef LUPE_AGENT_HEAP_PAGES_H
#define LUPE_AGENT_HEAP_PAGES_H

#include <stdint.h>

#include "core/wire/message.h"

/* ---- All arenas, one at a call: *arena is 0 at the beginning, and counted up. ----
 * EINPROGRESS: there are more, to be called again; 0 or an errno at the end; ENOTSUP where jemalloc is not
 * the allocator, or is to be left alone. A call takes as long as its arena gives back (about 1 ms per 4 MiB),
 * and nothing can interrupt it. Threads of the program that free meanwhile do not wait for it. One call at a
 * time; thread: the agent's. */

/* Gives back all pages that hold nothing. */
int lupe_heap_purge(uint32_t *arena);

/* How long pages that hold nothing are kept, in arenas to come as well; LUPE_DECAY_NEVER, LUPE_DECAY_SAME.
 * jemalloc's arena for huge blocks goes on with giving back at once, where it does. */
int lupe_heap_set_decay(int32_t dirty_ms, int32_t muzzy_ms, uint32_t *arena);

/* ---- Around fork, on the thread that forks. ---- */

/* An arena that gives back is waited for, 20 ms at most: in a child forked meanwhile it never would again. */
void lupe_heap_pages_before_fork(void);
void lupe_heap_pages_after_fork(void);          /* in the parent */
void lupe_heap_pages_after_fork_in_child(void); /* forgets what was true of the parent only */

#endif

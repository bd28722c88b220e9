/* marks.h -- the agent's side of wire/marks.h: the segment of the session that runs, and who has which of its
 * blocks.
 *
 * A thread writes to its blocks without asking whether the session still runs, so a segment's memory cannot
 * just be unmapped. There are two places for segments, used in turns, and reserved for the life of the
 * process: what ends is replaced by memory of nobody's. A thread that was held up in the midst of a span's
 * end writes into that; only one that slept through two starts could write into a segment of another session.
 * The same is done in a forked child. */
#ifndef LUPE_AGENT_MARKS_H
#define LUPE_AGENT_MARKS_H

#include <stddef.h>
#include <stdint.h>

#include "core/agent/wiped.h"
#include "core/lupe.h"
#include "core/wire/marks.h"

/* Begins a session: spans are counted from now on, and *out_fd is what the runtime is to be given (the
 * caller's). LUPE_ENOMEM or LUPE_EIO: they are not. Thread: the agent's. */
lupe_status lupe_marks_open(int *out_fd);
/* Ends it, if there is one: its memory is given back. Thread: the agent's. */
void lupe_marks_close(void);
/* Now and then: makes durations more exact, while a session runs. Thread: the agent's. */
void lupe_marks_refresh(void);
/* On the thread that forked: the parent's memory is let go. */
void lupe_marks_after_fork_in_child(void);

/* The session that runs here; 0: none. Thread: any, handlers too. */
static inline uint32_t lupe_marks_session(void) {
  const lupe_wiped *page = lupe_wiped_page;
  return page ? atomic_load_explicit(&page->marks_session, memory_order_acquire) : 0;
}
/* Its segment, or NULL. What is written there after its end goes nowhere. Thread: any, handlers too. */
lupe_marks *lupe_marks_segment(void);

/* ---- Blocks. Thread: any. ---- */

/* A block for the spans that the calling thread ends under a name in that session, whose segment goes to
 * *out_segment; NULL, counted: there is none left, or no memory for it. Makes a system call for a new one. */
lupe_span_block *lupe_marks_take_block(uint32_t session, uint32_t number, lupe_marks **out_segment);
/* Gives it back, for other threads. Nothing happens when the session is over. */
void lupe_marks_give_block(uint32_t session, uint32_t number, const lupe_span_block *block);

#endif

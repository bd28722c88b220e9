/* events.h -- the host's callback: what the runtime tells, and the thread that it is told on. */
#ifndef LUPE_EMBED_EVENTS_H
#define LUPE_EMBED_EVENTS_H

#include <stdbool.h>

#include "core/lupe.h"
#include "core/wire/frame.h"

struct uv_loop_s;

/* From here on events are taken; `loop`: as in lupe_options. LUPE_EUNSUPPORTED: the program has no libuv that
 * can be found; LUPE_ENOMEM, LUPE_EIO; explained. Thread: that of lupe_start. */
lupe_status lupe__events_begin(struct uv_loop_s *loop);

/* An event's frame, taken over. What comes faster than the callback takes it is dropped. Thread: the link's
 * reader. */
void lupe__events_take(lupe__frame *frame);

/* No callback any more: returns when the last one has returned, unless this is called in it; and when the
 * thread has ended, unless this is it. Thread: any. */
void lupe__events_end(void);

/* Whether the calling thread is lupe's own, and amid a callback. */
bool lupe__events_on_own_thread(void);

/* Whether somebody wants to be told. */
bool lupe__events_wanted(void);

/* In a forked child: there is no thread, and nothing is waited for. */
void lupe__events_forget(void);

#endif

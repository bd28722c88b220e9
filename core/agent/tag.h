/* tag.h -- lupe_tag_enter and lupe_tag_leave of lupe.h, and the frames that stacks get for them: behind the
 * thread's first function, innermost tag first.
 * Whoever asks runs on the same thread: inside malloc, or in a signal handler that has interrupted the two in
 * any place. It finds the tags as they were before or as they are after. */
#ifndef LUPE_AGENT_TAG_H
#define LUPE_AGENT_TAG_H

#include <stddef.h>
#include <stdint.h>

enum { LUPE_TAGS_MAX = 8 };

/* How many tags the calling thread is in, at most LUPE_TAGS_MAX. No system call, no allocation; so the next.
 * Thread: any, also inside malloc and in signal handlers. */
size_t lupe_tag_count(void);

/* Writes their frames to `out`, which has room for lupe_tag_count() of them. */
void lupe_tag_frames(uint64_t *out);

#endif

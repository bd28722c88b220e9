/* line_finder.h -- has the pool look for the lines of new frames: a batch at a time, beside the
 * collector's jobs, and with pauses, so that a program with much debug information costs no more than a fixed
 * share of one core; a much smaller one once all frames that matter have theirs. Owner and thread: the loop.
 */
#ifndef LUPE_STORE_LINE_FINDER_H
#define LUPE_STORE_LINE_FINDER_H

#include <stdbool.h>

#include "core/lupe.h"
#include "core/pool.h"
#include "core/store/aggregator.h"

typedef struct lupe_line_finder lupe_line_finder;

/* `idle` is called whenever a batch has ended. */
lupe_status lupe_line_finder_create(lupe_line_finder **out, lupe_pool *pool, lupe_aggregator *a,
                                    void (*idle)(void *arg), void *arg);
void lupe_line_finder_free(lupe_line_finder *f); /* not while it looks; NULL is a no-op */

/* Begins to look for what is new, unless it does so already or has just done. */
void lupe_line_finder_look(lupe_line_finder *f);
bool lupe_line_finder_idle(const lupe_line_finder *f);

#endif

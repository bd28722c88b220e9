/* heap_parser.h -- reads jemalloc's heap_v2 text as a stream, in pieces of any size.
 *
 *   heap_v2/PERIOD
 *     t*: OBJECTS: BYTES [OBJECTS: BYTES]          the whole, then one such line per thread
 *   @ ADDRESS ADDRESS ...                          a stack, leaf first, and its figures likewise
 *     t*: OBJECTS: BYTES [OBJECTS: BYTES]
 *                                                  an empty line
 *   MAPPED_LIBRARIES:                              and /proc/PID/maps
 *
 * The text comes from another process and is believed in nothing: lines, depths and numbers are
 * bounded, and the first thing that breaks the form ends the parse with a message that names the byte.
 * Memory: one line. Thread: one at a time. */
#ifndef LUPE_STORE_HEAP_PARSER_H
#define LUPE_STORE_HEAP_PARSER_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

enum {
  LUPE_HEAP_LINE_MAX = 32768,        /* a path of 4,095 bytes, each escaped to four, fits */
  LUPE_HEAP_STACKS_MAX = 1 << 21,    /* of one dump */
  LUPE_HEAP_DEPTH_WRITTEN_MAX = 512, /* frames in a line; those past LUPE_MAX_FRAMES are cut off */
};

typedef struct lupe_heap_parser lupe_heap_parser;

/* One stack with live objects. `objects` and `bytes` as printed; the inuse figures corrected for sampling. */
typedef struct lupe_heap_stack {
  const uint64_t *addresses; /* return addresses, leaf first; valid during the call */
  size_t depth;              /* 1 .. LUPE_MAX_FRAMES; a stack printed empty has one address, 0 */
  uint64_t objects, bytes;
  double inuse_objects, inuse_space;
  double samples; /* sampled objects that live: what is printed is corrected down to it */
} lupe_heap_stack;

/* Any of these may be NULL. A status other than LUPE_OK ends the parse and is what feed returns. */
typedef struct lupe_heap_events {
  lupe_status (*period)(void *arg, uint64_t bytes);
  lupe_status (*stack)(void *arg, const lupe_heap_stack *stack);
  lupe_status (*mapping)(void *arg, const char *line, size_t bytes); /* without newline, not terminated */
  void *arg;
} lupe_heap_events;

lupe_status lupe_heap_parser_create(lupe_heap_parser **out, const lupe_heap_events *events);
void lupe_heap_parser_free(lupe_heap_parser *p); /* NULL is a no-op */

/* The next piece. After an error every call returns that error again. LUPE_ECORRUPT: not heap_v2. */
lupe_status lupe_heap_parser_feed(lupe_heap_parser *p, const char *text, size_t bytes);
/* The text is over. LUPE_ECORRUPT where it ends before the list of mappings. */
lupe_status lupe_heap_parser_finish(lupe_heap_parser *p);
/* What was wrong, where, and what was expected; "" before an error. Valid until free. */
const char *lupe_heap_parser_error(const lupe_heap_parser *p);

/* What a sampled stack's figures stand for. jemalloc samples a byte in `period`, so an object of `mean`
 * bytes is seen with probability 1-exp(-mean/period); dumps (prof_unbias) are printed such that this
 * factor over a whole stack gives back its objects and bytes. >= 1; finite for mean > 0 and period > 0,
 * else 1. */
double lupe_heap_correction(double mean_bytes, double period_bytes);

#endif

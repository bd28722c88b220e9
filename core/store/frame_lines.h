/* frame_lines.h -- file, line and inlined calls of frames, by the index that a frame has in the stack table,
 * as far as they have been looked for. Owner: frame_names.c. Thread: one at a time (the aggregator's `work`).
 * Bounded: texts by LUPE_LINE_TEXT_BYTES; what comes after that is "". */
#ifndef LUPE_STORE_FRAME_LINES_H
#define LUPE_STORE_FRAME_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/line_batch.h"
#include "core/store/text_store.h"

enum { LUPE_LINE_TEXT_BYTES = 16 << 20 };

typedef enum lupe_line_state {
  LUPE_LINE_UNASKED = 0,
  LUPE_LINE_WANTED = 1, /* likewise, and comes first */
  LUPE_LINE_ASKED = 2,  /* a batch is looking for it */
  LUPE_LINE_KNOWN = 3,  /* as far as it ever will be */
} lupe_line_state;

typedef struct lupe_frame_line {
  uint32_t file, line;   /* text number, 0 unknown; of the function's own code */
  uint32_t inline_first; /* index into inlines, innermost first */
  uint16_t inline_count;
  uint8_t state; /* lupe_line_state */
} lupe_frame_line;

typedef struct lupe_inlined {
  uint32_t name, file, line; /* text numbers */
} lupe_inlined;

/* Embedded in its owner. All zero is an empty table. */
typedef struct lupe_frame_lines {
  lupe_frame_line *rows; /* by frame index */
  uint32_t count, capacity;
  uint32_t open, wanted; /* rows that are unasked or wanted; of these, wanted */
  lupe_inlined *inlines;
  uint32_t inline_count, inline_capacity;
  lupe_text_store texts; /* read with lupe_text_store_at */
} lupe_frame_lines;

/* Makes room for frames up to `count`; new ones are unasked. LUPE_ENOMEM. */
lupe_status lupe_frame_lines_grow(lupe_frame_lines *l, uint32_t count);
/* These frames come first in the next batch. */
void lupe_frame_lines_want(lupe_frame_lines *l, const uint32_t *frames, size_t count);
void lupe_frame_lines_set_state(lupe_frame_lines *l, uint32_t frame, lupe_line_state state);
/* Takes over what a batch found of one frame. */
void lupe_frame_lines_take(lupe_frame_lines *l, const lupe_line_batch *b, const lupe_line_answer *answer);
void lupe_frame_lines_clear(lupe_frame_lines *l);

#endif

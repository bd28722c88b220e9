#include "core/store/frame_lines.h"

#include <stdlib.h>
#include <string.h>

static bool is_open(uint8_t state) {
  return state == LUPE_LINE_UNASKED || state == LUPE_LINE_WANTED;
}

lupe_status lupe_frame_lines_grow(lupe_frame_lines *l, uint32_t count) {
  if (count > l->capacity) {
    uint32_t capacity = count + count / 4;
    lupe_frame_line *rows = realloc(l->rows, capacity * sizeof *rows);
    if (!rows) return LUPE_ENOMEM;
    l->rows = rows;
    l->capacity = capacity;
  }
  if (count > l->count) {
    memset(l->rows + l->count, 0, (count - l->count) * sizeof *l->rows);
    l->open += count - l->count;
    l->count = count;
  }
  return LUPE_OK;
}

void lupe_frame_lines_set_state(lupe_frame_lines *l, uint32_t frame, lupe_line_state state) {
  uint8_t *now = &l->rows[frame].state;
  l->open += (uint32_t)is_open((uint8_t)state) - (uint32_t)is_open(*now);
  l->wanted += (uint32_t)(state == LUPE_LINE_WANTED) - (uint32_t)(*now == LUPE_LINE_WANTED);
  *now = (uint8_t)state;
}

void lupe_frame_lines_want(lupe_frame_lines *l, const uint32_t *frames, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (frames[i] < l->count && l->rows[frames[i]].state == LUPE_LINE_UNASKED)
      lupe_frame_lines_set_state(l, frames[i], LUPE_LINE_WANTED);
  }
}

static uint32_t take_text(lupe_frame_lines *l, const lupe_line_batch *b, uint32_t number) {
  return lupe_text_store_put(&l->texts, lupe_text_store_at(&b->texts, number), LUPE_LINE_TEXT_BYTES);
}

/* Room for all inlined calls of a frame, or none. */
static bool make_room(lupe_frame_lines *l, uint32_t more) {
  if (l->inline_capacity - l->inline_count >= more) return true;
  uint32_t capacity = 2 * l->inline_capacity + more;
  lupe_inlined *inlines = realloc(l->inlines, capacity * sizeof *inlines);
  if (!inlines) return false;
  l->inlines = inlines;
  l->inline_capacity = capacity;
  return true;
}

void lupe_frame_lines_take(lupe_frame_lines *l, const lupe_line_batch *b, const lupe_line_answer *answer) {
  lupe_frame_line *row = &l->rows[answer->frame];
  lupe_frame_lines_set_state(l, answer->frame, LUPE_LINE_KNOWN);
  row->file = take_text(l, b, answer->file);
  row->line = answer->line;
  if (!make_room(l, answer->inline_count)) return;
  row->inline_first = l->inline_count;
  row->inline_count = (uint16_t)answer->inline_count;
  for (uint32_t i = 0; i < answer->inline_count; i++) {
    const lupe_line_inline *call = &b->inlines[answer->inline_first + i];
    l->inlines[l->inline_count++] =
        (lupe_inlined){take_text(l, b, call->name), take_text(l, b, call->file), call->line};
  }
}

void lupe_frame_lines_clear(lupe_frame_lines *l) {
  free(l->rows);
  free(l->inlines);
  lupe_text_store_clear(&l->texts);
  *l = (lupe_frame_lines){0};
}

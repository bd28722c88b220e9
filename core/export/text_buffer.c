#include "core/export/text_buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 1 << 14 };

void lupe_text_add(lupe_text_buffer *b, const void *bytes, size_t count) {
  if (b->failed) return;
  if (b->capacity - b->count < count) {
    size_t capacity = b->capacity ? 2 * b->capacity : FIRST_BYTES;
    while (capacity - b->count < count) capacity *= 2;
    char *grown = realloc(b->bytes, capacity);
    if (!grown) {
      b->failed = true;
      return;
    }
    b->bytes = grown;
    b->capacity = capacity;
  }
  memcpy(b->bytes + b->count, bytes, count);
  b->count += count;
}

void lupe_text_add_string(lupe_text_buffer *b, const char *text) {
  lupe_text_add(b, text, strlen(text));
}

void lupe_text_format(lupe_text_buffer *b, const char *format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  int n = vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (n > 0) lupe_text_add(b, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

lupe_status lupe_text_finish(lupe_text_buffer *b, char **out, size_t *out_bytes) {
  lupe_text_add(b, "", 1); /* so that there is a block also where there is no text */
  if (b->failed) {
    free(b->bytes);
    return LUPE_ENOMEM;
  }
  *out = b->bytes;
  *out_bytes = b->count - 1;
  return LUPE_OK;
}

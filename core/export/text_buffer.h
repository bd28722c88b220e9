/* text_buffer.h -- bytes that grow. Owner and thread: its maker. Where memory runs out it only notes that. */
#ifndef LUPE_EXPORT_TEXT_BUFFER_H
#define LUPE_EXPORT_TEXT_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/lupe.h"

/* Embedded; all zero is empty. */
typedef struct lupe_text_buffer {
  char *bytes; /* malloc'd */
  size_t count, capacity;
  bool failed;
} lupe_text_buffer;

void lupe_text_add(lupe_text_buffer *b, const void *bytes, size_t count);
void lupe_text_add_string(lupe_text_buffer *b, const char *text);
/* A line of at most 255 bytes. */
void lupe_text_format(lupe_text_buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Hands the bytes over, or frees them and returns LUPE_ENOMEM. */
lupe_status lupe_text_finish(lupe_text_buffer *b, char **out, size_t *out_bytes);

#endif

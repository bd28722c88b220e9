#include "core/embed/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { SENTENCE_BYTES = 2048 };

static _Thread_local char sentence[SENTENCE_BYTES];

lupe_status lupe__fail(lupe_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(sentence, sizeof sentence, format, args);
  va_end(args);
  return status;
}

const char *lupe_error(void) {
  return sentence;
}

const char *lupe_version(void) {
  return LUPE_VERSION;
}

void lupe_free(void *text) {
  free(text);
}

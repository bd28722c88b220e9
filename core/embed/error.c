#include "core/embed/error.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { SENTENCE_BYTES = 2048 };

/* Not thread-local storage: the agent's has to be in the part that the loader gives away at start, where a
 * library that is opened later finds little room. */
static pthread_key_t sentences;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int there;

static void make_key(void) {
  there = pthread_key_create(&sentences, free) == 0;
}

lupe_status lupe__fail(lupe_status status, const char *format, ...) {
  va_list args;
  pthread_once(&once, make_key);
  char *sentence = there ? pthread_getspecific(sentences) : NULL;
  if (there && !sentence) {
    sentence = malloc(SENTENCE_BYTES);
    if (sentence && pthread_setspecific(sentences, sentence) != 0) {
      free(sentence);
      sentence = NULL;
    }
  }
  if (!sentence) return status;
  va_start(args, format);
  vsnprintf(sentence, SENTENCE_BYTES, format, args);
  va_end(args);
  return status;
}

const char *lupe_error(void) {
  pthread_once(&once, make_key);
  const char *sentence = there ? pthread_getspecific(sentences) : NULL;
  return sentence ? sentence : "";
}

const char *lupe_version(void) {
  return LUPE_VERSION;
}

void lupe_free(void *text) {
  free(text);
}

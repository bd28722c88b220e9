#include "core/store/seconds.h"

#include <stdlib.h>
#include <string.h>

struct lupe_seconds {
  size_t record_bytes, first, count;
  int64_t from;
  void (*drop)(void *arg, void *record);
  void *arg;
  _Alignas(max_align_t) char records[];
};

lupe_status lupe_seconds_create(lupe_seconds **out, size_t record_bytes,
                                void (*drop)(void *arg, void *record), void *arg) {
  lupe_seconds *s = calloc(1, sizeof *s + LUPE_SECONDS_MAX * record_bytes);
  if (!s) return LUPE_ENOMEM;
  s->record_bytes = record_bytes;
  s->from = INT64_MIN;
  s->drop = drop;
  s->arg = arg;
  *out = s;
  return LUPE_OK;
}

void lupe_seconds_free(lupe_seconds *s) {
  if (!s) return;
  while (s->count > 0) lupe_seconds_drop_oldest(s);
  free(s);
}

size_t lupe_seconds_count(const lupe_seconds *s) {
  return s->count;
}

static void *record_at(const lupe_seconds *s, size_t i) {
  return (char *)s->records + (s->first + i) % LUPE_SECONDS_MAX * s->record_bytes;
}

static int64_t second_at(const lupe_seconds *s, size_t i) {
  return *(const int64_t *)record_at(s, i);
}

void *lupe_seconds_at(const lupe_seconds *s, size_t i) {
  return record_at(s, i);
}

/* The place of the first record that is not before `second`, or where one would go. */
static size_t place_of(const lupe_seconds *s, int64_t second) {
  size_t at = s->count;
  while (at > 0 && second_at(s, at - 1) >= second) at--;
  return at;
}

void *lupe_seconds_find(const lupe_seconds *s, int64_t second) {
  size_t at = place_of(s, second);
  return at < s->count ? record_at(s, at) : NULL;
}

void *lupe_seconds_add(lupe_seconds *s, int64_t second) {
  if (s->count > 0 && second_at(s, s->count - 1) - second >= LUPE_SECONDS_MAX) return NULL;
  while (s->count > 0 && second_at(s, 0) <= second - LUPE_SECONDS_MAX) lupe_seconds_drop_oldest(s);
  /* There is room: all are less than LUPE_SECONDS_MAX apart. */
  size_t at = place_of(s, second);
  for (size_t i = s->count++; i > at; i--) memcpy(record_at(s, i), record_at(s, i - 1), s->record_bytes);
  char *made = record_at(s, at);
  memset(made, 0, s->record_bytes);
  memcpy(made, &second, sizeof second);
  return made;
}

void lupe_seconds_drop_oldest(lupe_seconds *s) {
  void *oldest = record_at(s, 0);
  s->from = second_at(s, 0) + 1;
  s->drop(s->arg, oldest);
  s->first = (s->first + 1) % LUPE_SECONDS_MAX;
  s->count--;
}

int64_t lupe_seconds_from(const lupe_seconds *s) {
  return s->from;
}

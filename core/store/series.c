#include "core/store/series.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_ROWS = 16 };

struct lupe_series {
  lupe_memory_figures *rows;
  size_t capacity;     /* rows at most */
  size_t room;         /* rows that fit now */
  size_t first, count; /* `first`: where the oldest row is */
};

lupe_status lupe_series_create(lupe_series **out, size_t capacity) {
  if (capacity == 0) return LUPE_EINVAL;
  lupe_series *s = calloc(1, sizeof *s);
  if (!s) return LUPE_ENOMEM;
  s->capacity = capacity;
  *out = s;
  return LUPE_OK;
}

void lupe_series_free(lupe_series *s) {
  if (!s) return;
  free(s->rows);
  free(s);
}

static void grow(lupe_series *s) {
  size_t room = s->room ? 2 * s->room : FIRST_ROWS;
  if (room > s->capacity) room = s->capacity;
  lupe_memory_figures *rows = malloc(room * sizeof *rows);
  if (!rows) return; /* then the ring stays as large as it is */
  size_t count = lupe_series_copy(s, rows, s->count);
  free(s->rows);
  s->rows = rows;
  s->room = room;
  s->first = 0;
  s->count = count;
}

bool lupe_series_append(lupe_series *s, const lupe_memory_figures *row, bool may_grow) {
  if (s->count == s->room && s->room < s->capacity && may_grow) grow(s);
  if (s->room == 0) return false;
  s->rows[(s->first + s->count) % s->room] = *row;
  if (s->count < s->room)
    s->count++;
  else
    s->first = (s->first + 1) % s->room;
  return true;
}

size_t lupe_series_count(const lupe_series *s) {
  return s->count;
}

size_t lupe_series_room(const lupe_series *s) {
  return s->room;
}

size_t lupe_series_copy(const lupe_series *s, lupe_memory_figures *rows, size_t capacity) {
  size_t count = s->count < capacity ? s->count : capacity;
  size_t skip = s->count - count;
  for (size_t i = 0; i < count; i++) rows[i] = s->rows[(s->first + skip + i) % s->room];
  return count;
}

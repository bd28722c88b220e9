#include "core/export/string_table.h"

#include <stdlib.h>
#include <string.h>

#include "core/store/hash.h"

enum { FIRST_TEXTS = 256 };

static uint32_t slot_of(const lupe_string_table *t, const char *text) {
  uint32_t mask = (uint32_t)(2 * t->capacity - 1);
  uint32_t at = (uint32_t)lupe_hash_bytes(text, strlen(text)) & mask;
  while (t->slots[at] && strcmp(t->texts[t->slots[at] - 1], text) != 0) at = (at + 1) & mask;
  return at;
}

static lupe_status grow(lupe_string_table *t) {
  size_t capacity = t->capacity ? 2 * t->capacity : FIRST_TEXTS;
  uint32_t *slots = calloc(2 * capacity, sizeof *slots);
  const char **texts = slots ? realloc(t->texts, capacity * sizeof(char *)) : NULL;
  if (!texts) {
    free(slots);
    return LUPE_ENOMEM;
  }
  free(t->slots);
  t->slots = slots;
  t->texts = texts;
  t->capacity = capacity;
  for (size_t i = 0; i < t->count; i++) slots[slot_of(t, texts[i])] = (uint32_t)i + 1;
  return LUPE_OK;
}

lupe_status lupe_string_table_init(lupe_string_table *t) {
  return lupe_string_table_number(t, "") == 0 ? LUPE_OK : LUPE_ENOMEM;
}

void lupe_string_table_clear(lupe_string_table *t) {
  free(t->texts);
  free(t->slots);
  *t = (lupe_string_table){0};
}

uint32_t lupe_string_table_number(lupe_string_table *t, const char *text) {
  if (t->count == t->capacity && grow(t) != LUPE_OK) return UINT32_MAX;
  uint32_t at = slot_of(t, text);
  if (!t->slots[at]) {
    t->texts[t->count] = text;
    t->slots[at] = (uint32_t)++t->count;
  }
  return t->slots[at] - 1;
}

#include "core/store/text_store.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/hash.h"

enum {
  CHUNK_BYTES = 16 << 10,
  FIRST_CAPACITY = 64,
};

struct lupe__text_chunk {
  struct lupe__text_chunk *next;
  size_t used, capacity;
  char text[];
};

static const char **slot_of(const char **slots, size_t capacity, const char *text) {
  size_t at = (size_t)lupe_hash_bytes(text, strlen(text)) & (capacity - 1);
  while (slots[at] && strcmp(slots[at], text) != 0) at = (at + 1) & (capacity - 1);
  return &slots[at];
}

static bool grow(lupe_text_store *s, size_t limit_bytes) {
  size_t capacity = s->capacity ? 2 * s->capacity : FIRST_CAPACITY;
  size_t more = (capacity - s->capacity) * sizeof *s->slots;
  if (more > limit_bytes || s->bytes > limit_bytes - more) return false;
  const char **slots = calloc(capacity, sizeof *slots);
  if (!slots) return false;
  for (size_t i = 0; i < s->capacity; i++) {
    if (s->slots[i]) *slot_of(slots, capacity, s->slots[i]) = s->slots[i];
  }
  free(s->slots);
  s->slots = slots;
  s->capacity = capacity;
  s->bytes += more;
  return true;
}

static char *reserve(lupe_text_store *s, size_t bytes, size_t limit_bytes) {
  struct lupe__text_chunk *chunk = s->chunks;
  if (!chunk || chunk->capacity - chunk->used < bytes) {
    size_t capacity = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
    size_t whole = sizeof *chunk + capacity;
    if (whole > limit_bytes || s->bytes > limit_bytes - whole) return NULL;
    chunk = malloc(whole);
    if (!chunk) return NULL;
    *chunk = (struct lupe__text_chunk){.next = s->chunks, .capacity = capacity};
    s->chunks = chunk;
    s->bytes += whole;
  }
  char *text = chunk->text + chunk->used;
  chunk->used += bytes;
  return text;
}

const char *lupe_text_store_keep(lupe_text_store *s, const char *text, size_t limit_bytes) {
  if (!*text) return "";
  if (s->count * 4 >= s->capacity * 3 && !grow(s, limit_bytes)) return NULL;
  const char **slot = slot_of(s->slots, s->capacity, text);
  if (*slot) return *slot;
  size_t bytes = strlen(text) + 1;
  char *kept = reserve(s, bytes, limit_bytes);
  if (!kept) return NULL;
  memcpy(kept, text, bytes);
  *slot = kept;
  s->count++;
  return kept;
}

void lupe_text_store_clear(lupe_text_store *s) {
  while (s->chunks) {
    struct lupe__text_chunk *chunk = s->chunks;
    s->chunks = chunk->next;
    free(chunk);
  }
  free(s->slots);
  *s = (lupe_text_store){0};
}

#include "core/store/text_store.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/hash.h"

enum {
  CHUNK_BYTES = 16 << 10,
  FIRST_SLOTS = 64,
};

struct lupe__text_chunk {
  struct lupe__text_chunk *next;
  size_t used, capacity;
  char text[];
};

static uint32_t *slot_of(const lupe_text_store *s, const char *text) {
  uint32_t mask = s->slot_count - 1, at = (uint32_t)lupe_hash_bytes(text, strlen(text)) & mask;
  while (s->slots[at] && strcmp(s->texts[s->slots[at]], text) != 0) at = (at + 1) & mask;
  return &s->slots[at];
}

/* Room for half as many texts as there are slots. */
static bool grow(lupe_text_store *s, size_t limit_bytes) {
  uint32_t slot_count = s->slot_count ? 2 * s->slot_count : FIRST_SLOTS;
  size_t more = (slot_count - s->slot_count) * (sizeof *s->slots + sizeof *s->texts / 2);
  if (slot_count < s->slot_count || more > limit_bytes || s->bytes > limit_bytes - more) return false;
  const char **texts = realloc(s->texts, (slot_count / 2 + 1) * sizeof *texts);
  if (!texts) return false;
  s->texts = texts;
  uint32_t *slots = calloc(slot_count, sizeof *slots);
  if (!slots) return false;
  free(s->slots);
  s->slots = slots;
  s->slot_count = slot_count;
  for (uint32_t i = 1; i <= s->count; i++) *slot_of(s, s->texts[i]) = i;
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

uint32_t lupe_text_store_put(lupe_text_store *s, const char *text, size_t limit_bytes) {
  if (!*text) return 0;
  if (s->count >= s->slot_count / 2 && !grow(s, limit_bytes)) return 0;
  uint32_t *slot = slot_of(s, text);
  if (*slot) return *slot;
  size_t bytes = strlen(text) + 1;
  char *kept = reserve(s, bytes, limit_bytes);
  if (!kept) return 0;
  memcpy(kept, text, bytes);
  s->text_bytes += bytes;
  s->texts[++s->count] = kept;
  *slot = s->count;
  return s->count;
}

const char *lupe_text_store_at(const lupe_text_store *s, uint32_t number) {
  return number > 0 && number <= s->count ? s->texts[number] : "";
}

void lupe_text_store_clear(lupe_text_store *s) {
  while (s->chunks) {
    struct lupe__text_chunk *chunk = s->chunks;
    s->chunks = chunk->next;
    free(chunk);
  }
  free(s->texts);
  free(s->slots);
  *s = (lupe_text_store){0};
}

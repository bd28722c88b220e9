/* text_store.h -- texts that live as long as their store, each distinct one once.
 * Owner and thread: one at a time. Bounded by the caller. */
#ifndef LUPE_STORE_TEXT_STORE_H
#define LUPE_STORE_TEXT_STORE_H

#include <stddef.h>
#include <stdint.h>

/* Embedded in its owner. All zero is an empty store. */
typedef struct lupe_text_store {
  struct lupe__text_chunk *chunks;
  const char **slots; /* open addressing; capacity is a power of two */
  size_t count, capacity;
  size_t bytes; /* of memory */
} lupe_text_store;

/* A copy of `text` that stays; the same one for the same text, "" for "". NULL when out of memory, or where
 * it would take the store past `limit_bytes`. */
const char *lupe_text_store_keep(lupe_text_store *s, const char *text, size_t limit_bytes);
void lupe_text_store_clear(lupe_text_store *s);

#endif

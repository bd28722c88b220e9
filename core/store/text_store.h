/* text_store.h -- texts that live as long as their store, each distinct one once, by number.
 * Owner and thread: one at a time. */
#ifndef LUPE_STORE_TEXT_STORE_H
#define LUPE_STORE_TEXT_STORE_H

#include <stddef.h>
#include <stdint.h>

/* Embedded in its owner. All zero is an empty store. */
typedef struct lupe_text_store {
  struct lupe__text_chunk *chunks;
  const char **texts; /* by number, from 1 on */
  uint32_t *slots;    /* numbers; open addressing, a power of two; 0 is an empty one */
  uint32_t count, slot_count;
  size_t bytes;      /* of memory */
  size_t text_bytes; /* of the texts, with their NULs */
} lupe_text_store;

/* The number of `text`, which is copied if it is new. 0 for "", and where there is no memory or it would take
 * the store past `limit_bytes`. */
uint32_t lupe_text_store_put(lupe_text_store *s, const char *text, size_t limit_bytes);
/* Stays where it is until the store is cleared. "" for 0. */
const char *lupe_text_store_at(const lupe_text_store *s, uint32_t number);
void lupe_text_store_clear(lupe_text_store *s);

#endif

#include "core/agent/mark_names.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "core/agent/marks.h"

enum {
  OTHERS = LUPE_MARK_NAMES_MAX - 1,
  TEXT_WORDS = LUPE_MARK_NAME_BYTES / 8,
  THERE = 2, /* lupe_mark_name.state */
};

typedef struct name {
  _Atomic uint64_t key; /* 0: free */
  _Atomic uint64_t place;
  _Atomic uint32_t there; /* 1: the text is complete */
  _Alignas(8) char text[LUPE_MARK_NAME_BYTES];
} name;

static name names[LUPE_MARK_NAMES_MAX];
static lupe_mark named[LUPE_MARK_NAMES_MAX]; /* of those that lupe_mark_named was asked for */

/* ---- texts ---- */

/* Cut where a character ends. */
static size_t told_bytes(const char *text) {
  size_t bytes = strnlen(text, LUPE_MARK_NAME_BYTES);
  if (bytes < LUPE_MARK_NAME_BYTES) return bytes;
  for (bytes--; bytes > 0 && (text[bytes] & 0xc0) == 0x80;) bytes--;
  return bytes;
}

static uint64_t key_of(const char *text, size_t bytes) {
  uint64_t key = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
  for (size_t i = 0; i < bytes; i++) key = (key ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
  return key != 0 ? key : 1;
}

/* ---- telling the runtime ---- */

static void raise_count(_Atomic uint32_t *name_count, uint32_t least) {
  uint32_t seen = atomic_load_explicit(name_count, memory_order_relaxed);
  while (seen < least && !atomic_compare_exchange_weak_explicit(name_count, &seen, least,
                                                                memory_order_release, memory_order_relaxed)) {
  }
}

/* Two threads may do so at once: both write the same. */
static void tell(lupe_marks *segment, uint32_t number) {
  const name *from = &names[number];
  lupe_mark_name *to = &segment->names[number];
  if (!atomic_load(&from->there)) return; /* whoever writes it will tell */
  for (size_t i = 0; i < TEXT_WORDS; i++) {
    __atomic_store_n((uint64_t *)to->text + i, ((const uint64_t *)from->text)[i], __ATOMIC_RELAXED);
  }
  atomic_store_explicit(&to->place, atomic_load_explicit(&from->place, memory_order_relaxed),
                        memory_order_relaxed);
  atomic_store_explicit(&to->state, THERE, memory_order_release);
  raise_count(&segment->name_count, number + 1);
}

/* The session is looked up after the name has changed: either it is this thread that tells it, or
 * lupe_mark_names_tell of a session that begins meanwhile. */
static void tell_now(uint32_t number) {
  lupe_marks *segment = lupe_marks_segment();
  if (segment) tell(segment, number);
}

void lupe_mark_names_tell(lupe_marks *segment) {
  for (uint32_t n = 0; n < LUPE_MARK_NAMES_MAX; n++) tell(segment, n);
}

/* ---- numbers ---- */

static void write_text(uint32_t number, const char *text, size_t bytes) {
  memcpy(names[number].text, text, bytes); /* zeros follow */
  atomic_store(&names[number].there, 1);
  tell_now(number);
}

static uint32_t others(void) {
  static const char text[] = "(others)";
  uint64_t none = 0;
  lupe_marks *segment = lupe_marks_segment();
  if (segment) atomic_fetch_add_explicit(&segment->names_lost, 1, memory_order_relaxed);
  if (atomic_compare_exchange_strong(&names[OTHERS].key, &none, 1)) write_text(OTHERS, text, sizeof text - 1);
  return OTHERS;
}

static uint32_t number_of(const char *text) {
  size_t bytes = told_bytes(text);
  uint64_t key = key_of(text, bytes);
  for (uint32_t n = 0; n < OTHERS; n++) {
    uint64_t seen = atomic_load_explicit(&names[n].key, memory_order_relaxed);
    if (seen == 0 && atomic_compare_exchange_strong(&names[n].key, &seen, key)) {
      write_text(n, text, bytes);
      return n;
    }
    if (seen == key) return n;
  }
  return others();
}

uint32_t lupe_mark_number(lupe_mark *mark) {
  unsigned id = __atomic_load_n(&mark->id, __ATOMIC_RELAXED);
  if (id != 0) return (id - 1) % LUPE_MARK_NAMES_MAX;
  uint32_t number = number_of(mark->name ? mark->name : "");
  __atomic_store_n(&mark->id, number + 1, __ATOMIC_RELAXED);
  return number;
}

void lupe_mark_begun(uint32_t number, uint64_t place) {
  uint64_t none = 0;
  if (atomic_compare_exchange_strong(&names[number].place, &none, place)) tell_now(number);
}

lupe_mark *lupe_mark_named(const char *text) {
  uint32_t number = number_of(text ? text : "");
  lupe_mark *mark = &named[number];
  __atomic_store_n(&mark->name, names[number].text, __ATOMIC_RELAXED);
  __atomic_store_n(&mark->id, number + 1, __ATOMIC_RELAXED);
  return mark;
}

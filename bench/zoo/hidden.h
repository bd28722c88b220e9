/* hidden.h -- what the families of hidden pointers share. Each scenario allocates some hundred blocks at a
 * site of its own over the first seconds, and keeps the only pointer to each in one hiding place until its
 * time is over. Then it takes them back, sees that every one is there and unharmed, and frees them: none was
 * ever lost. A block that does not come back ends the program by abort. Included once, by the program itself.
 */
#ifndef LUPE_BENCH_ZOO_HIDDEN_H
#define LUPE_BENCH_ZOO_HIDDEN_H

#include "background.h"

enum { HIDDEN_LEAST = 300, HIDDEN_MOST = 600 };

typedef struct hidden_block {
  uint64_t stamp;
  long serial;
  struct hidden_block *next; /* for the scenario's use */
  char rest[];
} hidden_block;

typedef struct hiding_place {
  hidden_block *(*allocate)(size_t bytes);        /* the scenario's site: hidden_new() */
  void (*hide)(long serial, hidden_block *block); /* called with 0, 1, 2 .. */
  hidden_block *(*take)(long serial);             /* as many times; in any order of blocks */
  void (*wait)(void);                             /* NULL: ticks until the time is over, and the rest */
} hiding_place;

static inline hidden_block *hidden_new(size_t bytes) {
  return (hidden_block *)zoo_used(malloc(sizeof(hidden_block) + bytes), bytes);
}

static inline uint64_t hidden_stamp(long serial) {
  return UINT64_C(0x68696464656e0000) ^ ((uint64_t)serial * UINT64_C(0x9e3779b97f4a7c15));
}

/* Writes over what earlier calls have left on the stack, pointers among it. */
__attribute__((noipa)) static void hidden_wipe_stack(void) {
  char left[32 * ZOO_KIB];
  memset(left, 0, sizeof left);
  zoo_kept(left);
}

__attribute__((noipa)) static void hidden_put(const hiding_place *place, long serial, size_t bytes) {
  hidden_block *block = place->allocate(bytes);
  block->stamp = hidden_stamp(serial);
  block->serial = serial;
  place->hide(serial, block);
}

static void hidden_run(const hiding_place *place) {
  static bool seen[HIDDEN_MOST];
  long count = zoo_between(HIDDEN_LEAST, HIDDEN_MOST), hidden = 0;
  size_t bytes = zoo_bytes(300, 3000);
  double rate = (double)count / zoo_uniform(1, 3);
  zoo_pace pace = {0};
  while (hidden < count && zoo_tick()) {
    for (long n = zoo_due(&pace, rate); n > 0 && hidden < count; n--) hidden_put(place, hidden++, bytes);
  }
  hidden_wipe_stack();
  if (place->wait) {
    place->wait();
  } else {
    while (zoo_tick()) {
    }
    zoo_rest();
  }
  for (long i = 0; i < hidden; i++) {
    hidden_block *block = place->take(i);
    long serial = block->serial;
    if (serial < 0 || serial >= hidden || seen[serial] || block->stamp != hidden_stamp(serial)) abort();
    seen[serial] = true;
    free(block);
  }
}

#endif

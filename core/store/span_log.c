#include "core/store/span_log.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/hash.h"
#include "core/store/seconds.h"

enum { FIRST_BYTES = 512, FIRST_SUMS = 32 };
#define NO_ROW UINT32_MAX
#define FIRST_OF_NAME (UINT32_C(1) << 31) /* in a slot */

typedef struct cell {
  uint32_t bucket, count;
} cell;

typedef struct entry {
  lupe_span_key key;
  uint64_t total_ns, longest_ns;
  uint32_t cell_count, unused;
  cell cells[];
} entry;

/* One second: entries one behind the other. */
typedef struct bucket {
  int64_t second;
  char *bytes;
  size_t used, room;
} bucket;

struct lupe_span_log {
  lupe_seconds *seconds; /* of buckets */
  size_t bytes;
};

static void drop_bucket(void *arg, void *record) {
  lupe_span_log *l = arg;
  bucket *b = record;
  l->bytes -= b->room;
  free(b->bytes);
}

lupe_status lupe_span_log_create(lupe_span_log **out) {
  lupe_span_log *l = calloc(1, sizeof *l);
  if (!l) return LUPE_ENOMEM;
  lupe_status status = lupe_seconds_create(&l->seconds, sizeof(bucket), drop_bucket, l);
  if (status != LUPE_OK) {
    free(l);
    return status;
  }
  *out = l;
  return LUPE_OK;
}

void lupe_span_log_free(lupe_span_log *l) {
  if (!l) return;
  lupe_seconds_free(l->seconds);
  free(l);
}

/* The first second that is not before `second`, or a new one. Readings come in order, but for a clock that
 * is set back: what is older is taken as of a second there is. */
static bucket *bucket_of(lupe_span_log *l, int64_t second) {
  bucket *known = lupe_seconds_find(l->seconds, second);
  return known ? known : lupe_seconds_add(l->seconds, second);
}

static bool make_room(lupe_span_log *l, bucket *b, size_t bytes) {
  if (b->used + bytes <= b->room) return true;
  size_t room = b->room ? 2 * b->room : FIRST_BYTES;
  while (room < b->used + bytes) room *= 2;
  char *grown = realloc(b->bytes, room);
  if (!grown) return false;
  l->bytes += room - b->room;
  b->bytes = grown;
  b->room = room;
  return true;
}

lupe_status lupe_span_log_add(lupe_span_log *l, int64_t second, const lupe_span_key *key,
                              const lupe_span_change *change) {
  bucket *b = bucket_of(l, second);
  uint32_t cells = 0;
  for (uint32_t i = 0; i < LUPE_SPAN_BUCKETS; i++) cells += change->buckets[i] > 0;
  size_t bytes = sizeof(entry) + cells * sizeof(cell);
  if (!make_room(l, b, bytes)) return LUPE_ENOMEM;
  entry *e = (entry *)(void *)(b->bytes + b->used);
  *e = (entry){
      .key = *key, .total_ns = change->total_ns, .longest_ns = change->longest_ns, .cell_count = cells};
  uint32_t at = 0;
  for (uint32_t i = 0; i < LUPE_SPAN_BUCKETS; i++) {
    if (change->buckets[i]) e->cells[at++] = (cell){i, change->buckets[i]};
  }
  b->used += bytes;
  while (l->bytes > LUPE_SPAN_LOG_BYTES && lupe_seconds_at(l->seconds, 0) != b)
    lupe_seconds_drop_oldest(l->seconds);
  if (l->bytes <= LUPE_SPAN_LOG_BYTES) return LUPE_OK;
  lupe_seconds_drop_oldest(l->seconds); /* one second that is too large by itself */
  return LUPE_ENOMEM;
}

static const entry *next_entry(const bucket *b, size_t *at) {
  if (*at >= b->used) return NULL;
  const entry *e = (const entry *)(const void *)(b->bytes + *at);
  *at += sizeof *e + e->cell_count * sizeof(cell);
  return e;
}

/* -- sums ------------------------------------------------------------------------------------- */

typedef struct summing {
  const lupe_span_owner *owners;
  size_t owner_count;
  lupe_span_sum *sums;
  uint32_t *slots; /* sum + 1, by row and name, and by the name alone for the first that has it */
  size_t count, room, slot_count;
} summing;

static const lupe_span_owner *owner_of(const summing *s, uint32_t number) {
  size_t low = 0, high = s->owner_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (s->owners[middle].number < number)
      low = middle + 1;
    else
      high = middle;
  }
  return low < s->owner_count && s->owners[low].number == number ? &s->owners[low] : NULL;
}

/* The slot of a row and name, or of the first row with that name (NO_ROW). The two kinds are told apart by
 * the upper bit. */
static uint32_t *slot_of(const summing *s, uint32_t row, uint32_t name) {
  const uint64_t key = (uint64_t)row << 32 | name;
  bool any = row == NO_ROW;
  for (size_t at = lupe_hash_mix(key) & (s->slot_count - 1);; at = (at + 1) & (s->slot_count - 1)) {
    uint32_t slot = s->slots[at];
    if (!slot) return &s->slots[at];
    const lupe_span_sum *sum = &s->sums[(slot & ~FIRST_OF_NAME) - 1];
    // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): slots name sums that were written
    if (sum->name != name || ((slot & FIRST_OF_NAME) != 0) != any) continue;
    if (any || sum->row == row) return &s->slots[at];
  }
}

static void enter(summing *s, uint32_t number) {
  const lupe_span_sum *sum = &s->sums[number - 1];
  *slot_of(s, sum->row, sum->name) = number;
  uint32_t *first = slot_of(s, NO_ROW, sum->name);
  if (!*first) *first = number | FIRST_OF_NAME;
}

static bool grow(summing *s) {
  size_t room = s->room ? 2 * s->room : FIRST_SUMS;
  lupe_span_sum *sums = realloc(s->sums, room * sizeof *sums);
  if (sums) s->sums = sums;
  uint32_t *slots = sums ? calloc(4 * room, sizeof *slots) : NULL;
  if (!slots) return false;
  free(s->slots);
  s->slots = slots;
  s->slot_count = 4 * room;
  s->room = room;
  for (uint32_t i = 1; i <= s->count; i++) enter(s, i);
  return true;
}

/* The sum that an entry belongs to; NULL: to none. False: no memory. */
static bool find_sum(summing *s, uint32_t row, uint32_t name, lupe_span_sum **out) {
  *out = NULL;
  if (s->count == s->room && s->count < LUPE_SPAN_SUMS_MAX && !grow(s)) return false;
  uint32_t known = *slot_of(s, row, name);
  if (!known && s->count == LUPE_SPAN_SUMS_MAX) {
    known = *slot_of(s, NO_ROW, name);
    if (!known) return true;
  }
  if (!known) {
    lupe_span_sum *sum = &s->sums[s->count++];
    memset(sum, 0, sizeof *sum);
    sum->row = row;
    sum->name = name;
    known = (uint32_t)s->count;
    enter(s, known);
  }
  *out = &s->sums[(known & ~FIRST_OF_NAME) - 1];
  return true;
}

static void add_entry(lupe_span_sum *sum, const entry *e) {
  // NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign): slots name sums that were written
  sum->total_ns += (double)e->total_ns;
  if ((double)e->longest_ns > sum->max_ns) sum->max_ns = (double)e->longest_ns;
  if (e->key.place != LUPE_FRAME_UNKNOWN) sum->place = e->key.place;
  for (uint32_t i = 0; i < e->cell_count; i++) {
    sum->buckets[e->cells[i].bucket] += e->cells[i].count;
    sum->count += e->cells[i].count;
  }
}

static int by_row_and_name(const void *a, const void *b) {
  const lupe_span_sum *x = a, *y = b;
  if (x->row != y->row) return x->row < y->row ? -1 : 1;
  return (x->name > y->name) - (x->name < y->name);
}

lupe_status lupe_span_log_sum(const lupe_span_log *l, int64_t from, int64_t to, const lupe_span_owner *owners,
                              size_t owner_count, lupe_span_sum **out, size_t *out_count) {
  summing s = {.owners = owners, .owner_count = owner_count};
  for (size_t i = 0; i < lupe_seconds_count(l->seconds); i++) {
    const bucket *b = lupe_seconds_at(l->seconds, i);
    size_t at = 0;
    const entry *e;
    if (b->second < from || b->second >= to) continue;
    while ((e = next_entry(b, &at))) {
      const lupe_span_owner *owner = owner_of(&s, e->key.target);
      lupe_span_sum *sum;
      if (!owner) continue;
      if (!find_sum(&s, owner->row, e->key.name, &sum)) {
        free(s.sums);
        free(s.slots);
        return LUPE_ENOMEM;
      }
      if (sum) add_entry(sum, e);
    }
  }
  free(s.slots);
  if (s.count > 0) qsort(s.sums, s.count, sizeof *s.sums, by_row_and_name);
  *out = s.sums;
  *out_count = s.count;
  return LUPE_OK;
}

/* -- the rest --------------------------------------------------------------------------------- */

void lupe_span_log_hand_over(lupe_span_log *l, const lupe_sample_heir *heirs, size_t count) {
  for (size_t i = 0; i < lupe_seconds_count(l->seconds); i++) {
    const bucket *b = lupe_seconds_at(l->seconds, i);
    size_t at = 0;
    entry *e;
    while ((e = (entry *)next_entry(b, &at))) {
      for (size_t k = 0; k < count; k++) {
        if (heirs[k].from != e->key.target) continue;
        e->key.target = heirs[k].to;
        break;
      }
    }
  }
}

int64_t lupe_span_log_from(const lupe_span_log *l) {
  return lupe_seconds_from(l->seconds);
}

size_t lupe_span_log_bytes(const lupe_span_log *l) {
  return l->bytes;
}

#include "core/store/sample_log.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/hash.h"
#include "core/store/seconds.h"

enum {
  OPEN_SECONDS = 8, /* the newest ones, in which rows are found by hash; older ones rarely get any more */
  FIRST_ROWS = 32,
  FIRST_THREADS = 64,
};

typedef struct bucket {
  int64_t second;
  lupe_sample *rows;
  uint32_t *slots; /* row + 1, twice as many as rows fit; NULL once the second is not open any more */
  uint32_t count, room;
} bucket;

typedef struct thread {
  lupe_sample_thread shown;
  int64_t last; /* the newest second that it may have rows of */
  bool used;
} thread;

struct lupe_sample_log {
  lupe_seconds *seconds; /* of buckets */
  size_t rows;
  uint64_t lost;
  thread *threads;
  uint32_t *thread_slots; /* thread + 1, twice as many as threads fit */
  uint32_t thread_count, thread_room;
  uint32_t *unused; /* numbers to give out again */
  uint32_t unused_count;
  bool crowded; /* no number is left, and none will be as long as the log reaches back to `crowded_from` */
  int64_t crowded_from;
};

static void drop_bucket(void *arg, void *record) {
  lupe_sample_log *l = arg;
  bucket *b = record;
  l->rows -= b->count;
  free(b->rows);
  free(b->slots);
}

lupe_status lupe_sample_log_create(lupe_sample_log **out) {
  lupe_sample_log *l = calloc(1, sizeof *l);
  if (!l) return LUPE_ENOMEM;
  lupe_status status = lupe_seconds_create(&l->seconds, sizeof(bucket), drop_bucket, l);
  if (status != LUPE_OK) {
    free(l);
    return status;
  }
  *out = l;
  return LUPE_OK;
}

void lupe_sample_log_free(lupe_sample_log *l) {
  if (!l) return;
  lupe_seconds_free(l->seconds);
  free(l->threads);
  free(l->thread_slots);
  free(l->unused);
  free(l);
}

/* -- threads ---------------------------------------------------------------------------------- */

static uint32_t thread_hash(uint32_t target, int32_t tid) {
  return (uint32_t)lupe_hash_mix((uint64_t)target << 32 | (uint32_t)tid);
}

static void fill_thread_slots(lupe_sample_log *l) {
  if (l->thread_room == 0) return;
  uint32_t mask = 2 * l->thread_room - 1;
  memset(l->thread_slots, 0, 2 * (size_t)l->thread_room * sizeof *l->thread_slots);
  for (uint32_t i = 0; i < l->thread_count; i++) {
    if (!l->threads[i].used) continue;
    uint32_t at = thread_hash(l->threads[i].shown.target, l->threads[i].shown.tid) & mask;
    while (l->thread_slots[at]) at = (at + 1) & mask;
    l->thread_slots[at] = i + 1;
  }
}

/* Takes the numbers of threads back that no row can refer to. */
static void recycle_threads(lupe_sample_log *l) {
  int64_t from = lupe_seconds_from(l->seconds);
  l->unused_count = 0;
  for (uint32_t i = 0; i < l->thread_count; i++) {
    if (l->threads[i].used && l->threads[i].last < from) l->threads[i].used = false;
    if (!l->threads[i].used) l->unused[l->unused_count++] = i;
  }
  fill_thread_slots(l);
}

/* Room for one more thread at least; for many, so that the next look for unused ones is far away. */
static lupe_status grow_threads(lupe_sample_log *l) {
  recycle_threads(l);
  if (l->unused_count > l->thread_room / 2) return LUPE_OK;
  if (l->thread_room == LUPE_SAMPLE_THREADS_MAX) {
    /* A thread for every request: then the oldest seconds make room, as for rows. */
    size_t seconds;
    while (l->unused_count < LUPE_SAMPLE_THREADS_MAX / 8 && (seconds = lupe_seconds_count(l->seconds)) > 1) {
      size_t dropped = seconds / 8 + 1;
      for (size_t i = 0; i < dropped; i++) lupe_seconds_drop_oldest(l->seconds);
      recycle_threads(l);
    }
    l->crowded = l->unused_count == 0;
    l->crowded_from = lupe_seconds_from(l->seconds);
    return l->crowded ? LUPE_ENOMEM : LUPE_OK;
  }
  uint32_t room = l->thread_room ? 2 * l->thread_room : FIRST_THREADS;
  uint32_t *slots = malloc(2 * (size_t)room * sizeof *slots);
  uint32_t *unused = slots ? realloc(l->unused, room * sizeof *unused) : NULL;
  if (unused) l->unused = unused;
  thread *threads = unused ? realloc(l->threads, room * sizeof *threads) : NULL;
  if (!threads) {
    free(slots);
    return l->unused_count ? LUPE_OK : LUPE_ENOMEM;
  }
  free(l->thread_slots);
  l->threads = threads;
  l->thread_slots = slots;
  l->thread_room = room;
  fill_thread_slots(l);
  return LUPE_OK;
}

static bool find_thread(const lupe_sample_log *l, uint32_t target, int32_t tid, uint32_t *out) {
  if (!l->thread_room) return false;
  uint32_t mask = 2 * l->thread_room - 1;
  for (uint32_t at = thread_hash(target, tid) & mask; l->thread_slots[at]; at = (at + 1) & mask) {
    uint32_t number = l->thread_slots[at] - 1;
    const lupe_sample_thread *t = &l->threads[number].shown;
    if (t->target != target || t->tid != tid) continue;
    *out = number;
    return true;
  }
  return false;
}

lupe_status lupe_sample_log_thread(lupe_sample_log *l, uint32_t target, int32_t tid, int64_t second,
                                   uint32_t *out) {
  uint32_t number;
  if (!find_thread(l, target, tid, &number)) {
    if (l->crowded && lupe_seconds_from(l->seconds) == l->crowded_from) return LUPE_ENOMEM;
    if (l->unused_count == 0 && l->thread_count == l->thread_room) {
      lupe_status status = grow_threads(l);
      if (status != LUPE_OK) return status;
    }
    number = l->unused_count ? l->unused[--l->unused_count] : l->thread_count++;
    l->threads[number] = (thread){.shown = {.target = target, .tid = tid}, .last = second, .used = true};
    uint32_t mask = 2 * l->thread_room - 1, at = thread_hash(target, tid) & mask;
    while (l->thread_slots[at]) at = (at + 1) & mask;
    l->thread_slots[at] = number + 1;
  }
  if (l->threads[number].last < second) l->threads[number].last = second;
  *out = number;
  return LUPE_OK;
}

lupe_sample_thread *lupe_sample_log_thread_at(const lupe_sample_log *l, uint32_t number) {
  return &l->threads[number].shown;
}

uint32_t lupe_sample_log_threads(const lupe_sample_log *l) {
  return l->thread_count;
}

static int by_number(const void *a, const void *b) { /* also of heirs, whose first field it is */
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

void lupe_sample_log_hand_over(lupe_sample_log *l, lupe_sample_heir *heirs, size_t count) {
  bool any = false;
  qsort(heirs, count, sizeof *heirs, by_number);
  for (uint32_t i = 0; i < l->thread_count; i++) {
    lupe_sample_thread *t = &l->threads[i].shown;
    if (!l->threads[i].used) continue;
    const lupe_sample_heir *heir = bsearch(&t->target, heirs, count, sizeof *heirs, by_number);
    if (!heir) continue;
    /* A tid that both had is there twice then: the rows of each stay its own, and one of the two is found. */
    t->target = heir->to;
    any = true;
  }
  if (any) fill_thread_slots(l);
}

/* -- rows ------------------------------------------------------------------------------------- */

static uint32_t row_hash(const lupe_sample *s) {
  return (uint32_t)lupe_hash_mix(((uint64_t)s->stack << 32 | s->state) ^
                                 (uint64_t)s->thread * UINT64_C(0x9e3779b97f4a7c15));
}

static bool same_row(const lupe_sample *a, const lupe_sample *b) {
  return a->stack == b->stack && a->thread == b->thread && a->state == b->state;
}

static void add_row(lupe_sample *row, const lupe_sample *s) {
  // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): slots name rows that were written
  row->count = s->count > UINT32_MAX - row->count ? UINT32_MAX : row->count + s->count;
  row->ns = s->ns > UINT64_MAX - row->ns ? UINT64_MAX : row->ns + s->ns;
  row->switches = s->switches > UINT32_MAX - row->switches ? UINT32_MAX : row->switches + s->switches;
}

/* Where a row of these keys is, or where it goes: an empty slot. */
static uint32_t *find_slot(const lupe_sample *rows, uint32_t *slots, uint32_t mask, const lupe_sample *s) {
  uint32_t at = row_hash(s) & mask;
  while (slots[at] && !same_row(&rows[slots[at] - 1], s)) at = (at + 1) & mask;
  return &slots[at];
}

/* The second is over: its rows stay as they are, in as much memory as they need. */
static void close_bucket(bucket *b) {
  free(b->slots);
  b->slots = NULL;
  lupe_sample *fitting = b->count ? realloc(b->rows, b->count * sizeof *fitting) : NULL;
  if (!fitting) return;
  b->rows = fitting;
  b->room = b->count;
}

static void close_buckets(lupe_sample_log *l, int64_t until) {
  for (size_t i = lupe_seconds_count(l->seconds); i-- > 0;) {
    bucket *b = lupe_seconds_at(l->seconds, i);
    if (!b->slots) return;
    if (b->second <= until) close_bucket(b);
  }
}

/* The bucket of a second, made where there is none; NULL where the log does not reach back to it. */
static bucket *open_bucket(lupe_sample_log *l, int64_t second) {
  if (second < lupe_seconds_from(l->seconds)) return NULL;
  bucket *b = lupe_seconds_find(l->seconds, second);
  if (b && b->second == second) return b;
  if (!b) close_buckets(l, second - OPEN_SECONDS);
  return lupe_seconds_add(l->seconds, second);
}

/* The slots must be empty. */
static void fill_slots(bucket *b) {
  for (uint32_t i = 0; i < b->count; i++) *find_slot(b->rows, b->slots, 2 * b->room - 1, &b->rows[i]) = i + 1;
}

static bool grow_bucket(bucket *b) {
  uint32_t room = b->room ? 2 * b->room : FIRST_ROWS;
  lupe_sample *rows = realloc(b->rows, room * sizeof *rows);
  if (!rows) return false;
  b->rows = rows;
  bool open = b->slots || b->count == 0;
  b->room = room;
  free(b->slots);
  b->slots = open ? calloc(2 * (size_t)room, sizeof *b->slots) : NULL;
  if (b->slots) fill_slots(b);
  return true;
}

void lupe_sample_log_add(lupe_sample_log *l, int64_t second, const lupe_sample *s) {
  bucket *b = open_bucket(l, second);
  if (!b) goto lost;
  uint32_t *slot = b->slots ? find_slot(b->rows, b->slots, 2 * b->room - 1, s) : NULL;
  if (slot && *slot) {
    add_row(&b->rows[*slot - 1], s);
    return;
  }
  while (l->rows == LUPE_SAMPLE_ROWS_MAX) {
    if (lupe_seconds_at(l->seconds, 0) == b) goto lost;
    lupe_seconds_drop_oldest(l->seconds);
  }
  if (b->count == b->room) {
    if (!grow_bucket(b)) goto lost;
    slot = b->slots ? find_slot(b->rows, b->slots, 2 * b->room - 1, s) : NULL;
  }
  if (slot) *slot = b->count + 1;
  b->rows[b->count++] = *s;
  l->rows++;
  thread *t = &l->threads[s->thread];
  if (t->last < second) t->last = second;
  return;
lost:
  l->lost += s->count;
}

void lupe_sample_log_mark_stacks(const lupe_sample_log *l, uint32_t *ids) {
  for (size_t i = 0; i < lupe_seconds_count(l->seconds); i++) {
    const bucket *b = lupe_seconds_at(l->seconds, i);
    for (uint32_t k = 0; k < b->count; k++) {
      if (b->rows[k].stack != LUPE_SAMPLE_NO_STACK) ids[b->rows[k].stack] = 1;
    }
  }
}

void lupe_sample_log_renumber_stacks(lupe_sample_log *l, const uint32_t *ids) {
  for (size_t i = 0; i < lupe_seconds_count(l->seconds); i++) {
    bucket *b = lupe_seconds_at(l->seconds, i);
    for (uint32_t k = 0; k < b->count; k++) {
      if (b->rows[k].stack != LUPE_SAMPLE_NO_STACK) b->rows[k].stack = ids[b->rows[k].stack];
    }
    if (!b->slots) continue;
    memset(b->slots, 0, 2 * (size_t)b->room * sizeof *b->slots);
    fill_slots(b);
  }
}

/* -- sums ------------------------------------------------------------------------------------- */

/* One byte for each thread: whether it belongs to one of the targets. NULL: no memory. */
static bool *choose_threads(const lupe_sample_log *l, const uint32_t *targets, size_t target_count) {
  bool *chosen = calloc(l->thread_count + 1, sizeof *chosen);
  uint32_t *sorted = malloc((target_count + 1) * sizeof *sorted);
  if (!chosen || !sorted) {
    free(chosen);
    free(sorted);
    return NULL;
  }
  if (target_count) {
    memcpy(sorted, targets, target_count * sizeof *sorted);
    qsort(sorted, target_count, sizeof *sorted, by_number);
  }
  for (uint32_t i = 0; i < l->thread_count; i++) {
    chosen[i] = bsearch(&l->threads[i].shown.target, sorted, target_count, sizeof *sorted, by_number) != NULL;
  }
  free(sorted);
  return chosen;
}

typedef struct sum {
  lupe_sample *rows;
  uint32_t *slots;
  size_t count, room;
} sum;

static bool grow_sum(sum *s, size_t room) {
  lupe_sample *rows = realloc(s->rows, room * sizeof *rows);
  if (rows) s->rows = rows;
  uint32_t *slots = rows ? calloc(2 * room, sizeof *slots) : NULL;
  if (!slots) return false;
  free(s->slots);
  s->slots = slots;
  s->room = room;
  for (size_t i = 0; i < s->count; i++)
    *find_slot(s->rows, slots, (uint32_t)(2 * room - 1), &s->rows[i]) = (uint32_t)i + 1;
  return true;
}

static bool sum_bucket(sum *s, const bucket *b, const bool *chosen) {
  for (uint32_t i = 0; i < b->count; i++) {
    const lupe_sample *row = &b->rows[i];
    if (!chosen[row->thread]) continue;
    uint32_t *slot = find_slot(s->rows, s->slots, (uint32_t)(2 * s->room - 1), row);
    if (*slot) {
      add_row(&s->rows[*slot - 1], row);
      continue;
    }
    if (s->count == s->room) {
      if (!grow_sum(s, 2 * s->room)) return false;
      slot = find_slot(s->rows, s->slots, (uint32_t)(2 * s->room - 1), row);
    }
    s->rows[s->count++] = *row;
    *slot = (uint32_t)s->count;
  }
  return true;
}

lupe_status lupe_sample_log_sum(const lupe_sample_log *l, int64_t from, int64_t to, const uint32_t *targets,
                                size_t target_count, lupe_sample **out, size_t *out_count) {
  bool *chosen = choose_threads(l, targets, target_count);
  sum s = {0};
  bool fine = chosen && grow_sum(&s, 1024);
  for (size_t i = 0; fine && i < lupe_seconds_count(l->seconds); i++) {
    const bucket *b = lupe_seconds_at(l->seconds, i);
    if (b->second >= from && b->second < to) fine = sum_bucket(&s, b, chosen);
  }
  free(chosen);
  free(s.slots);
  if (!fine || s.count == 0) {
    free(s.rows);
    s.rows = NULL;
  }
  if (!fine) return LUPE_ENOMEM;
  *out = s.rows;
  *out_count = s.count;
  return LUPE_OK;
}

int64_t lupe_sample_log_from(const lupe_sample_log *l) {
  return lupe_seconds_from(l->seconds);
}

size_t lupe_sample_log_rows(const lupe_sample_log *l) {
  return l->rows;
}

uint64_t lupe_sample_log_lost(const lupe_sample_log *l) {
  return l->lost;
}

#include "core/store/heap_profile.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/hash.h"
#include "core/store/heap_parser.h"

enum { FIRST_ROWS = 64 };

struct lupe_heap_profile {
  lupe_heap_row *rows;
  uint32_t *slots; /* row + 1, by stack id; twice as many as rows */
  size_t count, capacity;
  uint64_t period;
  lupe_heap_column *columns[LUPE_SNAPSHOT_TICKS_MAX];
};

lupe_status lupe_heap_profile_create(lupe_heap_profile **out) {
  lupe_heap_profile *p = calloc(1, sizeof *p);
  if (!p) return LUPE_ENOMEM;
  *out = p;
  return LUPE_OK;
}

static void drop_column(lupe_heap_profile *p, size_t tick) {
  lupe_heap_column *c = p->columns[tick];
  p->columns[tick] = NULL;
  if (c && --c->users == 0) free(c);
}

void lupe_heap_profile_free(lupe_heap_profile *p) {
  if (!p) return;
  for (size_t i = 0; i < LUPE_SNAPSHOT_TICKS_MAX; i++) drop_column(p, i);
  free(p->rows);
  free(p->slots);
  free(p);
}

/* The slots must be empty. */
static void fill_slots(lupe_heap_profile *p) {
  size_t mask = 2 * p->capacity - 1;
  for (size_t i = 0; i < p->count; i++) {
    size_t at = lupe_hash_mix(p->rows[i].stack) & mask;
    while (p->slots[at]) at = (at + 1) & mask;
    p->slots[at] = (uint32_t)i + 1;
  }
}

/* Room for `more` rows beyond those that are there. */
static bool reserve(lupe_heap_profile *p, size_t more) {
  if (p->count + more <= p->capacity) return true;
  size_t capacity = p->capacity ? p->capacity : FIRST_ROWS;
  while (capacity < p->count + more) capacity *= 2;
  uint32_t *slots = calloc(2 * capacity, sizeof *slots);
  lupe_heap_row *rows = slots ? realloc(p->rows, capacity * sizeof *rows) : NULL;
  if (!rows) {
    free(slots);
    return false;
  }
  free(p->slots);
  p->rows = rows;
  p->slots = slots;
  p->capacity = capacity;
  fill_slots(p);
  return true;
}

/* The row of a stack, made where it is new; NULL where there is no room for it. */
static lupe_heap_row *row_of(lupe_heap_profile *p, uint32_t stack) {
  if (p->capacity == 0 && !reserve(p, 1)) return NULL;
  size_t mask = 2 * p->capacity - 1;
  size_t at = lupe_hash_mix(stack) & mask;
  for (; p->slots[at]; at = (at + 1) & mask) {
    lupe_heap_row *row = &p->rows[p->slots[at] - 1];
    if (row->stack == stack) return row;
  }
  if (p->count == p->capacity) {
    if (!reserve(p, 1)) return NULL;
    mask = 2 * p->capacity - 1;
    at = lupe_hash_mix(stack) & mask;
    while (p->slots[at]) at = (at + 1) & mask;
  }
  p->slots[at] = (uint32_t)p->count + 1;
  p->rows[p->count] = (lupe_heap_row){.stack = stack};
  return &p->rows[p->count++];
}

static void forget_epoch(lupe_heap_profile *p) {
  for (size_t i = 0; i < LUPE_SNAPSHOT_TICKS_MAX; i++) drop_column(p, i);
  for (size_t i = 0; i < p->count; i++) p->rows[i] = (lupe_heap_row){.stack = p->rows[i].stack};
}

lupe_status lupe_heap_profile_update(lupe_heap_profile *p, const lupe_heap_entry *entries, size_t count,
                                     uint64_t period_bytes, double time_ms) {
  /* How many entries are new is not known, and asking for `count` would double the memory of a steady
   * heap: make the rows first, which changes nothing that shows. */
  for (size_t i = 0; i < count; i++) {
    if (!row_of(p, entries[i].stack)) return LUPE_ENOMEM;
  }
  if (p->period && p->period != period_bytes) forget_epoch(p);
  p->period = period_bytes;
  for (size_t i = 0; i < p->count; i++) p->rows[i].inuse_space = p->rows[i].inuse_objects = 0;
  for (size_t i = 0; i < count; i++) {
    const lupe_heap_entry *e = &entries[i];
    lupe_heap_row *row = row_of(p, e->stack);
    row->inuse_space += e->inuse_space;
    row->inuse_objects += e->inuse_objects;
    if (row->first_seen_ms == 0 && e->inuse_space > 0) row->first_seen_ms = time_ms;
  }
  for (size_t i = 0; i < p->count; i++) {
    lupe_heap_row *row = &p->rows[i];
    if (row->inuse_objects > 0) row->mean_bytes = row->inuse_space / row->inuse_objects;
  }
  return LUPE_OK;
}

lupe_status lupe_heap_profile_sample(lupe_heap_profile *p, uint32_t stack, double samples) {
  lupe_heap_row *row = row_of(p, stack);
  if (!row) return LUPE_ENOMEM;
  row->samples += samples;
  return LUPE_OK;
}

lupe_status lupe_heap_profile_record(lupe_heap_profile *p, size_t tick, double allocated_bytes) {
  if (tick >= LUPE_SNAPSHOT_TICKS_MAX) return LUPE_EINVAL;
  lupe_heap_column *c = malloc(sizeof *c + LUPE_HEAP_VALUES * p->count * sizeof *c->values);
  if (!c) {
    lupe_heap_profile_repeat(p, tick);
    return LUPE_ENOMEM;
  }
  c->users = 1;
  c->rows = (uint32_t)p->count;
  c->sum_space = 0;
  c->allocated_bytes = allocated_bytes;
  for (size_t i = 0; i < p->count; i++) {
    float *values = &c->values[LUPE_HEAP_VALUES * i];
    values[LUPE_HEAP_SPACE] = (float)fmin(p->rows[i].inuse_space, LUPE_HISTORY_MAX);
    values[LUPE_HEAP_OBJECTS] = (float)fmin(p->rows[i].inuse_objects, LUPE_HISTORY_MAX);
    values[LUPE_HEAP_SAMPLES] = (float)fmin(p->rows[i].samples, LUPE_HISTORY_MAX);
    c->sum_space += p->rows[i].inuse_space;
  }
  drop_column(p, tick);
  p->columns[tick] = c;
  return LUPE_OK;
}

void lupe_heap_profile_repeat(lupe_heap_profile *p, size_t tick) {
  if (tick == 0 || tick >= LUPE_SNAPSHOT_TICKS_MAX || p->columns[tick]) return;
  p->columns[tick] = p->columns[tick - 1];
  if (p->columns[tick]) p->columns[tick]->users++;
}

void lupe_heap_profile_thin(lupe_heap_profile *p, size_t count) {
  for (size_t i = 0; i < count; i += 2) drop_column(p, i);
  for (size_t i = 1; i < count; i += 2) {
    lupe_heap_column *c = p->columns[i];
    p->columns[i] = NULL;
    p->columns[i / 2] = c;
  }
}

void lupe_heap_profile_drop_oldest(lupe_heap_profile *p, size_t count, size_t gone) {
  for (size_t i = 0; i < gone; i++) drop_column(p, i);
  for (size_t i = gone; i < count; i++) {
    p->columns[i - gone] = p->columns[i];
    p->columns[i] = NULL;
  }
}

void lupe_heap_profile_renumber(lupe_heap_profile *p, const uint32_t *ids) {
  if (p->count == 0) return;
  for (size_t i = 0; i < p->count; i++) p->rows[i].stack = ids[p->rows[i].stack];
  memset(p->slots, 0, 2 * p->capacity * sizeof *p->slots);
  fill_slots(p);
}

const lupe_heap_row *lupe_heap_profile_rows(const lupe_heap_profile *p, size_t *out_count) {
  *out_count = p->count;
  return p->rows;
}

const lupe_heap_column *lupe_heap_profile_column(const lupe_heap_profile *p, size_t tick) {
  return tick < LUPE_SNAPSHOT_TICKS_MAX ? p->columns[tick] : NULL;
}

uint64_t lupe_heap_profile_period(const lupe_heap_profile *p) {
  return p->period;
}

double lupe_heap_row_sample_bytes(const lupe_heap_row *row, uint64_t period_bytes) {
  if (row->mean_bytes <= 0) return (double)period_bytes;
  return row->mean_bytes * lupe_heap_correction(row->mean_bytes, (double)period_bytes);
}

void lupe_heap_row_allocations(const lupe_heap_row *row, uint64_t period_bytes, double *out_space,
                               double *out_objects) {
  double space = row->samples * lupe_heap_row_sample_bytes(row, period_bytes);
  double objects = row->mean_bytes > 0 ? space / row->mean_bytes : 0;
  *out_space = space > row->inuse_space ? space : row->inuse_space;
  *out_objects = objects > row->inuse_objects ? objects : row->inuse_objects;
}

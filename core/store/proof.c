#include "core/store/proof.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/store/heap_dump.h"
#include "core/store/heap_parser.h"
#include "core/wire/record.h"
#include "core/wire/seals.h"

/* Pairs are sorted as one number: what they belong to above, what is counted below. */
static uint64_t pair(uint32_t high, uint32_t low) {
  return (uint64_t)high << 32 | low;
}
static uint32_t high_of(uint64_t key) {
  return (uint32_t)(key >> 32);
}
static uint32_t low_of(uint64_t key) {
  return (uint32_t)key;
}

typedef struct reader {
  const lupe_proof_head *head;
  const lupe_proof_object *objects;
  const uint64_t *pcs;
  const uint32_t *stack_first;
  uint64_t *heads; /* group, object; sorted */
  size_t head_count;
  uint32_t *ids;    /* by stack of the block: its id in the table */
  uint32_t *row_of; /* likewise: its row */
  uint64_t *keys;   /* one for each object, at most */
  lupe_proof_row *rows;
  size_t row_count;
  char *why;
  size_t why_bytes;
} reader;

__attribute__((format(printf, 2, 3))) static lupe_status refuse(reader *r, const char *format, ...) {
  char what[96];
  va_list args;
  va_start(args, format);
  vsnprintf(what, sizeof what, format, args);
  va_end(args);
  snprintf(r->why, r->why_bytes, "leak proof, %s", what);
  return LUPE_ECORRUPT;
}

/* -- what is wrong with it -------------------------------------------------------------------- */

static lupe_status check_head(reader *r, const void *block, size_t bytes) {
  const lupe_proof_head *h = block;
  if (bytes < sizeof *h) return refuse(r, "head: cut off at %zu bytes", bytes);
  if (h->magic != LUPE_PROOF_MAGIC) return refuse(r, "magic: not a leak proof");
  if (h->version != LUPE_PROOF_VERSION) return refuse(r, "version %u: not known", h->version);
  uint64_t objects = (uint64_t)h->object_count * sizeof(lupe_proof_object),
           pcs = (uint64_t)h->pc_count * sizeof(uint64_t),
           stacks = ((uint64_t)h->stack_count + 1) * sizeof(uint32_t);
  uint64_t expected = sizeof *h + objects + pcs + stacks;
  if (expected != bytes)
    return refuse(r, "counts: they make %llu bytes, %zu are there", (unsigned long long)expected, bytes);
  if (h->stack_count > h->object_count) return refuse(r, "stacks: more than objects"); /* bounds the tables */
  if (h->sample_period_bytes == 0) return refuse(r, "sample_period_bytes: 0");
  if (h->time_ms <= 0) return refuse(r, "time_ms: not after 1970");
  if (h->unreachable_objects > h->heap_objects || h->unreachable_bytes > h->heap_bytes)
    return refuse(r, "unreachable: more than the whole heap");
  const char *at = block;
  r->head = h;
  r->objects = (const lupe_proof_object *)(at + sizeof *h);
  r->pcs = (const uint64_t *)(at + sizeof *h + objects);
  r->stack_first = (const uint32_t *)(at + sizeof *h + objects + pcs);
  return LUPE_OK;
}

static lupe_status check_stacks(reader *r) {
  const uint32_t *first = r->stack_first;
  uint32_t count = r->head->stack_count;
  if (first[0] != 0 || first[count] != r->head->pc_count) return refuse(r, "stack_first: not all of the pcs");
  for (uint32_t i = 0; i < count; i++) {
    if (first[i + 1] < first[i] || first[i + 1] - first[i] > LUPE_MAX_FRAMES)
      return refuse(r, "stack %u: not 0 to %d frames", i, LUPE_MAX_FRAMES);
  }
  return LUPE_OK;
}

static lupe_status check_object(reader *r, uint32_t i) {
  const lupe_proof_object *o = &r->objects[i];
  uint32_t count = r->head->object_count;
  if (o->size_bytes == 0) return refuse(r, "object %u: of no size", i);
  if (o->stack >= r->head->stack_count) return refuse(r, "object %u: a stack out of bounds", i);
  if (o->holder != LUPE_PROOF_NONE && o->holder >= count)
    return refuse(r, "object %u: a holder out of bounds", i);
  if (o->state >= LUPE_PROOF_STATES) return refuse(r, "object %u: state %u", i, o->state);
  bool grouped = o->group != LUPE_PROOF_NONE;
  if (grouped && o->state < LUPE_PROOF_UNREACHABLE) return refuse(r, "object %u: reached, and in a group", i);
  if (!grouped && o->state == LUPE_PROOF_UNREACHABLE)
    return refuse(r, "object %u: unreachable, and in no group", i);
  if (o->head > 1 || (o->head && !grouped)) return refuse(r, "object %u: the head of no group", i);
  if (o->behind > 0 && (!o->head || o->behind >= count))
    return refuse(r, "object %u: %u objects behind it", i, o->behind);
  if (o->tid < 0) return refuse(r, "object %u: a thread below 0", i);
  return LUPE_OK;
}

static int by_value(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* And finds the heads. */
static lupe_status check_objects(reader *r) {
  uint32_t count = r->head->object_count;
  size_t heads = 0;
  for (uint32_t i = 0; i < count; i++) {
    lupe_status status = check_object(r, i);
    if (status != LUPE_OK) return status;
    heads += r->objects[i].head;
  }
  r->heads = malloc((heads + 1) * sizeof *r->heads);
  if (!r->heads) return LUPE_ENOMEM;
  for (uint32_t i = 0; i < count; i++) {
    if (r->objects[i].head) r->heads[r->head_count++] = pair(r->objects[i].group, i);
  }
  qsort(r->heads, r->head_count, sizeof *r->heads, by_value);
  for (size_t i = 1; i < r->head_count; i++) {
    if (high_of(r->heads[i]) == high_of(r->heads[i - 1]))
      return refuse(r, "group %u: two heads", high_of(r->heads[i]));
  }
  return LUPE_OK;
}

/* -- the rows --------------------------------------------------------------------------------- */

/* Gives stacks that have objects their ids, and each id a row. */
static lupe_status make_rows(reader *r, const lupe_address_map *map, lupe_stack_table *stacks) {
  uint32_t stack_count = r->head->stack_count, object_count = r->head->object_count;
  r->ids = malloc((stack_count + 1) * sizeof *r->ids);
  r->row_of = calloc(stack_count + 1, sizeof *r->row_of);
  size_t keys = object_count > stack_count ? object_count : stack_count;
  r->keys = malloc((keys + 1) * sizeof *r->keys);
  if (!r->ids || !r->row_of || !r->keys) return LUPE_ENOMEM;

  for (uint32_t i = 0; i < object_count; i++) r->row_of[r->objects[i].stack] = 1; /* it has objects */
  size_t used = 0;
  for (uint32_t i = 0; i < stack_count; i++) {
    const uint64_t nothing = 0; /* as a dump has it where no frame is known */
    uint32_t first = r->stack_first[i], depth = r->stack_first[i + 1] - first;
    if (!r->row_of[i]) continue;
    r->ids[i] = lupe_heap_dump_intern(map, stacks, depth ? r->pcs + first : &nothing, depth ? depth : 1);
    r->keys[used++] = pair(r->ids[i], i);
  }
  qsort(r->keys, used, sizeof *r->keys, by_value);
  r->rows = calloc(used + 1, sizeof *r->rows);
  if (!r->rows) return LUPE_ENOMEM;
  for (size_t i = 0; i < used; i++) {
    uint32_t id = high_of(r->keys[i]);
    if (i == 0 || id != high_of(r->keys[i - 1]))
      r->rows[r->row_count++] =
          (lupe_proof_row){.stack = id, .holder_stack = LUPE_PROOF_NONE, .head_stack = LUPE_PROOF_NONE};
    r->row_of[low_of(r->keys[i])] = (uint32_t)r->row_count - 1;
  }
  return LUPE_OK;
}

static uint32_t row_index(const reader *r, const lupe_proof_object *o) {
  return r->row_of[o->stack];
}

static void add_object(reader *r, const lupe_proof_object *o) {
  lupe_proof_row *row = &r->rows[row_index(r, o)];
  double bytes = (double)o->size_bytes;
  double objects = lupe_heap_correction(bytes, (double)r->head->sample_period_bytes);
  row->counts[o->state]++;
  row->objects += objects;
  row->bytes += objects * bytes;
  if (o->state != LUPE_PROOF_UNREACHABLE) return;
  double variance = objects * (objects - 1); /* (1 - p) / p^2 */
  row->unreachable_objects += objects;
  row->unreachable_bytes += objects * bytes;
  row->objects_variance += variance;
  row->bytes_variance += variance * bytes * bytes;
  if (o->head && o->behind > row->largest_behind) row->largest_behind = o->behind;
}

/* Of `count` pairs of row and stack id: how often each row's most frequent one is there. The lower id wins
 * where two are as frequent, so that the same block gives the same rows. */
static void find_most_frequent(reader *r, size_t count, bool holders) {
  qsort(r->keys, count, sizeof *r->keys, by_value);
  size_t best = 0;
  for (size_t i = 0, end; i < count; i = end) {
    for (end = i + 1; end < count && r->keys[end] == r->keys[i]; end++) continue;
    if (i == 0 || high_of(r->keys[i]) != high_of(r->keys[i - 1])) best = 0;
    if (end - i <= best) continue;
    best = end - i;
    lupe_proof_row *row = &r->rows[high_of(r->keys[i])];
    if (holders) {
      row->holder_stack = low_of(r->keys[i]);
      row->held = (uint32_t)best;
    } else {
      row->head_stack = low_of(r->keys[i]);
    }
  }
}

static void find_holders(reader *r) {
  size_t count = 0;
  for (uint32_t i = 0; i < r->head->object_count; i++) {
    const lupe_proof_object *o = &r->objects[i];
    if (o->state >= LUPE_PROOF_UNREACHABLE || o->holder == LUPE_PROOF_NONE) continue;
    r->keys[count++] = pair(row_index(r, o), r->ids[r->objects[o->holder].stack]);
  }
  find_most_frequent(r, count, true);
}

/* NULL where the group has none. */
static const lupe_proof_object *head_of(const reader *r, uint32_t group) {
  size_t low = 0, high = r->head_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (high_of(r->heads[middle]) < group)
      low = middle + 1;
    else
      high = middle;
  }
  bool found = low < r->head_count && high_of(r->heads[low]) == group;
  return found ? &r->objects[low_of(r->heads[low])] : NULL;
}

/* Each group counts once in a row, however many objects of it are there. */
static void find_groups(reader *r) {
  size_t count = 0, heads = 0;
  for (uint32_t i = 0; i < r->head->object_count; i++) {
    const lupe_proof_object *o = &r->objects[i];
    if (o->state == LUPE_PROOF_UNREACHABLE) r->keys[count++] = pair(row_index(r, o), o->group);
  }
  qsort(r->keys, count, sizeof *r->keys, by_value);
  for (size_t i = 0, end; i < count; i = end) {
    uint64_t key = r->keys[i];
    for (end = i + 1; end < count && r->keys[end] == key; end++) continue;
    r->rows[high_of(key)].groups++;
    const lupe_proof_object *head = head_of(r, low_of(key));
    if (head) r->keys[heads++] = pair(high_of(key), r->ids[head->stack]); /* never ahead of `i` */
  }
  find_most_frequent(r, heads, false);
}

lupe_status lupe_proof_sum(const void *block, size_t bytes, const lupe_address_map *map,
                           lupe_stack_table *stacks, lupe_proof *out, char *why, size_t why_bytes) {
  reader r = {.why = why, .why_bytes = why_bytes};
  snprintf(why, why_bytes, "%s", "");
  lupe_status status = check_head(&r, block, bytes);
  if (status == LUPE_OK) status = check_stacks(&r);
  if (status == LUPE_OK) status = check_objects(&r);
  if (status == LUPE_OK) status = make_rows(&r, map, stacks);
  if (status == LUPE_OK) {
    for (uint32_t i = 0; i < r.head->object_count; i++) add_object(&r, &r.objects[i]);
    find_holders(&r);
    find_groups(&r);
    *out = (lupe_proof){.head = *r.head, .rows = r.rows, .count = r.row_count};
  } else {
    free(r.rows);
  }
  free(r.heads);
  free(r.ids);
  free(r.row_of);
  free(r.keys);
  return status;
}

lupe_status lupe_proof_read(int fd, const lupe_address_map *map, lupe_stack_table *stacks, lupe_proof *out,
                            char *why, size_t why_bytes) {
  reader r = {.why = why, .why_bytes = why_bytes};
  struct stat info;
  snprintf(why, why_bytes, "%s", "");
  if (fstat(fd, &info) != 0) return LUPE_EIO;
  if (!S_ISREG(info.st_mode) || info.st_size <= 0 || info.st_size > LUPE_PROOF_BYTES_MAX)
    return refuse(&r, "file: not one of 1 to %d bytes", LUPE_PROOF_BYTES_MAX);
  /* So it is mapped and not copied: nobody can change it any more. */
  if (!lupe_has_seals(fd, F_SEAL_WRITE | F_SEAL_SHRINK)) return refuse(&r, "file: not sealed");
  size_t bytes = (size_t)info.st_size;
  void *block = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  if (block == MAP_FAILED) return LUPE_EIO;
  lupe_status status = lupe_proof_sum(block, bytes, map, stacks, out, why, why_bytes);
  munmap(block, bytes);
  return status;
}

void lupe_proof_clear(lupe_proof *p) {
  free(p->rows);
  p->rows = NULL;
  p->count = 0;
}

void lupe_proof_renumber(lupe_proof *p, const uint32_t *ids) {
  for (size_t i = 0; i < p->count; i++) {
    lupe_proof_row *row = &p->rows[i];
    row->stack = ids[row->stack];
    if (row->holder_stack != LUPE_PROOF_NONE) row->holder_stack = ids[row->holder_stack];
    if (row->head_stack != LUPE_PROOF_NONE) row->head_stack = ids[row->head_stack];
  }
}

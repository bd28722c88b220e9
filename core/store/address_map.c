#include "core/store/address_map.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/program_file.h"

#define OFFSET_MASK ((UINT64_C(1) << 48) - 1)

typedef struct range {
  uint64_t start, end; /* end is behind the last byte */
  uint64_t offset;     /* in the file, of `start` */
  uint64_t device, inode;
  uint16_t module;
} range;

typedef struct ranges {
  range *items;
  size_t count, capacity;
} ranges;

struct lupe_address_map {
  lupe_module_table *modules;
  int32_t pid;
  ranges known; /* sorted by start, disjoint */
  ranges fresh; /* the reading in progress, in the order of its lines */
  uint64_t left_out;
  lupe_tag_frame_fn tag_frame; /* NULL: nobody knows them */
  void *tag_arg;
};

lupe_status lupe_address_map_create(lupe_address_map **out, lupe_module_table *modules, int32_t pid) {
  lupe_address_map *m = calloc(1, sizeof *m);
  if (!m) return LUPE_ENOMEM;
  m->modules = modules;
  m->pid = pid;
  *out = m;
  return LUPE_OK;
}

void lupe_address_map_free(lupe_address_map *m) {
  if (!m) return;
  free(m->known.items);
  free(m->fresh.items);
  free(m);
}

static bool append(ranges *r, range item) {
  if (r->count == r->capacity) {
    size_t capacity = r->capacity ? 2 * r->capacity : 32;
    range *items = realloc(r->items, capacity * sizeof *items);
    if (!items) return false;
    r->items = items;
    r->capacity = capacity;
  }
  r->items[r->count++] = item;
  return true;
}

/* Reads hexadecimal digits, at least one and at most 16, up to `stop`, and steps over it. */
static bool read_hex(const char **at, const char *end, char stop, uint64_t *out) {
  uint64_t value = 0;
  const char *p = *at;
  for (; p < end && *p != stop; p++) {
    char c = *p;
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0 || p - *at >= 16) return false;
    value = value << 4 | (uint64_t)digit;
  }
  if (p == *at || p == end) return false;
  *at = p + 1;
  *out = value;
  return true;
}

static bool read_decimal(const char **at, const char *end, uint64_t *out) {
  const char *p = *at;
  uint64_t value = 0;
  for (; p < end && *p >= '0' && *p <= '9'; p++) value = value * 10 + (uint64_t)(*p - '0');
  if (p == *at || p - *at > 20) return false;
  *at = p;
  *out = value;
  return true;
}

/* The range that an address is in, or NULL. */
static const range *find(const lupe_address_map *m, uint64_t address) {
  size_t low = 0, high = m->known.count; /* the first range that starts behind the address */
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (m->known.items[middle].start <= address)
      low = middle + 1;
    else
      high = middle;
  }
  return low > 0 && address < m->known.items[low - 1].end ? &m->known.items[low - 1] : NULL;
}

static bool is_same_mapping(const range *a, const range *b) {
  return a->inode == b->inode && a->device == b->device && a->start - a->offset == b->start - b->offset;
}

static uint16_t module_of(const lupe_address_map *m, const range *r, const char *path, size_t bytes) {
  const range *before = r->inode != 0 ? find(m, r->start) : NULL;
  if (before && is_same_mapping(before, r) &&
      lupe_program_path_is_still(path, bytes, lupe_module_table_path(m->modules, before->module)))
    return before->module;
  lupe_file_version version = {.device = r->device, .inode = r->inode};
  lupe_program_file_look(path, bytes, m->pid, &version);
  return lupe_module_table_intern(m->modules, path, bytes, &version, m->pid);
}

void lupe_address_map_begin(lupe_address_map *m) {
  m->fresh.count = 0;
}

lupe_status lupe_address_map_line(lupe_address_map *m, const char *line, size_t bytes) {
  const char *p = line, *end = line + bytes;
  if (p < end && end[-1] == '\n') end--;
  range r = {0};
  uint64_t major, minor;
  if (!read_hex(&p, end, '-', &r.start) || !read_hex(&p, end, ' ', &r.end)) return LUPE_ECORRUPT;
  if (r.start >= r.end || end - p < 5 || p[4] != ' ') return LUPE_ECORRUPT;
  bool executable = p[2] == 'x';
  if (!executable && p[2] != '-') return LUPE_ECORRUPT;
  p += 5;
  if (!read_hex(&p, end, ' ', &r.offset)) return LUPE_ECORRUPT;
  if (!read_hex(&p, end, ':', &major) || !read_hex(&p, end, ' ', &minor)) return LUPE_ECORRUPT;
  if (!read_decimal(&p, end, &r.inode)) return LUPE_ECORRUPT;
  r.device = major << 32 | minor;
  if (!executable) return LUPE_OK;
  while (p < end && *p == ' ') p++;
  if (m->fresh.count == LUPE_MAPPINGS_MAX) {
    m->left_out++;
    return LUPE_OK;
  }
  /* Anonymous code is kept too, as module 0: it hides what was mapped there before. */
  r.module = module_of(m, &r, p, (size_t)(end - p));
  return append(&m->fresh, r) ? LUPE_OK : LUPE_ENOMEM;
}

static int by_start(const void *a, const void *b) {
  uint64_t x = ((const range *)a)->start, y = ((const range *)b)->start;
  return (x > y) - (x < y);
}

/* Makes the sorted ranges disjoint: where two overlap (a reading is not atomic), the later start wins. */
static void cut_overlaps(ranges *r) {
  size_t kept = 0;
  for (size_t i = 0; i < r->count; i++) {
    range *last = kept ? &r->items[kept - 1] : NULL;
    if (last && last->end > r->items[i].start) last->end = r->items[i].start;
    if (last && last->start >= last->end) kept--;
    r->items[kept++] = r->items[i];
  }
  r->count = kept;
}

lupe_status lupe_address_map_commit(lupe_address_map *m) {
  ranges *fresh = &m->fresh;
  if (fresh->count > 1) qsort(fresh->items, fresh->count, sizeof *fresh->items, by_start);
  cut_overlaps(fresh);
  size_t live = fresh->count, at = 0;
  for (size_t i = 0; i < m->known.count; i++) {
    const range *old = &m->known.items[i];
    while (at < live && fresh->items[at].end <= old->start) at++;
    if (at < live && fresh->items[at].start < old->end) continue; /* something else, or the same, is there */
    if (fresh->count == LUPE_MAPPINGS_MAX) break;
    if (!append(fresh, *old)) {
      fresh->count = 0;
      return LUPE_ENOMEM;
    }
  }
  if (fresh->count > live) qsort(fresh->items, fresh->count, sizeof *fresh->items, by_start);
  free(m->known.items);
  m->known = m->fresh;
  m->fresh = (ranges){0};
  if (m->known.count) {
    range *fitting = realloc(m->known.items, m->known.count * sizeof *fitting);
    if (fitting) {
      m->known.items = fitting;
      m->known.capacity = m->known.count;
    }
  }
  return LUPE_OK;
}

void lupe_address_map_set_tags(lupe_address_map *m, lupe_tag_frame_fn frame_of, void *arg) {
  m->tag_frame = frame_of;
  m->tag_arg = arg;
}

lupe_frame lupe_address_map_frame(const lupe_address_map *m, uint64_t return_address) {
  if (lupe_address_is_tag(return_address)) {
    uint32_t number = (uint32_t)(return_address & ~LUPE_TAG_FRAME_MASK);
    return m->tag_frame ? m->tag_frame(m->tag_arg, number) : LUPE_FRAME_UNKNOWN;
  }
  uint64_t address = return_address - 1;
  const range *r = find(m, address);
  if (!r || r->module == LUPE_MODULE_UNKNOWN) return LUPE_FRAME_UNKNOWN;
  uint64_t offset = address - r->start + r->offset;
  if (offset > OFFSET_MASK) return LUPE_FRAME_UNKNOWN;
  return (lupe_frame)r->module << 48 | offset;
}

bool lupe_address_map_covers(const lupe_address_map *m, uint64_t return_address) {
  return lupe_address_is_tag(return_address) || find(m, return_address - 1) != NULL;
}

size_t lupe_address_map_count(const lupe_address_map *m) {
  return m->known.count;
}

uint64_t lupe_address_map_left_out(const lupe_address_map *m) {
  return m->left_out;
}

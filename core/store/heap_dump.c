#include "core/store/heap_dump.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/store/hash.h"
#include "core/store/heap_parser.h"
#include "core/unwanted.h"
#include "core/wire/record.h"

enum {
  SMALL_MAX = 14336, /* jemalloc gives a sampled object up to this size, its largest small class, ... */
  LARGE_MIN = 16384, /* ... an extent of this one, and counts that as allocated */
  PIECE = 65536,     /* bytes read at once */
  MAPPINGS_BYTES_MAX = 16 << 20, /* of the text behind the title */
  DUMP_BYTES_MAX = 1 << 30,      /* 2^21 stacks of 30 frames */
  CACHE_SLOTS = 4096,            /* a power of two */
};

static const char title[] = "\nMAPPED_LIBRARIES:\n";

/* Most frames of a dump are the same few thousand addresses. */
typedef struct cache {
  uint64_t addresses[CACHE_SLOTS];
  lupe_frame frames[CACHE_SLOTS];
} cache;

typedef struct reader {
  lupe_address_map *map;
  lupe_stack_table *stacks;
  lupe_heap_dump dump;
  cache cache;
  char piece[PIECE + sizeof title];
} reader;

/* Reads exactly `bytes` at `offset`. LUPE_ECORRUPT: the file became shorter meanwhile. */
static lupe_status read_at(int fd, char *to, size_t bytes, uint64_t offset) {
  while (bytes > 0) {
    ssize_t n = pread(fd, to, bytes, (off_t)offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return LUPE_EIO;
    if (n == 0) return LUPE_ECORRUPT;
    to += n;
    bytes -= (size_t)n;
    offset += (uint64_t)n;
  }
  return LUPE_OK;
}

/* Finds the last title, reading backwards. */
static lupe_status find_mappings(reader *r, int fd, uint64_t size, uint64_t *out_offset) {
  const size_t overlap = sizeof title - 2; /* a title may lie across two pieces */
  uint64_t end = size;
  while (end > 0 && size - end <= MAPPINGS_BYTES_MAX) {
    uint64_t start = end > PIECE ? end - PIECE : 0;
    size_t bytes = (size_t)(end - start);
    if (size - end >= overlap) bytes += overlap;
    lupe_status status = read_at(fd, r->piece, bytes, start);
    if (status != LUPE_OK) return status;
    const char *found = NULL, *from = r->piece;
    for (size_t left = bytes;;) {
      const char *next = memmem(from, left, title, sizeof title - 1);
      if (!next) break;
      found = next;
      left -= (size_t)(next + 1 - from);
      from = next + 1;
    }
    if (found) {
      *out_offset = start + (uint64_t)(found - r->piece) + sizeof title - 1;
      return LUPE_OK;
    }
    end = start;
  }
  return LUPE_ENOENT;
}

/* Hands each line from `offset` on to the map. */
static lupe_status read_mappings(reader *r, int fd, uint64_t offset, uint64_t size, uint64_t *out_bad) {
  lupe_address_map_begin(r->map);
  while (offset < size) {
    size_t bytes = size - offset < PIECE ? (size_t)(size - offset) : PIECE;
    lupe_status status = read_at(fd, r->piece, bytes, offset);
    if (status != LUPE_OK) return status;
    const char *at = r->piece, *end = r->piece + bytes;
    for (const char *newline; (newline = memchr(at, '\n', (size_t)(end - at))); at = newline + 1) {
      status = lupe_address_map_line(r->map, at, (size_t)(newline - at));
      if (status != LUPE_OK) {
        *out_bad = offset + (uint64_t)(at - r->piece);
        return status;
      }
    }
    if (at == r->piece) { /* a line longer than any path, or one that does not end */
      *out_bad = offset;
      return LUPE_ECORRUPT;
    }
    offset += (uint64_t)(at - r->piece);
  }
  return lupe_address_map_commit(r->map);
}

uint32_t lupe_heap_dump_intern(const lupe_address_map *map, lupe_stack_table *stacks,
                               const uint64_t *addresses, size_t depth) {
  lupe_frame frames[LUPE_MAX_FRAMES];
  uint32_t id = LUPE_STACK_OVERFLOW;
  if (depth > LUPE_MAX_FRAMES) depth = LUPE_MAX_FRAMES;
  for (size_t i = 0; i < depth; i++) frames[i] = lupe_address_map_frame(map, addresses[i]);
  (void)lupe_stack_table_intern(stacks, frames, depth, &id); /* depth 0 is the only error */
  return id;
}

static lupe_frame cached_frame(reader *r, uint64_t address) {
  size_t at = lupe_hash_mix(address) & (CACHE_SLOTS - 1);
  if (r->cache.addresses[at] != address) {
    r->cache.addresses[at] = address;
    r->cache.frames[at] = lupe_address_map_frame(r->map, address);
  }
  return r->cache.frames[at];
}

static lupe_status on_period(void *arg, uint64_t bytes) {
  ((reader *)arg)->dump.period_bytes = bytes;
  return LUPE_OK;
}

static lupe_status on_stack(void *arg, const lupe_heap_stack *stack) {
  reader *r = arg;
  lupe_heap_dump *d = &r->dump;
  if (d->count == d->capacity) {
    size_t capacity = d->capacity ? 2 * d->capacity : 256;
    lupe_heap_entry *entries = realloc(d->entries, capacity * sizeof *entries);
    if (!entries) return LUPE_ENOMEM;
    d->entries = entries;
    d->capacity = capacity;
  }
  lupe_frame frames[LUPE_MAX_FRAMES];
  for (size_t i = 0; i < stack->depth; i++) frames[i] = cached_frame(r, stack->addresses[i]);
  lupe_heap_entry *e = &d->entries[d->count];
  lupe_status status = lupe_stack_table_intern(r->stacks, frames, stack->depth, &e->stack);
  if (status != LUPE_OK) return status;
  e->inuse_space = stack->inuse_space;
  e->inuse_objects = stack->inuse_objects;
  double mean = stack->inuse_space / stack->inuse_objects;
  if (mean <= SMALL_MAX) d->sampling_bytes += stack->samples * (LARGE_MIN - mean);
  d->count++;
  return LUPE_OK;
}

static lupe_status read_stacks(reader *r, int fd, uint64_t size, char *why, size_t why_bytes) {
  const lupe_heap_events events = {.period = on_period, .stack = on_stack, .arg = r};
  lupe_heap_parser *parser;
  lupe_status status = lupe_heap_parser_create(&parser, &events);
  if (status != LUPE_OK) return status;
  for (uint64_t offset = 0; status == LUPE_OK && offset < size;) {
    size_t bytes = size - offset < PIECE ? (size_t)(size - offset) : PIECE;
    status = read_at(fd, r->piece, bytes, offset);
    if (status == LUPE_OK) status = lupe_heap_parser_feed(parser, r->piece, bytes);
    if (status == LUPE_OK && lupe_unwanted()) status = LUPE_EAGAIN;
    offset += bytes;
  }
  if (status == LUPE_OK) status = lupe_heap_parser_finish(parser);
  if (status == LUPE_ECORRUPT && *lupe_heap_parser_error(parser))
    snprintf(why, why_bytes, "%s", lupe_heap_parser_error(parser));
  lupe_heap_parser_free(parser);
  return status;
}

lupe_status lupe_heap_dump_read(int fd, lupe_address_map *map, lupe_stack_table *stacks, lupe_heap_dump *out,
                                char *why, size_t why_bytes) {
  snprintf(why, why_bytes, "%s", "");
  struct stat info;
  if (fstat(fd, &info) != 0) return LUPE_EIO;
  if (!S_ISREG(info.st_mode) || info.st_size <= 0 || info.st_size > DUMP_BYTES_MAX) {
    snprintf(why, why_bytes, "heap profile: expected a file of 1 to %d bytes", DUMP_BYTES_MAX);
    return LUPE_ECORRUPT;
  }
  reader *r = malloc(sizeof *r);
  if (!r) return LUPE_ENOMEM;
  memset(&r->dump, 0, sizeof r->dump);
  memset(r->cache.addresses, 0, sizeof r->cache.addresses); /* address 0 is in no file: frame 0 */
  memset(r->cache.frames, 0, sizeof r->cache.frames);
  r->map = map;
  r->stacks = stacks;

  uint64_t size = (uint64_t)info.st_size, mappings, bad = 0;
  lupe_status status = find_mappings(r, fd, size, &mappings);
  if (status == LUPE_ENOENT) {
    /* Perhaps something is wrong before that; the parser's message is the better one then. */
    status = read_stacks(r, fd, size, why, why_bytes);
    if (status == LUPE_OK) {
      snprintf(why, why_bytes, "heap profile: expected at most %d bytes of mappings", MAPPINGS_BYTES_MAX);
      status = LUPE_ECORRUPT;
    }
  } else if (status == LUPE_OK) {
    status = read_mappings(r, fd, mappings, size, &bad);
    if (status == LUPE_ECORRUPT)
      snprintf(why, why_bytes, "heap profile, byte %llu: expected a line of /proc/PID/maps",
               (unsigned long long)bad);
  }
  if (status == LUPE_OK) status = read_stacks(r, fd, size, why, why_bytes);
  if (status == LUPE_ECORRUPT && !*why)
    snprintf(why, why_bytes, "heap profile: the file became shorter while it was read");
  if (status == LUPE_OK)
    *out = r->dump;
  else
    lupe_heap_dump_clear(&r->dump);
  free(r);
  return status;
}

void lupe_heap_dump_clear(lupe_heap_dump *d) {
  free(d->entries);
  *d = (lupe_heap_dump){0};
}

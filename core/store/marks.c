#include "core/store/marks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/store/demangle.h"
#include "core/wire/seals.h"

enum {
  NAME_THERE = 2,
  NO_BLOCK = UINT16_MAX,
};
_Static_assert((int)LUPE_SPAN_BLOCKS_MAX < (int)NO_BLOCK, "a block's number fits");

/* What a name's blocks added up to at the last reading. */
typedef struct sums {
  uint64_t total_ns;
  uint64_t buckets[LUPE_SPAN_BUCKETS];
} sums;

/* A block as it was at the last reading, and the next one of its name. */
typedef struct seen {
  uint64_t count, longest_ns;
  uint64_t new_longest_ns; /* of those since then; 0: none */
  uint16_t next;
} seen;

struct lupe_marks_reader {
  lupe_marks *segment;
  dev_t device;
  ino_t inode;
  bool begun; /* the first reading is over, or is told like all others */
  seen *blocks;
  uint32_t block_count, block_room;
  sums *names[LUPE_MARK_NAMES_MAX]; /* NULL: no span has ended */
  uint16_t first[LUPE_MARK_NAMES_MAX];
};

static uint64_t load(const _Atomic uint64_t *from) {
  return atomic_load_explicit(from, memory_order_relaxed);
}

static lupe_status map_segment(int fd, const struct stat *st, lupe_marks **out) {
  struct {
    uint64_t magic;
    uint32_t version, bytes;
  } start;
  if (pread(fd, &start, sizeof start, 0) != (ssize_t)sizeof start || start.magic != LUPE_MARKS_MAGIC)
    return LUPE_ECORRUPT;
  if (start.version != LUPE_MARKS_VERSION) return LUPE_EVERSION;
  if (start.bytes != LUPE_MARKS_BYTES || st->st_size != LUPE_MARKS_BYTES) return LUPE_ECORRUPT;
  void *segment = mmap(NULL, LUPE_MARKS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (segment == MAP_FAILED) return errno == ENOMEM ? LUPE_ENOMEM : LUPE_ECORRUPT;
  *out = segment;
  return LUPE_OK;
}

lupe_status lupe_marks_reader_create(lupe_marks_reader **out, int fd) {
  struct stat st;
  /* Only of a file of this kind can nothing be taken away while it is read. */
  if (!lupe_has_seals(fd, F_SEAL_SHRINK)) return LUPE_ECORRUPT;
  if (fstat(fd, &st) != 0) return LUPE_EIO;
  lupe_marks_reader *r = calloc(1, sizeof *r);
  if (!r) return LUPE_ENOMEM;
  lupe_status status = map_segment(fd, &st, &r->segment);
  if (status != LUPE_OK) {
    free(r);
    return status;
  }
  r->device = st.st_dev;
  r->inode = st.st_ino;
  r->begun = atomic_load_explicit(&r->segment->epoch, memory_order_relaxed) == 0;
  *out = r;
  return LUPE_OK;
}

void lupe_marks_reader_free(lupe_marks_reader *r) {
  if (!r) return;
  munmap(r->segment, LUPE_MARKS_BYTES);
  for (size_t i = 0; i < LUPE_MARK_NAMES_MAX; i++) free(r->names[i]);
  free(r->blocks);
  free(r);
}

bool lupe_marks_reader_same(const lupe_marks_reader *a, const lupe_marks_reader *b) {
  return a->device == b->device && a->inode == b->inode;
}

/* -- names ------------------------------------------------------------------------------------ */

static const lupe_mark_name *name_at(const lupe_marks_reader *r, uint32_t number) {
  if (number >= LUPE_MARK_NAMES_MAX) return NULL;
  const lupe_mark_name *n = &r->segment->names[number];
  return atomic_load_explicit(&n->state, memory_order_acquire) == NAME_THERE ? n : NULL;
}

bool lupe_marks_reader_name(const lupe_marks_reader *r, uint32_t number, char out[LUPE_MARK_NAME_BYTES]) {
  const lupe_mark_name *n = name_at(r, number);
  if (!n) return false;
  memcpy(out, n->text, LUPE_MARK_NAME_BYTES);
  out[LUPE_MARK_NAME_BYTES - 1] = '\0';
  lupe_clean_name(out);
  if (out[0] == '\0') memcpy(out, "?", 2);
  return true;
}

uint64_t lupe_marks_reader_place(const lupe_marks_reader *r, uint32_t number) {
  const lupe_mark_name *n = name_at(r, number);
  return n ? load(&n->place) : 0;
}

uint64_t lupe_marks_reader_names_lost(const lupe_marks_reader *r) {
  return load(&r->segment->names_lost);
}
uint64_t lupe_marks_reader_spans_lost(const lupe_marks_reader *r) {
  return load(&r->segment->spans_lost);
}

/* -- spans ------------------------------------------------------------------------------------ */

uint64_t lupe_span_bucket_begins(uint32_t b) {
  return b < 4 ? b : (uint64_t)(4 + b % 4) << (b / 4 - 1);
}

static bool make_room(lupe_marks_reader *r, uint32_t count) {
  if (count <= r->block_room) return true;
  uint32_t room = r->block_room ? r->block_room : 32;
  while (room < count) room *= 2;
  seen *blocks = realloc(r->blocks, room * sizeof *blocks);
  if (!blocks) return false;
  memset(blocks + r->block_room, 0, (room - r->block_room) * sizeof *blocks);
  r->blocks = blocks;
  r->block_room = room;
  return true;
}

/* The longest of a block since the last reading. A thread that was just counting as the epoch began still
 * writes for the one before: what it wrote is new if it is not what was there. */
static uint64_t longest_of(const lupe_span_block *block, seen *before, uint32_t epoch) {
  uint32_t of = atomic_load_explicit(&block->epoch, memory_order_relaxed);
  uint64_t now = load(&block->longest_ns), known = before->longest_ns;
  before->longest_ns = now;
  return of == epoch || (of == epoch - 1 && now != known) ? now : 0;
}

/* The blocks of each name as a chain, and their longest spans. Which name a block has is not asked again. */
static void look_at_blocks(lupe_marks_reader *r, uint32_t epoch) {
  for (size_t i = 0; i < LUPE_MARK_NAMES_MAX; i++) r->first[i] = NO_BLOCK;
  for (uint32_t i = r->block_count; i-- > 0;) {
    const lupe_span_block *block = &r->segment->blocks[i];
    seen *before = &r->blocks[i];
    uint32_t name = atomic_load_explicit(&block->name, memory_order_acquire) - 1; /* 0: unused */
    if (name >= LUPE_MARK_NAMES_MAX) continue;
    before->new_longest_ns = longest_of(block, before, epoch);
    before->next = r->first[name];
    r->first[name] = (uint16_t)i;
  }
}

/* Sums a name's blocks; false: nothing has changed there. */
static bool sum_blocks(lupe_marks_reader *r, uint32_t name, sums *out, uint64_t *out_longest) {
  bool changed = false;
  *out_longest = 0;
  for (uint16_t i = r->first[name]; i != NO_BLOCK; i = r->blocks[i].next) {
    seen *before = &r->blocks[i];
    uint64_t count = load(&r->segment->blocks[i].count);
    changed |= count != before->count;
    before->count = count;
    if (before->new_longest_ns > *out_longest) *out_longest = before->new_longest_ns;
  }
  if (!changed) return false;
  memset(out, 0, sizeof *out);
  for (uint16_t i = r->first[name]; i != NO_BLOCK; i = r->blocks[i].next) {
    const lupe_span_block *block = &r->segment->blocks[i];
    out->total_ns += load(&block->total_ns);
    for (uint32_t b = 0; b < LUPE_SPAN_BUCKETS; b++) out->buckets[b] += load(&block->buckets[b]);
  }
  return true;
}

static uint64_t difference(uint64_t now, uint64_t before) {
  return now > before ? now - before : 0;
}

/* What is between two sums; false: no span ended. */
static bool compare(const sums *before, const sums *now, uint64_t longest, lupe_span_change *out) {
  uint32_t highest = 0;
  out->count = 0;
  out->total_ns = difference(now->total_ns, before->total_ns);
  for (uint32_t b = 0; b < LUPE_SPAN_BUCKETS; b++) {
    uint64_t more = difference(now->buckets[b], before->buckets[b]);
    out->buckets[b] = more < UINT32_MAX ? (uint32_t)more : UINT32_MAX;
    out->count += out->buckets[b];
    if (more > 0) highest = b;
  }
  uint64_t least = lupe_span_bucket_begins(highest);
  out->longest_ns = longest > least ? longest : least;
  return out->count > 0;
}

lupe_status lupe_marks_reader_read(lupe_marks_reader *r, lupe_span_change_cb each, void *arg) {
  uint32_t count = atomic_load_explicit(&r->segment->block_count, memory_order_acquire);
  if (count > LUPE_SPAN_BLOCKS_MAX) count = LUPE_SPAN_BLOCKS_MAX;
  if (!make_room(r, count)) return LUPE_ENOMEM;
  if (count > r->block_count) r->block_count = count; /* one that has been seen is not forgotten */
  uint32_t epoch = atomic_load_explicit(&r->segment->epoch, memory_order_relaxed);
  look_at_blocks(r, epoch);
  /* At once behind the longest: of a span that ends in between its length may be overwritten unseen. */
  atomic_store_explicit(&r->segment->epoch, epoch + 1, memory_order_relaxed);
  lupe_status status = LUPE_OK;
  for (uint32_t name = 0; name < LUPE_MARK_NAMES_MAX; name++) {
    sums now;
    uint64_t longest;
    lupe_span_change change;
    if (r->first[name] == NO_BLOCK || !sum_blocks(r, name, &now, &longest)) continue;
    if (!r->names[name]) r->names[name] = calloc(1, sizeof(sums));
    if (!r->names[name]) {
      status = LUPE_ENOMEM;
      r->blocks[r->first[name]].count++; /* so that it is looked at again */
      continue;
    }
    change.name = name;
    bool ended = compare(r->names[name], &now, longest, &change);
    *r->names[name] = now;
    if (ended && r->begun) each(arg, &change);
  }
  r->begun = true;
  return status;
}

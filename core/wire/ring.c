#include "core/wire/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/wire/seals.h"

enum {
  RING_MASK = LUPE_RING_BYTES - 8, /* a position, whatever it is, becomes an aligned place inside the ring */
  SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL,
  PUSH_ATTEMPTS = 1000, /* lost races for the head; more means that the tail is nonsense */
  FIGURES_ATTEMPTS = 100,
  FIGURES_WORDS = (sizeof(lupe_allocator_figures) - offsetof(lupe_allocator_figures, time_ms)) / 8,
};
#define STALL_NS UINT64_C(1000000000)

_Static_assert((LUPE_RING_BYTES & (LUPE_RING_BYTES - 1)) == 0, "positions are masked");
_Static_assert(sizeof(lupe_record) % 8 == 0, "frames follow the header");
_Static_assert(offsetof(lupe_record, tid) == 8, "padding of 8 bytes holds commit and kind");
_Static_assert((sizeof(lupe_allocator_figures) - offsetof(lupe_allocator_figures, time_ms)) % 8 == 0,
               "figures are copied as words");

static uint8_t *ring_of(lupe_segment *s) {
  return (uint8_t *)s + LUPE_RING_OFFSET;
}

/* ---- the agent's end ---- */

lupe_status lupe_segment_create(int *out_fd, lupe_segment **out) {
  lupe_status status = LUPE_EIO;
  lupe_segment *s;
  int fd = memfd_create("lupe-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return errno == ENOMEM ? LUPE_ENOMEM : LUPE_EIO;
  /* posix_fallocate would fall back to writing; memfds always know fallocate. */
  if (fallocate(fd, 0, 0, LUPE_SEGMENT_BYTES) != 0) {
    if (errno == ENOSPC || errno == ENOMEM) status = LUPE_ENOMEM;
    goto fail_fd;
  }
  if (fcntl(fd, F_ADD_SEALS, SEALS) != 0) goto fail_fd;
  s = mmap(NULL, LUPE_SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (s == MAP_FAILED) {
    if (errno == ENOMEM) status = LUPE_ENOMEM;
    goto fail_fd;
  }
  s->magic = LUPE_SEGMENT_MAGIC;
  s->version = LUPE_WIRE_VERSION;
  s->segment_bytes = LUPE_SEGMENT_BYTES;
  s->ring_offset = LUPE_RING_OFFSET;
  s->ring_bytes = LUPE_RING_BYTES;
  *out_fd = fd;
  *out = s;
  return LUPE_OK;

fail_fd:;
  int error = errno;
  close(fd);
  errno = error;
  return status;
}

void lupe_segment_unmap(lupe_segment *s) {
  if (s) munmap(s, LUPE_SEGMENT_BYTES);
}

static bool drop(lupe_segment *s) {
  atomic_fetch_add_explicit(&s->counters.dropped_records, 1, memory_order_relaxed);
  return false;
}

bool lupe_ring_push(lupe_segment *s, const lupe_record *fields, const uint64_t *frames) {
  uint16_t depth = fields->depth;
  uint8_t flags = fields->flags;
  if (depth > LUPE_MAX_FRAMES) {
    depth = LUPE_MAX_FRAMES;
    flags |= LUPE_RECORD_TRUNCATED;
  }
  uint32_t size = (uint32_t)(sizeof(lupe_record) + depth * sizeof(uint64_t));
  uint64_t head = atomic_load_explicit(&s->head, memory_order_relaxed);
  uint32_t room;
  for (int attempt = 0;; attempt++) {
    if (attempt == PUSH_ATTEMPTS) return drop(s);
    /* Acquire: the reader has zeroed what it gave back before we write there. */
    uint64_t used = head - atomic_load_explicit(&s->tail, memory_order_acquire);
    if (used > LUPE_RING_BYTES) { /* our head is older than that tail */
      head = atomic_load_explicit(&s->head, memory_order_relaxed);
      continue;
    }
    room = LUPE_RING_BYTES - (uint32_t)(head & RING_MASK);
    uint32_t need = size <= room ? size : room + size;
    if (used + need > LUPE_RING_BYTES) return drop(s);
    if (atomic_compare_exchange_weak_explicit(&s->head, &head, head + need, memory_order_relaxed,
                                              memory_order_relaxed)) {
      break;
    }
  }

  uint8_t *ring = ring_of(s);
  if (size > room) {
    lupe_record *padding = (lupe_record *)(ring + (head & RING_MASK));
    padding->kind = LUPE_RECORD_PADDING;
    atomic_store_explicit(&padding->commit, room, memory_order_release);
    head += room;
  }
  lupe_record *record = (lupe_record *)(ring + (head & RING_MASK));
  record->kind = fields->kind;
  record->flags = flags;
  record->depth = depth;
  record->tid = fields->tid;
  record->weight = fields->weight;
  record->state = fields->state;
  record->switches = fields->switches;
  record->time_ns = fields->time_ns;
  memcpy(record->frames, frames, depth * sizeof(uint64_t));
  atomic_store_explicit(&record->commit, size, memory_order_release);
  return true;
}

void lupe_segment_publish_figures(lupe_segment *s, const lupe_allocator_figures *figures) {
  lupe_allocator_figures *shared = &s->allocator;
  uint64_t sequence = atomic_load_explicit(&shared->sequence, memory_order_relaxed);
  uint64_t *to = (uint64_t *)&shared->time_ms;
  const uint64_t *from = (const uint64_t *)&figures->time_ms;
  atomic_store_explicit(&shared->sequence, sequence + 1, memory_order_relaxed);
  /* Release on every word instead of a fence: whoever sees a new word also sees the odd sequence. */
  for (size_t i = 0; i < FIGURES_WORDS; i++) __atomic_store_n(&to[i], from[i], __ATOMIC_RELEASE);
  atomic_store_explicit(&shared->sequence, sequence + 2, memory_order_release);
}

/* ---- the runtime's end ---- */

struct lupe_ring_reader {
  lupe_segment *segment;
  uint64_t tail;        /* ours; the shared one is only told */
  uint64_t stalled_at;  /* the tail at which an unfinished record was met, ~0: none */
  uint64_t stall_start; /* CLOCK_MONOTONIC ns */
  uint64_t corruptions;
};

static lupe_status map_segment(int fd, lupe_segment **out) {
  struct stat st;
  if (!lupe_has_seals(fd, SEALS) || lupe_has_seals(fd, F_SEAL_WRITE)) return LUPE_ECORRUPT;
  if (fstat(fd, &st) != 0) return LUPE_EIO;
  if (st.st_size != LUPE_SEGMENT_BYTES) {
    /* Another version may have another size: its first words say so. */
    struct {
      uint64_t magic;
      uint32_t version;
    } start;
    if (pread(fd, &start, sizeof start, 0) == sizeof start && start.magic == LUPE_SEGMENT_MAGIC &&
        start.version != LUPE_WIRE_VERSION) {
      return LUPE_EVERSION;
    }
    return LUPE_ECORRUPT;
  }
  lupe_segment *s = mmap(NULL, LUPE_SEGMENT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (s == MAP_FAILED) return errno == ENOMEM ? LUPE_ENOMEM : LUPE_EIO;
  lupe_status status = LUPE_OK;
  if (s->magic != LUPE_SEGMENT_MAGIC) {
    status = LUPE_ECORRUPT;
  } else if (s->version != LUPE_WIRE_VERSION) {
    status = LUPE_EVERSION;
  } else if (s->segment_bytes != LUPE_SEGMENT_BYTES || s->ring_offset != LUPE_RING_OFFSET ||
             s->ring_bytes != LUPE_RING_BYTES) {
    status = LUPE_ECORRUPT;
  }
  if (status != LUPE_OK) {
    lupe_segment_unmap(s);
    return status;
  }
  *out = s;
  return LUPE_OK;
}

lupe_status lupe_ring_reader_create(lupe_ring_reader **out, int segment_fd) {
  lupe_ring_reader *r = calloc(1, sizeof *r);
  if (!r) return LUPE_ENOMEM;
  lupe_status status = map_segment(segment_fd, &r->segment);
  if (status != LUPE_OK) {
    free(r);
    return status;
  }
  r->tail = atomic_load_explicit(&r->segment->tail, memory_order_relaxed) & ~UINT64_C(7);
  r->stalled_at = UINT64_MAX;
  *out = r;
  return LUPE_OK;
}

void lupe_ring_reader_free(lupe_ring_reader *r) {
  if (!r) return;
  lupe_segment_unmap(r->segment);
  free(r);
}

/* Gives `bytes` behind the tail back, zeroed: 0 in a commit word means "not written yet". */
static void give_back(lupe_ring_reader *r, uint64_t bytes) {
  uint8_t *ring = ring_of(r->segment);
  uint64_t offset = r->tail & RING_MASK;
  uint64_t first = bytes <= LUPE_RING_BYTES - offset ? bytes : LUPE_RING_BYTES - offset;
  memset(ring + offset, 0, first);
  memset(ring, 0, bytes - first);
  r->tail += bytes;
  atomic_store_explicit(&r->segment->tail, r->tail, memory_order_release);
}

static lupe_status throw_away(lupe_ring_reader *r, uint64_t head) {
  uint64_t target = head & ~UINT64_C(7);
  r->corruptions++;
  if (target - r->tail <= LUPE_RING_BYTES) {
    give_back(r, target - r->tail);
  } else {
    r->tail = target;
    give_back(r, 0);
  }
  return LUPE_ECORRUPT;
}

/* The oldest record is reserved and not written. Usually that lasts nanoseconds. A thread that was killed
 * or jumped away there would block the ring for good: so once half of it waits behind such a
 * record for a second, all of it is given up. */
static lupe_status stalled(lupe_ring_reader *r, uint64_t head) {
  uint64_t now_ns = lupe_monotonic_ns();
  if (r->stalled_at != r->tail) {
    r->stalled_at = r->tail;
    r->stall_start = now_ns;
  } else if (head - r->tail > LUPE_RING_BYTES / 2 && now_ns - r->stall_start > STALL_NS) {
    return throw_away(r, head);
  }
  return LUPE_EAGAIN;
}

lupe_status lupe_ring_reader_pop(lupe_ring_reader *r, lupe_record_copy *out) {
  for (int pass = 0; pass < 2; pass++) { /* at most one padding lies before a record */
    uint64_t head = atomic_load_explicit(&r->segment->head, memory_order_relaxed);
    uint64_t used = head - r->tail;
    if (used == 0) return LUPE_EAGAIN;
    if (used > LUPE_RING_BYTES || (head & 7) != 0) return throw_away(r, head);

    uint32_t offset = (uint32_t)(r->tail & RING_MASK);
    uint32_t room = LUPE_RING_BYTES - offset;
    lupe_record *record = (lupe_record *)(ring_of(r->segment) + offset);
    uint32_t size = atomic_load_explicit(&record->commit, memory_order_acquire);
    if (size == 0) return stalled(r, head);
    if ((size & 7) != 0 || size > used || size > room) return throw_away(r, head);
    /* The process may change its memory under us: each field is loaded once, then checked. */
    uint8_t kind = *(volatile uint8_t *)&record->kind;
    if (kind == LUPE_RECORD_PADDING) {
      if (size != room || pass > 0) return throw_away(r, head);
      give_back(r, size);
      continue;
    }
    if (size < sizeof(lupe_record)) return throw_away(r, head);
    uint16_t depth = *(volatile uint16_t *)&record->depth;
    if (kind < LUPE_RECORD_HEAP || kind > LUPE_RECORD_WALL || depth > LUPE_MAX_FRAMES ||
        size != sizeof(lupe_record) + depth * sizeof(uint64_t)) {
      return throw_away(r, head);
    }
    out->kind = kind;
    out->flags = record->flags;
    out->depth = depth;
    out->tid = record->tid;
    out->weight = record->weight;
    out->state = record->state;
    out->switches = record->switches;
    out->time_ns = record->time_ns;
    memcpy(out->frames, record->frames, depth * sizeof(uint64_t));
    give_back(r, size);
    return LUPE_OK;
  }
  return LUPE_EAGAIN;
}

uint64_t lupe_ring_reader_corruptions(const lupe_ring_reader *r) {
  return r->corruptions;
}

const lupe_counters *lupe_ring_reader_counters(const lupe_ring_reader *r) {
  return &r->segment->counters;
}

lupe_status lupe_ring_reader_figures(const lupe_ring_reader *r, lupe_allocator_figures *out) {
  const lupe_allocator_figures *shared = &r->segment->allocator;
  const uint64_t *from = (const uint64_t *)&shared->time_ms;
  lupe_allocator_figures copy = {0};
  uint64_t *to = (uint64_t *)&copy.time_ms;
  for (int attempt = 0; attempt < FIGURES_ATTEMPTS; attempt++) {
    uint64_t before = atomic_load_explicit(&shared->sequence, memory_order_acquire);
    if (before & 1) continue;
    for (size_t i = 0; i < FIGURES_WORDS; i++) to[i] = __atomic_load_n(&from[i], __ATOMIC_ACQUIRE);
    if (atomic_load_explicit(&shared->sequence, memory_order_relaxed) != before) continue;
    if (copy.time_ms == 0) return LUPE_EAGAIN;
    if (copy.class_count > LUPE_SIZE_CLASSES_MAX) return LUPE_ECORRUPT;
    atomic_init(&copy.sequence, before);
    memcpy(out, &copy, sizeof copy);
    return LUPE_OK;
  }
  return LUPE_EAGAIN;
}

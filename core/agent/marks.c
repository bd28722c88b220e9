#include "core/agent/marks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/agent/mark_names.h"
#include "core/agent/span.h"
#include "core/agent/ticks.h"
#include "core/agent/unwind_x86_64.h"

enum {
  SESSION_MAX = (1 << 24) - 1, /* of a free list's head */
};

/* The last number of a session. Written by the agent's thread. */
static uint32_t last_session;

/* Where every second session's segment is. */
typedef struct place {
  _Atomic(lupe_marks *) segment;               /* NULL: not used yet. Never changes once set */
  _Atomic uint32_t given;                      /* blocks, free ones included */
  _Atomic uint64_t free[LUPE_MARK_NAMES_MAX];  /* the first free block of each name, see below */
  _Atomic uint16_t next[LUPE_SPAN_BLOCKS_MAX]; /* of a free block: the next one + 1 */
} place;
static place places[2];

static place *place_of(uint32_t session) {
  return &places[session % 2];
}

lupe_marks *lupe_marks_segment(void) {
  const lupe_wiped *page = lupe_wiped_page;
  uint32_t session = page ? atomic_load(&page->marks_session) : 0;
  return session ? atomic_load_explicit(&place_of(session)->segment, memory_order_relaxed) : NULL;
}

/* ---- free lists ----
 *
 * The head of one: session (24 bits) | how often it has changed (26) | the first block + 1 (14). A block that
 * is given back too late, or was looked at in the meantime, does not fit the head any more. */

enum { BLOCK_BITS = 14, CHANGE_BITS = 26 };
_Static_assert(LUPE_SPAN_BLOCKS_MAX < 1 << BLOCK_BITS, "a block's number + 1 fits");

static uint64_t head(uint32_t session, uint64_t changes, uint32_t first) {
  changes &= (UINT64_C(1) << CHANGE_BITS) - 1;
  return (uint64_t)session << (CHANGE_BITS + BLOCK_BITS) | changes << BLOCK_BITS | first;
}

static uint32_t session_of(uint64_t h) {
  return (uint32_t)(h >> (CHANGE_BITS + BLOCK_BITS));
}

static uint32_t first_of(uint64_t h) {
  return h & ((1U << BLOCK_BITS) - 1);
}

static lupe_span_block *take_free(place *p, lupe_marks *segment, uint32_t session, uint32_t number) {
  uint64_t h = atomic_load_explicit(&p->free[number], memory_order_acquire);
  while (session_of(h) == session && first_of(h) != 0) {
    uint32_t block = first_of(h) - 1;
    uint64_t left =
        head(session, (h >> BLOCK_BITS) + 1, atomic_load_explicit(&p->next[block], memory_order_relaxed));
    if (atomic_compare_exchange_weak_explicit(&p->free[number], &h, left, memory_order_acquire,
                                              memory_order_acquire)) {
      return &segment->blocks[block];
    }
  }
  return NULL;
}

void lupe_marks_give_block(uint32_t session, uint32_t number, const lupe_span_block *block) {
  place *p = place_of(session);
  uint32_t its = (uint32_t)(block - atomic_load_explicit(&p->segment, memory_order_relaxed)->blocks);
  uint64_t h = atomic_load_explicit(&p->free[number], memory_order_relaxed), more;
  do {
    if (session_of(h) != session) return;
    atomic_store_explicit(&p->next[its], (uint16_t)first_of(h), memory_order_relaxed);
    more = head(session, (h >> BLOCK_BITS) + 1, its + 1);
  } while (!atomic_compare_exchange_weak_explicit(&p->free[number], &h, more, memory_order_release,
                                                  memory_order_relaxed));
}

/* ---- new blocks ---- */

/* So that no write finds the machine without memory, which would be a fault. A kernel that cannot tell
 * (before 5.14) gives the pages as they are written to. */
static bool is_there(const lupe_span_block *block) {
  uintptr_t from = (uintptr_t)block & -(uintptr_t)LUPE_PAGE_BYTES, to = (uintptr_t)(block + 1);
  long failed = lupe_system_call(SYS_madvise, (long)from, (long)(to - from), MADV_POPULATE_WRITE, 0, 0, 0);
  return failed == 0 || failed == -EINVAL || failed == -ENOSYS || failed == -EPERM;
}

static lupe_span_block *take_new(place *p, lupe_marks *segment, uint32_t number) {
  uint32_t given = atomic_load_explicit(&p->given, memory_order_relaxed);
  do {
    if (given == LUPE_SPAN_BLOCKS_MAX) return NULL;
  } while (!atomic_compare_exchange_weak_explicit(&p->given, &given, given + 1, memory_order_relaxed,
                                                  memory_order_relaxed));
  lupe_span_block *block = &segment->blocks[given];
  if (!is_there(block)) return NULL;
  atomic_store_explicit(&block->name, number + 1, memory_order_release);
  uint32_t told = atomic_load_explicit(&segment->block_count, memory_order_relaxed);
  while (told <= given &&
         !atomic_compare_exchange_weak_explicit(&segment->block_count, &told, given + 1, memory_order_release,
                                                memory_order_relaxed)) {
  }
  return block;
}

lupe_span_block *lupe_marks_take_block(uint32_t session, uint32_t number, lupe_marks **out_segment) {
  place *p = place_of(session);
  lupe_marks *segment = atomic_load_explicit(&p->segment, memory_order_relaxed);
  lupe_span_block *block = take_free(p, segment, session, number);
  if (!block) block = take_new(p, segment, number);
  if (!block) atomic_fetch_add_explicit(&segment->spans_lost, 1, memory_order_relaxed);
  *out_segment = segment;
  return block;
}

/* ---- sessions ---- */

/* NULL: no. Not by the C library's function: a program may have one of its own, which keeps books. */
static void *map(void *at, long protection, long how, int fd) {
  long mapped =
      lupe_system_call(SYS_mmap, (long)at, LUPE_MARKS_BYTES, protection, how | MAP_NORESERVE, fd, 0);
  return mapped < 0 && mapped > -4096 ? NULL : (void *)mapped;
}

/* What is behind a place is nobody's from now on. */
static void vacate(place *p) {
  lupe_marks *segment = atomic_load_explicit(&p->segment, memory_order_relaxed);
  if (segment) map(segment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1);
}

static lupe_status make(int *out_fd) {
  int fd = memfd_create("lupe-marks", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return errno == ENOMEM ? LUPE_ENOMEM : LUPE_EIO;
  /* What is written to without asking is there from the beginning. */
  if (ftruncate(fd, LUPE_MARKS_BYTES) != 0 || fallocate(fd, 0, 0, offsetof(lupe_marks, blocks)) != 0 ||
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    lupe_status status = errno == ENOMEM || errno == ENOSPC ? LUPE_ENOMEM : LUPE_EIO;
    close(fd);
    return status;
  }
  *out_fd = fd;
  return LUPE_OK;
}

static lupe_status put(place *p, int fd) {
  lupe_marks *segment = atomic_load_explicit(&p->segment, memory_order_relaxed);
  if (!segment) {
    segment = map(NULL, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (!segment) return LUPE_ENOMEM;
    atomic_store_explicit(&p->segment, segment, memory_order_relaxed);
  }
  if (!map(segment, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd)) return LUPE_ENOMEM;
  segment->magic = LUPE_MARKS_MAGIC;
  segment->version = LUPE_MARKS_VERSION;
  segment->bytes = LUPE_MARKS_BYTES;
  return LUPE_OK;
}

lupe_status lupe_marks_open(int *out_fd) {
  int fd;
  if (!lupe_spans_prepare()) return LUPE_EIO;
  lupe_status status = make(&fd);
  if (status != LUPE_OK) return status;
  uint32_t session = last_session == SESSION_MAX ? 1 : last_session + 1;
  place *p = place_of(session);
  status = put(p, fd);
  if (status != LUPE_OK) {
    close(fd);
    return status;
  }
  last_session = session;
  atomic_store_explicit(&p->given, 0, memory_order_relaxed);
  for (uint32_t n = 0; n < LUPE_MARK_NAMES_MAX; n++) {
    atomic_store_explicit(&p->free[n], head(session, 0, 0), memory_order_relaxed);
  }
  atomic_store(&lupe_wiped_page->marks_session, session);
  atomic_store_explicit(&lupe_wiped_page->span_scale, lupe_ticks_measure(), memory_order_release);
  lupe_mark_names_tell(lupe_marks_segment());
  *out_fd = fd;
  return LUPE_OK;
}

void lupe_marks_refresh(void) {
  if (lupe_marks_session() == 0) return;
  atomic_store_explicit(&lupe_wiped_page->span_scale, lupe_ticks_measure(), memory_order_relaxed);
}

void lupe_marks_close(void) {
  uint32_t session = atomic_load(&lupe_wiped_page->marks_session);
  if (session == 0) return;
  atomic_store(&lupe_wiped_page->span_scale, 0);
  atomic_store(&lupe_wiped_page->marks_session, 0);
  vacate(place_of(session));
}

void lupe_marks_after_fork_in_child(void) {
  vacate(&places[0]);
  vacate(&places[1]);
}

#include "core/agent/span.h"

#include <cpuid.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "core/agent/mark_names.h"
#include "core/agent/marks.h"
#include "core/agent/ticks.h"
#include "core/agent/unwind_x86_64.h"
#include "core/lupe.h"

#define LIKELY(x) __builtin_expect(!!(x), 1)

/* What a thread counts in. */
typedef struct table {
  uint32_t session; /* that the blocks are of */
  uint32_t used;    /* blocks from here on are NULL */
  lupe_marks *segment;
  struct table *next;                           /* of `abandoned` */
  lupe_span_block *blocks[LUPE_MARK_NAMES_MAX]; /* at (number + 1) % LUPE_MARK_NAMES_MAX: a mark's id */
} table;

static table none; /* of threads that have not ended a span: no session, no blocks */
static _Thread_local table *mine = &none;
static pthread_key_t key; /* both by the agent's thread */
static bool has_key;
static _Atomic(table *) abandoned; /* of threads that ended while no session ran */

static uint32_t place_of(uint32_t id) {
  return id % LUPE_MARK_NAMES_MAX;
}

static uint32_t number_at(uint32_t place) {
  return (place - 1) % LUPE_MARK_NAMES_MAX;
}

/* ---- threads that come and go ---- */

static void unmap(table *t) {
  lupe_system_call(SYS_munmap, (long)t, sizeof *t, 0, 0, 0, 0);
}

/* While no session runs, the program may be one that has forbidden itself system calls. */
static void on_end(void *arg) {
  table *t = arg;
  mine = &none;
  if (lupe_marks_session() == 0) {
    t->next = atomic_load_explicit(&abandoned, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&abandoned, &t->next, t, memory_order_release,
                                                  memory_order_relaxed)) {
    }
    return;
  }
  for (uint32_t i = 0; i < t->used; i++) {
    if (t->blocks[i]) lupe_marks_give_block(t->session, number_at(i), t->blocks[i]);
  }
  unmap(t);
}

static bool has_lzcnt(void) {
  unsigned a, b, c, d;
  return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & 1U << 5) != 0;
}

bool lupe_spans_prepare(void) {
  atomic_store_explicit(&lupe_wiped_page->has_lzcnt, has_lzcnt(), memory_order_relaxed);
  if (!has_key) has_key = pthread_key_create(&key, on_end) == 0;
  for (table *t = atomic_exchange(&abandoned, NULL), *next; t; t = next) {
    next = t->next;
    unmap(t);
  }
  return has_key;
}

/* pthread_setspecific may call malloc, which may be the program's and have spans: these find the table. */
static table *make_table(void) {
  long at = lupe_system_call(SYS_mmap, 0, sizeof(table), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                             -1, 0);
  if (at < 0 && at > -4096) return NULL;
  mine = (table *)at;
  pthread_setspecific(key, mine);
  return mine;
}

/* ---- counting ---- */

/* See lupe_snapshot_span. */
#define LAST_BUCKET_NS (UINT64_C(7) << 38)
_Static_assert(LUPE_SPAN_BUCKETS == 160, "the last one begins there");
#define NEGATIVE_NS (UINT64_C(1) << 60) /* nothing lasts 36 years */

/* BSR takes many processors four times as long as LZCNT, which is another instruction on old ones. */
static inline uint64_t leading_zeros(uint64_t value, bool by_lzcnt) {
  uint64_t zeros;
  if (LIKELY(by_lzcnt)) {
    __asm__("lzcnt %1, %0" : "=r"(zeros) : "r"(value) : "cc");
  } else {
    zeros = (uint64_t)__builtin_clzll(value);
  }
  return zeros;
}

static inline bool has_plain_bucket(uint64_t ns) {
  return LIKELY(ns - 4 < LAST_BUCKET_NS - 4);
}

enum { FOUR_BYTES = 4 * sizeof(uint64_t) };

/* Of 4 and more: the three highest bits count from 4 to 7, and with 61 zeros before them begin at bucket 0.
 */
static inline _Atomic uint64_t *plain_bucket(lupe_span_block *block, uint64_t ns, bool by_lzcnt) {
  uint64_t zeros = leading_zeros(ns, by_lzcnt);
  uintptr_t with_none = (uintptr_t)block->buckets + 61 * FOUR_BYTES;
  return (_Atomic uint64_t *)(with_none - zeros * FOUR_BYTES) + (ns << zeros >> 61);
}

/* Nobody else writes there. */
static inline void add(_Atomic uint64_t *counter, uint64_t by) {
  atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
                        memory_order_relaxed);
}

static inline void count(lupe_span_block *block, _Atomic uint64_t *bucket, uint64_t ns,
                         const lupe_marks *segment) {
  uint32_t epoch = atomic_load_explicit(&segment->epoch, memory_order_relaxed);
  add(bucket, 1);
  add(&block->count, 1);
  add(&block->total_ns, ns);
  if (LIKELY(atomic_load_explicit(&block->epoch, memory_order_relaxed) == epoch &&
             atomic_load_explicit(&block->longest_ns, memory_order_relaxed) >= ns)) {
    return;
  }
  atomic_store_explicit(&block->longest_ns, ns, memory_order_relaxed);
  atomic_store_explicit(&block->epoch, epoch, memory_order_release);
}

/* Of any duration. A negative one, where a core's counter is behind another's, is 0. */
__attribute__((noinline, cold)) static void count_any(lupe_span_block *block, uint64_t ns,
                                                      const lupe_marks *segment) {
  if (ns > NEGATIVE_NS) ns = 0;
  _Atomic uint64_t *bucket = has_plain_bucket(ns) ? plain_bucket(block, ns, false)
                                                  : &block->buckets[ns < 4 ? ns : LUPE_SPAN_BUCKETS - 1];
  count(block, bucket, ns, segment);
}

static void lose(void) {
  lupe_marks *segment = lupe_marks_segment();
  if (segment) atomic_fetch_add_explicit(&segment->spans_lost, 1, memory_order_relaxed);
}

/* The thread's first span, or the first one under this name, or of this session. */
static void count_first(uint32_t session, uint32_t place, uint64_t ns) {
  table *t = mine != &none ? mine : make_table();
  if (!t) {
    lose();
    return;
  }
  if (t->session != session) {
    memset(t->blocks, 0, t->used * sizeof t->blocks[0]);
    t->used = 0;
    t->session = session;
  }
  if (!t->blocks[place]) {
    lupe_span_block *block = lupe_marks_take_block(session, number_at(place), &t->segment);
    if (!block) return;
    t->blocks[place] = block;
    if (t->used <= place) t->used = place + 1;
  }
  count_any(t->blocks[place], ns, t->segment);
}

/* ---- what every span passes through ----
 *
 * Whatever is rare is another function, and called last: so nothing has to be kept. */

static bool is_plain(uint64_t scale) {
  return LIKELY(scale > LUPE_TICKS_ARE_NS);
}

__attribute__((noinline, cold)) static lupe_span begin_rarely(lupe_mark *mark, const void *place,
                                                              uint64_t scale) {
  if (scale == 0) return (lupe_span){mark, 0};
  if (!__atomic_load_n(&mark->begun, __ATOMIC_ACQUIRE)) {
    lupe_mark_begun(lupe_mark_number(mark), (uint64_t)(uintptr_t)place);
    __atomic_store_n(&mark->begun, 1, __ATOMIC_RELEASE);
  }
  return (lupe_span){mark, lupe_ticks_now(scale)};
}

__attribute__((aligned(64))) lupe_span lupe_span_begin(lupe_mark *mark) {
  const lupe_wiped *page = lupe_wiped_page;
  if (!page) return (lupe_span){mark, 0};
  uint64_t scale = atomic_load_explicit(&page->span_scale, memory_order_relaxed);
  if (!is_plain(scale) || !LIKELY(__atomic_load_n(&mark->begun, __ATOMIC_ACQUIRE))) {
    return begin_rarely(mark, __builtin_return_address(0), scale);
  }
  return (lupe_span){mark, __builtin_ia32_rdtsc()};
}

/* By the clock, of a second or more, or without a block yet, or without a session. */
__attribute__((noinline, cold)) static void end_rarely(uint32_t place, uint64_t began, uint64_t scale) {
  uint32_t session = lupe_marks_session();
  if (scale != 0 && session != 0) {
    count_first(session, place, lupe_ticks_ns(lupe_ticks_now(scale) - began, scale));
  }
}

/* What time this takes is that of one chain, from the counter to the bucket that is loaded: the processor
 * reads its counter again only when that is done. So the chain is kept short (the counter's lower half is
 * enough), and all that can be beside it is beside it. */
__attribute__((aligned(64))) void lupe_span_end(lupe_span *span) {
  uint64_t began = span->began;
  if (began == 0) return;
  const lupe_wiped *page = lupe_wiped_page;
  const table *t = mine;
  uint64_t scale = atomic_load_explicit(&page->span_scale, memory_order_acquire);
  uint32_t session = atomic_load_explicit(&page->marks_session, memory_order_relaxed);
  bool by_lzcnt = atomic_load_explicit(&page->has_lzcnt, memory_order_relaxed);
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  uint32_t ticks = low - (uint32_t)began;
  bool is_short = ((uint64_t)high << 32 | low) - began == ticks;
  span->began = 0;
  uint32_t place = place_of(__atomic_load_n(&span->mark->id, __ATOMIC_RELAXED));
  lupe_span_block *block = t->blocks[place];
  if (!is_plain(scale) || !LIKELY(t->session == session && block && is_short)) {
    end_rarely(place, began, scale);
    return;
  }
  uint64_t ns = lupe_ticks_ns(ticks, scale);
  if (!LIKELY(ns >= 4)) {
    count_any(block, ns, t->segment);
    return;
  }
  count(block, plain_bucket(block, ns, by_lzcnt), ns, t->segment);
}

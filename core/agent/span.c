#include "core/agent/span.h"

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
  struct table *next; /* of `abandoned` */
  lupe_span_block *blocks[LUPE_MARK_NAMES_MAX];
} table;

static _Thread_local table *mine;
static pthread_key_t key;
static bool has_key;
static _Atomic(table *) abandoned; /* of threads that ended while no session ran */

/* ---- threads that come and go ---- */

static void unmap(table *t) {
  lupe_system_call(SYS_munmap, (long)t, sizeof *t, 0, 0, 0, 0);
}

/* While no session runs, the program may be one that has forbidden itself system calls. */
static void on_end(void *arg) {
  table *t = arg;
  mine = NULL;
  if (lupe_marks_session() == 0) {
    t->next = atomic_load_explicit(&abandoned, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&abandoned, &t->next, t, memory_order_release,
                                                  memory_order_relaxed)) {
    }
    return;
  }
  for (uint32_t n = 0; n < t->used; n++) {
    if (t->blocks[n]) lupe_marks_give_block(t->session, n, t->blocks[n]);
  }
  unmap(t);
}

bool lupe_spans_prepare(void) {
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
static inline uint32_t bucket_of(uint64_t ns) {
  if (ns < 4) return (uint32_t)ns;
  uint32_t exponent = 63 - (uint32_t)__builtin_clzll(ns);
  uint32_t bucket = 4 * (exponent - 2) + (uint32_t)(ns >> (exponent - 2));
  return bucket < LUPE_SPAN_BUCKETS ? bucket : LUPE_SPAN_BUCKETS - 1;
}

/* Nobody else writes there. */
static inline void add(_Atomic uint64_t *counter, uint64_t by) {
  atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
                        memory_order_relaxed);
}

static inline void count(lupe_span_block *block, const lupe_marks *segment, uint64_t ns) {
  uint32_t epoch = atomic_load_explicit(&segment->epoch, memory_order_relaxed);
  add(&block->count, 1);
  add(&block->total_ns, ns);
  add(&block->buckets[bucket_of(ns)], 1);
  if (atomic_load_explicit(&block->epoch, memory_order_relaxed) != epoch) {
    atomic_store_explicit(&block->longest_ns, ns, memory_order_relaxed);
    atomic_store_explicit(&block->epoch, epoch, memory_order_release);
  } else if (atomic_load_explicit(&block->longest_ns, memory_order_relaxed) < ns) {
    atomic_store_explicit(&block->longest_ns, ns, memory_order_relaxed);
  }
}

/* The thread's first span, or the first one under this name, or of this session. */
__attribute__((noinline, cold)) static void count_first(uint32_t session, uint32_t number, uint64_t ns) {
  lupe_marks *segment;
  table *t = mine ? mine : make_table();
  if (!t) {
    segment = lupe_marks_segment();
    if (segment) atomic_fetch_add_explicit(&segment->spans_lost, 1, memory_order_relaxed);
    return;
  }
  if (t->session != session) {
    memset(t->blocks, 0, t->used * sizeof t->blocks[0]);
    t->used = 0;
    t->session = session;
  }
  lupe_span_block *block = t->blocks[number];
  if (!block) block = lupe_marks_take_block(session, number, &segment);
  if (!block) return;
  if (!t->blocks[number]) {
    t->segment = segment;
    t->blocks[number] = block;
  }
  if (t->used <= number) t->used = number + 1;
  count(block, t->segment, ns);
}

__attribute__((noinline, cold)) static void begin_first(lupe_mark *mark, const void *place) {
  lupe_mark_begun(lupe_mark_number(mark), (uint64_t)(uintptr_t)place);
  __atomic_store_n(&mark->begun, 1, __ATOMIC_RELEASE);
}

lupe_span lupe_span_begin(lupe_mark *mark) {
  lupe_span span = {mark, 0};
  const lupe_wiped *page = lupe_wiped_page;
  if (!page || atomic_load_explicit(&page->marks_session, memory_order_acquire) == 0) return span;
  uint64_t ns_per_tick = atomic_load_explicit(&page->span_ns_per_tick, memory_order_relaxed);
  if (!LIKELY(__atomic_load_n(&mark->begun, __ATOMIC_ACQUIRE)))
    begin_first(mark, __builtin_return_address(0));
  span.began = lupe_ticks_now(ns_per_tick);
  return span;
}

void lupe_span_end(lupe_span *span) {
  uint64_t began = span->began;
  if (began == 0) return;
  uint32_t session = lupe_marks_session();
  span->began = 0;
  if (session == 0) return;
  uint64_t ns_per_tick = atomic_load_explicit(&lupe_wiped_page->span_ns_per_tick, memory_order_relaxed);
  uint64_t ticks = lupe_ticks_now(ns_per_tick) - began;
  uint64_t ns = lupe_ticks_ns((int64_t)ticks < 0 ? 0 : ticks, ns_per_tick); /* another core's may be behind */
  uint32_t number = (__atomic_load_n(&span->mark->id, __ATOMIC_RELAXED) - 1) % LUPE_MARK_NAMES_MAX;
  const table *t = mine;
  lupe_span_block *block;
  if (LIKELY(t && t->session == session && (block = t->blocks[number]))) {
    count(block, t->segment, ns);
  } else {
    count_first(session, number, ns);
  }
}

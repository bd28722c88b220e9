/* heap.h -- the agent's side of jemalloc: the sampling hook, activation, heap profiles, figures
 * (heap_figures.c).
 *
 * jemalloc decides which allocations are sampled and keeps the live ones; the hook replaces its unwinder
 * and writes each sample's stack into the ring. mallctl and its kin are weak references: where the
 * process has no jemalloc, everything here answers so and does nothing.
 *
 * The hook runs inside malloc, on any thread, with whatever locks the program holds: it takes no lock,
 * allocates nothing and calls no loader. Its system calls: gettid once per thread, and process_vm_readv where
 * a stack holds an address that is new to the unwinder, or leaves the thread's own stack. */
#ifndef LUPE_AGENT_HEAP_H
#define LUPE_AGENT_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/wire/message.h"
#include "core/wire/record.h"

typedef struct lupe_heap_info {
  lupe_heap_state state;
  bool has_figures;             /* jemalloc is the allocator and keeps statistics */
  uint64_t sample_period_bytes; /* 0 unless profiling is on */
  char allocator[32];           /* "jemalloc VERSION" cut to size, or "system" */
} lupe_heap_info;

/* Finds out what the process's malloc is and installs the hook where it can. Sampling stays as it is.
 * `switched_off`: look, but touch nothing. After lupe_wiped_create; again after lupe_heap_restore. Thread:
 * any, one at a time; allocates (and frees) a block. */
void lupe_heap_prepare(bool switched_off, lupe_heap_info *out);
bool lupe_heap_prepared(void); /* and not restored since; of a forked child's parent, too */

/* From now on samples go to `s`, which must stay mapped; NULL: nowhere. A forked child starts with NULL,
 * without any call. A push that began before may still be under way afterwards. Thread: any. */
void lupe_heap_arm(lupe_segment *s);

/* Switches jemalloc's sampling. Nothing happens where heap profiling is not on. Thread: any but inside
 * malloc. */
void lupe_heap_activate(bool on);

/* No sample comes from now on; prof.active and the hook are what they were before lupe_heap_prepare. Once:
 * what the program sets afterwards is its own. Thread: any but inside malloc. */
void lupe_heap_restore(void);

/* What lupe_heap_prepare found out; all zeros before. */
const lupe_heap_info *lupe_heap_found(void);

/* Writes a heap profile (heap_v2 text) into the calling thread's descriptor `fd`, which must be writable.
 * 0 or an errno; ENOTSUP where heap profiling is not on. Other threads that allocate may wait meanwhile. */
int lupe_heap_dump(int fd);

/* Reads jemalloc's statistics now: the program's, and beside them those of lupe's own threads. LUPE_ENOENT
 * where there are none. About 0.1 ms. */
lupe_status lupe_heap_read_figures(lupe_allocator_figures *out);

void lupe_heap_after_fork_in_child(void); /* forgets what was true of the parent only */

#endif

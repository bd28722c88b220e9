/* proof_roots.h -- what a scan reads: the program's writable memory, as spans, told apart by what is in it.
 * Read from the child's own smaps once, before any other table is made. Left out: what belongs to the agent
 * (its thread's stack, its wiped page, the facts), guard pages, files that are only read, devices. What a
 * fork does not copy, or copies empty, is noted in the scan's `hidden`. */
#ifndef LUPE_AGENT_PROOF_ROOTS_H
#define LUPE_AGENT_PROOF_ROOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/agent/proof_facts.h"
#include "core/agent/proof_mappings.h"
#include "core/agent/proof_scan.h"

typedef enum lupe_proof_root_kind {
  LUPE_ROOT_ANONYMOUS, /* private memory: where the allocator's is, among others */
  LUPE_ROOT_DATA,      /* private, of a file: only pages that were written to count */
  LUPE_ROOT_SHARED,    /* only pages that are in memory */
  LUPE_ROOT_CODE,      /* private memory that is executed: pointers stand anywhere in it */
  LUPE_ROOT_STACK,     /* of the thread `tid` */
} lupe_proof_root_kind;

typedef struct lupe_proof_root {
  lupe_proof_span span;
  lupe_proof_root_kind kind;
  pid_t tid;
} lupe_proof_root;

enum { LUPE_PROOF_WINDOW_PAGES = 512 };

/* What pagemap tells of some pages. */
typedef struct lupe_proof_window {
  uint64_t of; /* the first page's address; 0: nothing */
  uint64_t told[LUPE_PROOF_WINDOW_PAGES];
} lupe_proof_window;

typedef struct lupe_proof_roots {
  lupe_proof_scan *scan;
  lupe_proof_root *list; /* ascending */
  size_t count;
  int pagemap_fd;             /* -1: not to be had; then all pages count */
  lupe_proof_window *windows; /* the last ones that were looked at */
} lupe_proof_roots;

void lupe_proof_roots_find(lupe_proof_roots *out, lupe_proof_scan *s, const lupe_proof_facts *facts,
                           pid_t parents_tid);

/* Calls `take` for the parts of `span`, a part of `root`, that hold anything, in steps of at most `step`
 * bytes (a multiple of the page size), and LUPE_PROOF_OVERLAP_BYTES before them where the last one ended
 * there. */
void lupe_proof_present(const lupe_proof_roots *roots, lupe_proof_root_kind kind, lupe_proof_span span,
                        size_t step, void (*take)(void *arg, lupe_proof_span part), void *arg);

#endif

#include "core/agent/proof_roots.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/agent/control.h"
#include "core/agent/proof_words.h"
#include "core/agent/unwind_x86_64.h"
#include "core/agent/wiped.h"

enum {
  ROOTS_MAX = 1 << 18,
  WINDOW_PAGES = LUPE_PROOF_WINDOW_PAGES, /* of which pagemap or mincore tell at once */
  WINDOW_BYTES = WINDOW_PAGES * LUPE_PAGE_BYTES,
  WINDOWS = 64, /* kept */
  CONTROL_BLOCK_ALIGNMENT = 64,
  SELF_WORD = 2, /* of it: its own address, as in word 0 */
  CLOSED_MAX = 256,
  STACK_MAX = 64 << 20, /* above the stack pointer, where the control block is looked for */
};
#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_SWAPPED (UINT64_C(1) << 62)
#define PAGEMAP_OF_FILE (UINT64_C(1) << 61)
#define PAGEMAP_GUARD (UINT64_C(1) << 58) /* MADV_GUARD_INSTALL: whoever reads it faults */

typedef struct search {
  lupe_proof_roots *roots;
  const lupe_proof_facts *facts;
  lupe_proof_span own[3]; /* the agent's */
  size_t own_count;
  size_t next_mapping; /* of the facts, that is not known yet to be in the child */
  bool missing;        /* a mapping of the parent's, here */
  size_t closed_count; /* of `closed`: what may not be read, though there is something in it */
  lupe_proof_span closed[CLOSED_MAX];
} search;

/* ---- what has to do with one mapping ---- */

static bool begins_with(const char *text, const char *start) {
  return strncmp(text, start, strlen(start)) == 0;
}

static bool is_device(const lupe_proof_mapping *m) {
  if (lupe_proof_mapping_has(m, "io") || lupe_proof_mapping_has(m, "pf")) return true;
  if (begins_with(m->path, "anon_inode:")) return true;
  return begins_with(m->path, "/dev/") && !begins_with(m->path, "/dev/zero") &&
         !begins_with(m->path, "/dev/shm/");
}

/* Nobody but programs writes it, and what they wrote stays when it is read-only later. */
static bool is_memory(const lupe_proof_mapping *m) {
  static const char *const names[] = {"/dev/zero", "/memfd:", "/SYSV", "/dev/shm/"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    if (begins_with(m->path, names[i])) return true;
  }
  return false;
}

/* Programs that are known to keep pointers in another form than memory's own. */
static uint32_t encodes(const lupe_proof_mapping *m) {
  static const char *const runtimes[] = {"/libjvm.so", "/libcoreclr.so",    "/node", "/libnode.so", "/libv8",
                                         "/libmozjs",  "/libjavascriptcore"};
  if (m->anonymous) return 0;
  const char *name = strrchr(m->path, '/');
  if (!name) return 0;
  if (strstr(name, "luajit")) return LUPE_HIDDEN_LUAJIT;
  for (size_t i = 0; i < sizeof runtimes / sizeof runtimes[0]; i++) {
    if (begins_with(name, runtimes[i])) return LUPE_HIDDEN_RUNTIME;
  }
  return 0;
}

static void add(search *s, lupe_proof_span span, lupe_proof_root_kind kind, pid_t tid) {
  lupe_proof_roots *r = s->roots;
  if (span.lo >= span.hi) return;
  if (r->count == ROOTS_MAX) lupe_proof_give_up(r->scan, LUPE_PROOF_TABLES, 0);
  r->list[r->count++] = (lupe_proof_root){span, kind, tid};
}

/* Without what is the agent's. */
static void add_foreign(search *s, lupe_proof_span span, lupe_proof_root_kind kind, pid_t tid) {
  for (size_t i = 0; i < s->own_count; i++) {
    lupe_proof_span own = s->own[i];
    if (span.lo >= own.hi || own.lo >= span.hi) continue;
    add_foreign(s, (lupe_proof_span){span.lo, own.lo > span.lo ? own.lo : span.lo}, kind, tid);
    add_foreign(s, (lupe_proof_span){own.hi < span.hi ? own.hi : span.hi, span.hi}, kind, tid);
    return;
  }
  add(s, span, kind, tid);
}

/* ---- stacks ---- */

static const lupe_proof_thread *standing_in(const search *s, lupe_proof_span span) {
  for (size_t i = 0; i < s->facts->thread_count; i++) {
    uint64_t sp = s->facts->threads[i].sp;
    if (sp >= span.lo && sp < span.hi) return &s->facts->threads[i];
  }
  return NULL;
}

/* Where the control block of the thread that stands at `sp` is: it begins with its own address. 0: nowhere.
 */
static uint64_t find_control_block(uint64_t sp, uint64_t end) {
  if (end - sp > STACK_MAX) end = sp + STACK_MAX;
  uint64_t at = (sp + CONTROL_BLOCK_ALIGNMENT - 1) & -(uint64_t)CONTROL_BLOCK_ALIGNMENT;
  for (; at + CONTROL_BLOCK_ALIGNMENT <= end; at += CONTROL_BLOCK_ALIGNMENT) {
    const uint64_t *words = (const uint64_t *)(uintptr_t)at;
    if (words[0] == at && words[SELF_WORD] == at) return at;
  }
  return 0;
}

/* Above a stack that the C library made stand the thread's static storage, which lives as long as globals,
 * and its control block; and other mappings that happen to touch it. Without a control block nobody knows
 * where a stack ends. What is below the stack pointer counts too: a pointer that a waiting thread has in a
 * register only was often pushed there before. */
static void add_stack(search *s, const lupe_proof_mapping *m, const lupe_proof_thread *t) {
  uint64_t top = m->span.hi;
  if (strcmp(m->path, "[stack]") != 0) {
    uint64_t block = find_control_block(t->sp, m->span.hi);
    top = block - s->facts->thread_storage_bytes;
    if (block == 0 || top < t->sp) {
      add_foreign(s, m->span, LUPE_ROOT_ANONYMOUS, 0);
      return;
    }
  }
  add_foreign(s, (lupe_proof_span){m->span.lo, top}, LUPE_ROOT_STACK, t->tid);
  add_foreign(s, (lupe_proof_span){top, m->span.hi}, LUPE_ROOT_ANONYMOUS, 0);
}

/* ---- the list ---- */

/* The parent's mappings, ascending as these here: one that begins in a gap was left out by the fork, or is
 * gone. */
static void compare(search *s, lupe_proof_span seen) {
  const lupe_proof_facts *f = s->facts;
  while (s->next_mapping < f->mapping_count && f->mappings[s->next_mapping].lo < seen.hi) {
    if (f->mappings[s->next_mapping++].lo < seen.lo) s->missing = true;
  }
}

/* This thread's stack, with its storage, in which the allocator keeps addresses that it was just asked about.
 * What the C library made for the thread hangs from its control block: that counts. So does what lies below:
 * where no guard divides them, the mapping is the program's as well. */
static void note_own_stack(search *s, lupe_proof_span mapping) {
  uint64_t here = (uintptr_t)__builtin_frame_address(0), block = (uintptr_t)pthread_self();
  if (here < mapping.lo || here >= mapping.hi || block < mapping.lo || block >= mapping.hi) return;
  uint64_t lo = block - LUPE_AGENT_STACK_BYTES;
  s->own[s->own_count++] = (lupe_proof_span){lo > mapping.lo ? lo : mapping.lo, block};
}

static bool is_wiped_page(lupe_proof_span span) {
  return span.lo == (uintptr_t)lupe_wiped_page && span.hi == span.lo + LUPE_PAGE_BYTES;
}

/* Programs close memory that they will open again, with pointers in it. Whether there is anything to read. */
static bool note_closed(search *s, const lupe_proof_mapping *m) {
  if (!m->filled) return false;
  if (s->closed_count == CLOSED_MAX) {
    s->roots->scan->hidden |= LUPE_HIDDEN_UNREADABLE;
    return false;
  }
  s->closed[s->closed_count++] = m->span;
  return true;
}

/* Here nobody minds. Not while the list is read: it would change. */
static void open_closed(const search *s) {
  for (size_t i = 0; i < s->closed_count; i++) {
    lupe_proof_span span = s->closed[i];
    if (mprotect((void *)(uintptr_t)span.lo, span.hi - span.lo, PROT_READ) != 0)
      s->roots->scan->hidden |= LUPE_HIDDEN_UNREADABLE;
  }
}

static void take(void *arg, const lupe_proof_mapping *m) {
  search *s = arg;
  lupe_proof_scan *scan = s->roots->scan;
  compare(s, m->span);
  note_own_stack(s, m->span);
  scan->hidden |= encodes(m);
  if (begins_with(m->path, "/[aio]")) scan->hidden |= LUPE_HIDDEN_AIO;
  if (is_device(m)) {
    if (begins_with(m->path, "anon_inode:[io_uring]"))
      scan->hidden |= LUPE_HIDDEN_IO_URING;
    else if (m->writable)
      scan->hidden |= LUPE_HIDDEN_DEVICE;
    return;
  }
  if (begins_with(m->path, "[v")) return; /* vvar, vdso, vsyscall */
  if (!m->readable && !note_closed(s, m)) return;
  if (is_wiped_page(m->span)) return; /* the agent's */
  if (lupe_proof_mapping_has(m, "wf")) scan->hidden |= LUPE_HIDDEN_WIPED;
  if (lupe_proof_mapping_has(m, "um") || lupe_proof_mapping_has(m, "ui"))
    scan->hidden |= LUPE_HIDDEN_USERFAULT;
  if (m->shared) {
    if (m->swapped) scan->hidden |= LUPE_HIDDEN_UNREADABLE; /* nobody tells which of its pages */
    if (m->writable || is_memory(m)) add_foreign(s, m->span, LUPE_ROOT_SHARED, 0);
  } else if (!m->anonymous) {
    if (m->writable || s->roots->pagemap_fd >= 0) add_foreign(s, m->span, LUPE_ROOT_DATA, 0);
  } else if (m->executable) {
    add_foreign(s, m->span, LUPE_ROOT_CODE, 0);
  } else {
    const lupe_proof_thread *t = m->writable ? standing_in(s, m->span) : NULL;
    if (t)
      add_stack(s, m, t);
    else
      add_foreign(s, m->span, LUPE_ROOT_ANONYMOUS, 0);
  }
}

static void note_not_forked(void *arg, const lupe_proof_mapping *m) {
  if (m->writable && lupe_proof_mapping_has(m, "dc")) *(bool *)arg = true;
}

/* A mapping may have gone between the look at the parent and the fork; one that is never copied says so. Of a
 * program that lets nobody look at it, nothing is known. */
static bool leaves_out(pid_t parents_tid) {
  char path[32];
  bool found = false;
  snprintf(path, sizeof path, "/proc/%d/smaps", (int)parents_tid);
  return !lupe_proof_mappings_read(path, note_not_forked, &found) || found;
}

void lupe_proof_roots_find(lupe_proof_roots *out, lupe_proof_scan *scan, const lupe_proof_facts *facts,
                           pid_t parents_tid) {
  size_t list_bytes = ROOTS_MAX * sizeof *out->list;
  *out = (lupe_proof_roots){.scan = scan, .pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)};
  out->list = lupe_proof_table(scan, list_bytes, 0);
  uint64_t facts_at = (uintptr_t)facts->mapping, list_at = (uintptr_t)out->list;
  search s = {.roots = out, .facts = facts, .own_count = 2};
  s.own[0] = (lupe_proof_span){facts_at, facts_at + facts->mapping_bytes};
  s.own[1] = (lupe_proof_span){list_at, list_at + list_bytes};
  if (!lupe_proof_mappings_read("/proc/self/smaps", take, &s))
    lupe_proof_give_up(scan, LUPE_PROOF_NO_PROC, 0);
  open_closed(&s);
  compare(&s, (lupe_proof_span){UINT64_MAX, UINT64_MAX});
  if (s.missing && leaves_out(parents_tid)) scan->hidden |= LUPE_HIDDEN_NOT_FORKED;
  out->windows = lupe_proof_table(scan, WINDOWS * sizeof *out->windows, WINDOWS * sizeof *out->windows);
  lupe_proof_charge(scan, out->count * sizeof *out->list);
}

/* ---- pages ---- */

/* What pagemap tells of the pages of an aligned window; NULL: nothing. Large objects are read piece by piece,
 * and some at a time, so it is kept for a while. */
static const uint64_t *look_at_pagemap(const lupe_proof_roots *roots, uint64_t window) {
  if (roots->pagemap_fd < 0) return NULL;
  lupe_proof_window *kept = &roots->windows[window / WINDOW_BYTES % WINDOWS];
  if (kept->of == window) return kept->told;
  off_t place = (off_t)(window / LUPE_PAGE_BYTES * sizeof kept->told[0]);
  kept->of = 0;
  if (pread(roots->pagemap_fd, kept->told, sizeof kept->told, place) != (ssize_t)sizeof kept->told)
    return NULL;
  kept->of = window;
  return kept->told;
}

/* Which of the pages from `at` on, of one aligned window, hold anything: one byte each in `holds`. All, where
 * nobody tells. */
static void look_at_pages(const lupe_proof_roots *roots, lupe_proof_root_kind kind, uint64_t at, size_t pages,
                          unsigned char *holds) {
  memset(holds, 1, pages);
  if (kind == LUPE_ROOT_SHARED) {
    if (mincore((void *)(uintptr_t)at, pages * LUPE_PAGE_BYTES, holds) != 0) memset(holds, 1, pages);
    return;
  }
  uint64_t window = at & -(uint64_t)WINDOW_BYTES;
  const uint64_t *told = look_at_pagemap(roots, window);
  if (!told) return;
  told += (at - window) / LUPE_PAGE_BYTES;
  for (size_t i = 0; i < pages; i++) {
    bool of_file = kind == LUPE_ROOT_DATA && (told[i] & PAGEMAP_OF_FILE) != 0;
    bool holds_any = (told[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0;
    holds[i] = holds_any && !of_file && (told[i] & PAGEMAP_GUARD) == 0;
  }
}

void lupe_proof_present(const lupe_proof_roots *roots, lupe_proof_root_kind kind, lupe_proof_span span,
                        size_t step, void (*take_part)(void *arg, lupe_proof_span part), void *arg) {
  unsigned char holds[WINDOW_PAGES];
  uint64_t taken = 0; /* up to where */
  for (uint64_t at = span.lo & -(uint64_t)LUPE_PAGE_BYTES; at < span.hi;) {
    size_t pages = (span.hi - at + LUPE_PAGE_BYTES - 1) / LUPE_PAGE_BYTES;
    size_t left = WINDOW_PAGES - at / LUPE_PAGE_BYTES % WINDOW_PAGES;
    if (pages > left) pages = left;
    look_at_pages(roots, kind, at, pages, holds);
    lupe_proof_pass(roots->scan, pages);
    for (size_t i = 0; i < pages;) {
      if ((holds[i] & 1) == 0) {
        i++;
        continue;
      }
      size_t first = i;
      while (i < pages && (holds[i] & 1) != 0 && (i - first) * LUPE_PAGE_BYTES < step) i++;
      lupe_proof_span part = {at + first * LUPE_PAGE_BYTES, at + i * LUPE_PAGE_BYTES};
      if (part.lo < span.lo) part.lo = span.lo;
      if (part.hi > span.hi) part.hi = span.hi;
      if (part.lo == taken) part.lo -= LUPE_PROOF_OVERLAP_BYTES;
      taken = part.hi;
      take_part(arg, part);
    }
    at += pages * LUPE_PAGE_BYTES;
  }
}

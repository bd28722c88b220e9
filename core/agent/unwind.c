#define _GNU_SOURCE
#include "core/agent/unwind.h"

#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <time.h>

#include "core/agent/unwind_cfi.h"
#include "core/agent/unwind_memory.h"
#include "core/agent/unwind_x86_64.h"

/* ---- Rows by address, shared by all threads. ----
 * One slot is two words: the row, and the row xor its key. They are written and read one by one, without
 * order: a reader that sees halves of two writes finds that they do not make its key, and takes the slot for
 * empty. So there is no lock, no writer to wait for, and an interrupted write does no harm. The key is a mix
 * of the address and the identity of the module that was mapped there, so that rows of an unloaded module are
 * never found again. */

enum {
  WAYS = 4,             /* slots of one bucket, one cache line */
  BUCKET_BITS_MIN = 10, /* 64 KiB to begin with: most programs need no more */
  BUCKET_BITS_MAX = 15, /* 2 MiB */
};

typedef struct slot {
  _Atomic uint64_t row;
  _Atomic uint64_t check;
} slot;

static _Alignas(64) slot cache[1 << BUCKET_BITS_MAX][WAYS];
static _Atomic unsigned cache_extra_bits; /* the buckets in use are 2 to the (minimum + this) */
static _Atomic unsigned cache_evictions;  /* since the last growth */

static slot *bucket_of(uint64_t key) {
  unsigned bits = BUCKET_BITS_MIN + atomic_load_explicit(&cache_extra_bits, memory_order_relaxed);
  return cache[key >> (64 - bits)];
}

static lupe_row cache_find(uint64_t key) {
  slot *bucket = bucket_of(key);
  for (unsigned i = 0; i < WAYS; i++) {
    lupe_row row = atomic_load_explicit(&bucket[i].row, memory_order_relaxed);
    uint64_t check = atomic_load_explicit(&bucket[i].check, memory_order_relaxed);
    if ((row ^ check) == key && row != LUPE_ROW_EMPTY) return row;
  }
  return LUPE_ROW_EMPTY;
}

/* Doubles the buckets in use when an eighth of them had to give up a row. Keys index by their high bits, so
 * half of the rows are looked for elsewhere from then on and come back by being read again. */
static void cache_count_eviction(void) {
  unsigned extra = atomic_load_explicit(&cache_extra_bits, memory_order_relaxed);
  unsigned evictions = atomic_fetch_add_explicit(&cache_evictions, 1, memory_order_relaxed) + 1;
  if (extra == BUCKET_BITS_MAX - BUCKET_BITS_MIN || evictions < (1u << (BUCKET_BITS_MIN + extra)) / 8) return;
  if (atomic_compare_exchange_strong_explicit(&cache_extra_bits, &extra, extra + 1, memory_order_relaxed,
                                              memory_order_relaxed)) {
    atomic_store_explicit(&cache_evictions, 0, memory_order_relaxed);
  }
}

static void cache_put(uint64_t key, lupe_row row) {
  slot *bucket = bucket_of(key), *chosen = NULL;
  for (unsigned i = 0; i < WAYS && chosen == NULL; i++) {
    if (atomic_load_explicit(&bucket[i].row, memory_order_relaxed) == LUPE_ROW_EMPTY) chosen = &bucket[i];
  }
  if (chosen == NULL) {
    chosen = &bucket[key % WAYS];
    cache_count_eviction();
  }
  atomic_store_explicit(&chosen->row, row, memory_order_relaxed);
  atomic_store_explicit(&chosen->check, row ^ key, memory_order_relaxed);
}

/* ---- Modules. ---- */

extern int _dl_find_object(void *address, struct dl_find_object *result) __attribute__((weak));

/* What stands at an address range now. `identity` differs for another module, or another build of it, in the
 * same place. */
typedef struct module {
  uint64_t start, bytes;
  uint64_t header; /* .eh_frame_hdr; 0 = none */
  uint64_t identity;
} module;

enum { MODULES_PER_CAPTURE = 4, PRINTS = 512, PRINTED_BYTES = 1024 };

static uint64_t mix(uint64_t x) {
  x *= UINT64_C(0x9e3779b97f4a7c15);
  return x ^ x >> 29;
}

/* A plugin that was rebuilt and loaded again often gets the old one's addresses and even its link_map. What
 * then differs is its first kilobyte: segment sizes and build id. That is read once a second per module: the
 * fingerprint and the second are kept in one word (module hash 24 | second 16 | print 24), so that a torn one
 * cannot exist. */
static _Atomic uint64_t prints[PRINTS];

__attribute__((noinline)) static uint64_t read_print(uint64_t start, size_t bytes) {
  uint64_t words[PRINTED_BYTES / 8], hash = 0;
  if (bytes > sizeof words) bytes = sizeof words;
  size_t got = lupe_memory_read_checked(start, words, bytes) / 8;
  for (size_t i = 0; i < got; i++) hash = mix(hash ^ words[i]);
  return hash >> 40;
}

static uint64_t module_print(const module *m, uint64_t hash) {
  struct timespec now = {0};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  uint64_t stamp = hash >> 40 << 40 | ((uint64_t)now.tv_sec & 0xffff) << 24;
  _Atomic uint64_t *place = &prints[hash % PRINTS];
  uint64_t word = atomic_load_explicit(place, memory_order_relaxed);
  if (word >> 24 == stamp >> 24) return word & 0xffffff;
  uint64_t print = read_print(m->start, m->bytes);
  atomic_store_explicit(place, stamp | print, memory_order_relaxed);
  return print;
}

static bool module_find(uint64_t address, module *out) {
  struct dl_find_object object;
  if (&_dl_find_object == NULL || _dl_find_object((void *)(uintptr_t)address, &object) != 0) return false;
  out->start = (uint64_t)(uintptr_t)object.dlfo_map_start;
  out->bytes = (uint64_t)(uintptr_t)object.dlfo_map_end - out->start;
  out->header = (uint64_t)(uintptr_t)object.dlfo_eh_frame;
  uint64_t hash =
      mix(mix(mix(out->start) ^ out->bytes) ^ out->header) ^ (uint64_t)(uintptr_t)object.dlfo_link_map;
  hash = mix(hash);
  out->identity = mix(hash ^ module_print(out, hash));
  return true;
}

/* ---- One capture. ---- */

typedef struct capture {
  lupe_memory memory;
  lupe_registers at;
  module modules[MODULES_PER_CAPTURE]; /* met so far; a module with a frame on this stack is not unloaded
                                          meanwhile */
  unsigned current, modules_met;
} capture;

static bool enter_module(capture *c, uint64_t address) {
  for (unsigned i = 0; i < MODULES_PER_CAPTURE; i++) {
    if (address - c->modules[i].start < c->modules[i].bytes) {
      c->current = i;
      return true;
    }
  }
  unsigned next = c->modules_met % MODULES_PER_CAPTURE;
  if (!module_find(address, &c->modules[next])) return false;
  c->modules_met++;
  c->current = next;
  return true;
}

static size_t read_module(void *context, uint64_t address, void *to, size_t bytes) {
  (void)context;
  return lupe_memory_read_checked(address, to, bytes);
}

/* Another thread may unload a module that only garbage on the stack refers to; hence checked reads here, too.
 */
__attribute__((noinline)) static lupe_row read_row(const module *m, uint64_t address, uint64_t key) {
  lupe_cfi_image image = {
      .start = m->start, .end = m->start + m->bytes, .header = m->header, .read = read_module};
  lupe_row row = m->header != 0 ? lupe_cfi_row(&image, address) : (lupe_row)LUPE_ROW_UNKNOWN;
  if (row != LUPE_ROW_EMPTY) cache_put(key, row);
  return row;
}

/* `exact`: pc was interrupted. Else it is a return address, and the call before it counts: it may be the
 * last instruction of a function that calls one that never returns. */
static lupe_row find_row(capture *c, uint64_t pc, bool exact) {
  uint64_t address = exact ? pc : pc - 1;
  const module *m = &c->modules[c->current];
  if (address - m->start >= m->bytes) {
    if (!enter_module(c, address)) return LUPE_ROW_EMPTY;
    m = &c->modules[c->current];
  }
  uint64_t key = mix(m->identity ^ address) * UINT64_C(0xd6e8feb86659fd93);
  lupe_row row = cache_find(key);
  return row != LUPE_ROW_EMPTY ? row : read_row(m, address, key);
}

static bool restore(capture *c, lupe_row row, unsigned shift, uint64_t cfa, uint64_t *reg) {
  uint64_t base;
  switch (lupe_row_place_base(row, shift)) {
    case LUPE_BASE_SAME:
      return true;
    case LUPE_BASE_CFA:
      base = cfa;
      break;
    case LUPE_BASE_SP:
      base = c->at.sp;
      break;
    case LUPE_BASE_BP:
      base = c->at.bp;
      break;
    case LUPE_BASE_BX:
      base = c->at.bx;
      break;
    default:
      *reg = LUPE_REGISTER_UNKNOWN;
      return true;
  }
  return lupe_memory_load(&c->memory, base + (uint64_t)lupe_row_place_offset(row, shift), reg);
}

static bool step_out_of_signal(capture *c) {
  uint64_t frame = c->at.sp;
  lupe_registers next;
  bool all = lupe_memory_load(&c->memory, frame + LUPE_SIGFRAME_PC, &next.pc) &&
             lupe_memory_load(&c->memory, frame + LUPE_SIGFRAME_SP, &next.sp) &&
             lupe_memory_load(&c->memory, frame + LUPE_SIGFRAME_BP, &next.bp) &&
             lupe_memory_load(&c->memory, frame + LUPE_SIGFRAME_BX, &next.bx);
  if (!all) return false;
  c->at = next;
  lupe_memory_enter_stack(&c->memory, next.sp);
  return true;
}

/* Applies an ordinary row. False when the caller cannot be found. */
static bool step(capture *c, lupe_row row) {
  uint64_t cfa;
  switch (lupe_row_kind(row)) {
    case LUPE_ROW_SP:
      cfa = c->at.sp + (uint64_t)lupe_row_cfa_offset(row);
      break;
    case LUPE_ROW_BP:
      cfa = c->at.bp + (uint64_t)lupe_row_cfa_offset(row);
      break;
    case LUPE_ROW_BX:
      cfa = c->at.bx + (uint64_t)lupe_row_cfa_offset(row);
      break;
    case LUPE_ROW_DEREF_SP:
    case LUPE_ROW_DEREF_BP: {
      uint64_t base = lupe_row_kind(row) == LUPE_ROW_DEREF_SP ? c->at.sp : c->at.bp;
      if (!lupe_memory_load(&c->memory, base + (uint64_t)lupe_row_cfa_inner(row), &cfa)) return false;
      cfa += (uint64_t)lupe_row_cfa_outer(row);
      break;
    }
    default:
      return false;
  }
  if (cfa <= c->at.sp) return false; /* a stack grows down: going on could turn in a circle */
  uint64_t pc, bp = c->at.bp, bx = c->at.bx;
  if (!lupe_memory_load(&c->memory, cfa + LUPE_RETURN_ADDRESS_OFFSET, &pc)) return false;
  if (!restore(c, row, LUPE_ROW_BP_SHIFT, cfa, &bp) || !restore(c, row, LUPE_ROW_BX_SHIFT, cfa, &bx))
    return false;
  c->at = (lupe_registers){.pc = pc, .sp = cfa, .bp = bp, .bx = bx};
  return true;
}

static size_t walk(const lupe_registers *from, bool exact, bool leave_out_first, uint64_t *pcs, size_t max,
                   bool *truncated) {
  capture c;
  lupe_memory_open(&c.memory);
  lupe_memory_enter_stack(&c.memory, from->sp);
  c.at = *from;
  c.current = c.modules_met = 0;
  for (unsigned i = 0; i < MODULES_PER_CAPTURE; i++) c.modules[i].start = c.modules[i].bytes = 0;

  size_t depth = 0;
  *truncated = true;
  for (bool first = leave_out_first;; first = false) {
    if (c.at.pc == 0) { /* by convention below the first function of a hand-made stack */
      *truncated = false;
      break;
    }
    if (!first) {
      if (depth == max) break;
      pcs[depth++] = c.at.pc;
    }
    lupe_row row = find_row(&c, c.at.pc, exact);
    unsigned kind = lupe_row_kind(row);
    /* ld.so's entry code has no unwind information but marks the end as the ABI asks for: by BP = 0. */
    if (kind == LUPE_ROW_END || (kind == LUPE_ROW_UNKNOWN && c.at.bp == 0)) {
      *truncated = false;
      break;
    }
    exact = kind == LUPE_ROW_SIGNAL;
    if (!(exact ? step_out_of_signal(&c) : step(&c, row))) break;
  }
  return depth;
}

/* ---- The interface. ---- */

bool lupe_unwind_supported(void) {
  return &_dl_find_object != NULL;
}

size_t lupe_unwind_from(const lupe_registers *regs, uint64_t *pcs, size_t max, bool *truncated) {
  return walk(regs, true, false, pcs, max, truncated);
}

/* Called by lupe_unwind's entry code only, hence not static. */
__attribute__((visibility("hidden"), used)) size_t lupe_unwind_caller(const lupe_registers *regs,
                                                                      uint64_t *pcs, size_t max,
                                                                      bool *truncated);
size_t lupe_unwind_caller(const lupe_registers *regs, uint64_t *pcs, size_t max, bool *truncated) {
  return walk(regs, false, true, pcs, max, truncated);
}

__attribute__((naked)) size_t lupe_unwind(uint64_t *pcs __attribute__((unused)),
                                          size_t max __attribute__((unused)),
                                          bool *truncated __attribute__((unused))) {
  LUPE_UNWIND_ENTRY;
}

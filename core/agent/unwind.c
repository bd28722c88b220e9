#define _GNU_SOURCE
#include "core/agent/unwind.h"

#include <dlfcn.h>
#include <link.h>
#include <stdatomic.h>
#include <time.h>

#include "core/agent/unwind_cfi.h"
#include "core/agent/unwind_code.h"
#include "core/agent/unwind_fde.h"
#include "core/agent/unwind_memory.h"
#include "core/agent/unwind_rows.h"
#include "core/agent/unwind_x86_64.h"

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

/* A plugin that was rebuilt and loaded again often gets the old one's addresses and even its link_map. What
 * then differs is its first kilobyte: segment sizes and build id. That is read once a second per module: the
 * fingerprint and the second are kept in one word (module hash 24 | second 16 | print 24), so that a torn one
 * cannot exist. */
static _Atomic uint64_t prints[PRINTS];

__attribute__((noinline)) static uint64_t read_print(uint64_t start, size_t bytes) {
  uint64_t words[PRINTED_BYTES / 8], hash = 0;
  if (bytes > sizeof words) bytes = sizeof words;
  size_t got = lupe_memory_read_checked(start, words, bytes) / 8;
  for (size_t i = 0; i < got; i++) hash = lupe_rows_mix(hash ^ words[i]);
  return hash >> 40;
}

static unsigned coarse_second(void) {
  struct timespec now = {0};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now); /* in the vDSO */
  return (unsigned)now.tv_sec;
}

static uint64_t module_print(const module *m, uint64_t hash, unsigned second) {
  uint64_t stamp = hash >> 40 << 40 | (uint64_t)(second & 0xffff) << 24;
  _Atomic uint64_t *place = &prints[hash % PRINTS];
  uint64_t word = atomic_load_explicit(place, memory_order_relaxed);
  if (word >> 24 == stamp >> 24) return word & 0xffffff;
  uint64_t print = read_print(m->start, m->bytes);
  atomic_store_explicit(place, stamp | print, memory_order_relaxed);
  return print;
}

__attribute__((always_inline)) static inline bool module_find(uint64_t address, unsigned second,
                                                              module *out) {
  struct dl_find_object object;
  if (&_dl_find_object == NULL || _dl_find_object((void *)(uintptr_t)address, &object) != 0) return false;
  out->start = (uint64_t)(uintptr_t)object.dlfo_map_start;
  out->bytes = (uint64_t)(uintptr_t)object.dlfo_map_end - out->start;
  out->header = (uint64_t)(uintptr_t)object.dlfo_eh_frame;
  uint64_t hash = lupe_rows_mix(lupe_rows_mix(out->start + 3 * out->bytes) ^ lupe_rows_mix(out->header) ^
                                (uint64_t)(uintptr_t)object.dlfo_link_map);
  out->identity = hash ^ lupe_rows_mix(module_print(out, hash, second));
  return true;
}

/* ---- One capture. ---- */

typedef struct capture {
  lupe_memory memory;
  module
      modules[MODULES_PER_CAPTURE]; /* met so far; one with a frame on this stack is not unloaded meanwhile */
  unsigned modules_met;
  unsigned second;
} capture;

__attribute__((always_inline)) static inline bool enter_module(capture *c, uint64_t address, module *out) {
  for (unsigned i = 0; i < MODULES_PER_CAPTURE; i++) {
    if (address - c->modules[i].start < c->modules[i].bytes) {
      *out = c->modules[i];
      return true;
    }
  }
  if (c->modules_met == 0) c->second = coarse_second();
  if (!module_find(address, c->second, out)) return false;
  c->modules[c->modules_met++ % MODULES_PER_CAPTURE] = *out;
  return true;
}

static size_t read_module(void *context, uint64_t address, void *to, size_t bytes) {
  (void)context;
  return lupe_memory_read_checked(address, to, bytes);
}

/* Another thread may unload a module that only garbage on the stack refers to; hence checked reads here, too.
 */
static lupe_cfi_image image_of(const module *m) {
  return (lupe_cfi_image){
      .start = m->start, .end = m->start + m->bytes, .header = m->header, .read = read_module};
}

__attribute__((noinline)) static lupe_row read_row(const module *m, uint64_t address, uint64_t key) {
  lupe_cfi_image image = image_of(m);
  lupe_row row = m->header != 0 ? lupe_cfi_row(&image, address) : (lupe_row)LUPE_ROW_UNCOVERED;
  if (row != LUPE_ROW_EMPTY) lupe_rows_put(address, key, row);
  return row;
}

__attribute__((noinline)) static bool restore_rarely(lupe_memory *memory, lupe_row row, unsigned shift,
                                                     const lupe_registers *now, uint64_t *reg) {
  uint64_t base;
  switch (lupe_row_place_base(row, shift)) {
    case LUPE_BASE_SP:
      base = now->sp;
      break;
    case LUPE_BASE_BP:
      base = now->bp;
      break;
    case LUPE_BASE_BX:
      base = now->bx;
      break;
    default:
      *reg = LUPE_REGISTER_UNKNOWN;
      return true;
  }
  return lupe_memory_load(memory, base + (uint64_t)lupe_row_place_offset(row, shift), reg);
}

/* The value a register had in the caller. `now` is what the registers are in this frame. */
static inline bool restore(lupe_memory *memory, lupe_row row, unsigned shift, uint64_t cfa,
                           const lupe_registers *now, uint64_t *reg) {
  unsigned base = lupe_row_place_base(row, shift);
  if (base == LUPE_BASE_SAME) return true;
  if (base == LUPE_BASE_CFA)
    return lupe_memory_load(memory, cfa + (uint64_t)lupe_row_place_offset(row, shift), reg);
  lupe_registers copy = *now; /* so that the registers themselves need not live in memory */
  uint64_t value;
  if (!restore_rarely(memory, row, shift, &copy, &value)) return false;
  *reg = value;
  return true;
}

__attribute__((always_inline)) static inline bool find_cfa_rarely(lupe_memory *memory, lupe_row row,
                                                                  lupe_registers now, uint64_t *out) {
  uint64_t slot_base = now.bp;
  switch (lupe_row_kind(row)) {
    case LUPE_ROW_BX:
      *out = now.bx + (uint64_t)lupe_row_cfa_offset(row);
      return true;
    case LUPE_ROW_DEREF_SP:
      slot_base = now.sp;
      break;
    case LUPE_ROW_DEREF_BP:
      break;
    default:
      return false;
  }
  uint64_t value;
  if (!lupe_memory_load(memory, slot_base + (uint64_t)lupe_row_cfa_inner(row), &value)) return false;
  *out = value + (uint64_t)lupe_row_cfa_outer(row);
  return true;
}

__attribute__((always_inline)) static inline bool step_out_of_signal(lupe_memory *memory, uint64_t frame,
                                                                     lupe_registers *out) {
  lupe_registers next;
  bool all = lupe_memory_load(memory, frame + LUPE_SIGFRAME_PC, &next.pc) &&
             lupe_memory_load(memory, frame + LUPE_SIGFRAME_SP, &next.sp) &&
             lupe_memory_load(memory, frame + LUPE_SIGFRAME_BP, &next.bp) &&
             lupe_memory_load(memory, frame + LUPE_SIGFRAME_BX, &next.bx);
  if (!all) return false;
  *out = next;
  lupe_memory_enter_stack(memory, next.sp);
  return true;
}

/* Applies an ordinary row. False when the caller cannot be found. */
__attribute__((always_inline)) static inline bool step(lupe_memory *memory, lupe_row row,
                                                       lupe_registers *at) {
  lupe_registers now = *at;
  uint64_t cfa, pc, bp = now.bp, bx = now.bx;
  if (lupe_row_kind(row) == LUPE_ROW_SP) {
    cfa = now.sp + (uint64_t)lupe_row_cfa_offset(row);
  } else if (lupe_row_kind(row) == LUPE_ROW_BP) {
    cfa = now.bp + (uint64_t)lupe_row_cfa_offset(row);
  } else {
    uint64_t found;
    if (!find_cfa_rarely(memory, row, now, &found)) return false;
    cfa = found;
  }
  if (cfa <= now.sp) return false; /* a stack grows down: going on could turn in a circle */
  if (!lupe_memory_load(memory, cfa + LUPE_RETURN_ADDRESS_OFFSET, &pc)) return false;
  if (!restore(memory, row, LUPE_ROW_BP_SHIFT, cfa, &now, &bp)) return false;
  if (!restore(memory, row, LUPE_ROW_BX_SHIFT, cfa, &now, &bx)) return false;
  *at = (lupe_registers){.pc = pc, .sp = cfa, .bp = bp, .bx = bx};
  return true;
}

static inline lupe_row find_row(const module *m, uint64_t address, uint64_t mask) {
  uint64_t key = lupe_rows_key(m->identity, address);
  lupe_row row = lupe_rows_find(address, key, mask);
  return row != LUPE_ROW_EMPTY ? row : read_row(m, address, key);
}

/* Two outermost frames have no unwind information for the byte before their address: ld.so's entry code,
 * which marks the end as the ABI asks for, by BP = 0; and a function whose first instruction was written into
 * a new stack as if it had called (makecontext's, and what other fibers begin with). */
__attribute__((noinline)) static bool ends_uncovered(const module *m, uint64_t pc, uint64_t bp,
                                                     uint64_t mask) {
  if (bp == 0) return true;
  if (pc - m->start >= m->bytes) return false;
  unsigned kind = lupe_row_kind(find_row(m, pc, mask));
  return kind != LUPE_ROW_UNCOVERED && kind != LUPE_ROW_EMPTY;
}

/* ---- A thread that stands still: the kernel tells where, but not its BP. ---- */

static uint64_t function_start(const module *m, uint64_t address) {
  lupe_cfi_image image = image_of(m);
  lupe_cursor cursor = {.image = &image};
  lupe_fde fde;
  return m->header != 0 && lupe_fde_find(&cursor, address, &fde) ? fde.location : 0;
}

/* Whether the frame's BP can be `bp`: where it takes the walk, and how sure that is. */
__attribute__((noinline)) static lupe_call try_bp(capture *c, lupe_row row, uint64_t function, uint64_t bp,
                                                  lupe_registers *at) {
  module caller;
  at->bp = bp;
  if (!step(&c->memory, row, at) || !enter_module(c, at->pc - 1, &caller)) return LUPE_CALL_NONE;
  return lupe_code_call(at->pc, function);
}

/* Whether the next frame up looks like one that keeps BP, too. */
static bool is_linked(capture *c, uint64_t bp, uint64_t callers_bp) {
  uint64_t next, pc;
  module there;
  return callers_bp > bp && callers_bp % 8 == 0 && lupe_memory_load(&c->memory, callers_bp, &next) &&
         next > callers_bp && lupe_memory_load(&c->memory, callers_bp + 8, &pc) &&
         enter_module(c, pc - 1, &there) && lupe_code_call(pc, 0) != LUPE_CALL_NONE;
}

/* A call of something else may have jumped on to the function; it may as well be what an ended call left. */
static unsigned likeliness(capture *c, lupe_call call, uint64_t bp, uint64_t callers_bp) {
  if (call == LUPE_CALL_NONE) return 0;
  if (call == LUPE_CALL_CERTAIN) return 3;
  return is_linked(c, bp, callers_bp) ? 2 : call == LUPE_CALL_UNKNOWN;
}

/* Steps out of a frame whose row needs BP, which is not known: it points to some word above SP. To the one
 * that the function's entry tells, if a call may return from there; else to the likeliest, and of these to
 * the lowest. Only words of the copy count. */
__attribute__((noinline)) static bool step_without_bp(capture *c, const module *m, uint64_t address,
                                                      lupe_row row, lupe_registers *at) {
  unsigned kind = lupe_row_kind(row), checked_left = c->memory.checked_left;
  if (at->bp != LUPE_REGISTER_UNKNOWN || (kind != LUPE_ROW_BP && kind != LUPE_ROW_DEREF_BP)) return false;
  lupe_registers best = *at, now = *at;
  uint64_t function = function_start(m, address), end = c->memory.copy_at + c->memory.copy_bytes, told;
  c->memory.checked_left = 0;
  bool found = lupe_code_frame_bytes(function, &told) &&
               try_bp(c, row, function, at->sp + told, &now) != LUPE_CALL_NONE;
  if (found) {
    best = now;
  } else {
    unsigned most = 0;
    for (uint64_t bp = at->sp; bp < end && most < 3; bp += 8) {
      now = *at;
      unsigned likely = likeliness(c, try_bp(c, row, function, bp, &now), bp, now.bp);
      if (likely > most) {
        most = likely;
        best = now;
      }
    }
    found = most > 0;
  }
  c->memory.checked_left = checked_left;
  *at = best;
  return found;
}

/* ---- The walk. ---- */

typedef struct copied {
  const void *copy;
  size_t bytes;
} copied;

/* `exact`: pc was interrupted. Else it is a return address, and the call before it counts: it may be the
 * last instruction of a function that calls one that never returns.
 * Inlined together with what a frame needs, once for the own stack and once for copies: there is not one
 * register to spare, and what only copies need would make every frame a third dearer. */
__attribute__((always_inline)) static inline size_t walk(const lupe_registers *from, const copied *stack,
                                                         bool exact, bool leave_out_first, uint64_t *pcs,
                                                         size_t max, bool *truncated) {
  capture c;
  c.modules_met = 0;
  for (unsigned i = 0; i < MODULES_PER_CAPTURE; i++) c.modules[i].start = c.modules[i].bytes = 0;
  if (stack != NULL) {
    lupe_memory_open_copy(&c.memory, from->sp, stack->copy, stack->bytes);
  } else {
    lupe_memory_open(&c.memory);
    lupe_memory_enter_stack(&c.memory, from->sp);
  }

  lupe_registers at = *from;
  module here = {0};
  uint64_t mask = lupe_rows_mask();
  size_t depth = 0;
  *truncated = true;
  for (bool first = leave_out_first;; first = false) {
    if (at.pc == 0) { /* by convention below the first function of a hand-made stack */
      *truncated = false;
      break;
    }
    if (at.pc < LUPE_CODE_LOWEST || at.pc > LUPE_CODE_HIGHEST) break; /* garbage: not worth a frame */
    if (!first) {
      if (depth == max) break;
      pcs[depth++] = at.pc;
    }
    uint64_t address = exact ? at.pc : at.pc - 1;
    if (address - here.start >= here.bytes && !enter_module(&c, address, &here)) break;
    lupe_row row = find_row(&here, address, mask);
    unsigned kind = lupe_row_kind(row);
    if (kind == LUPE_ROW_END || (kind == LUPE_ROW_UNCOVERED && ends_uncovered(&here, at.pc, at.bp, mask))) {
      *truncated = false;
      break;
    }
    exact = kind == LUPE_ROW_SIGNAL;
    if (exact) {
      lupe_registers interrupted;
      if (!step_out_of_signal(&c.memory, at.sp, &interrupted)) break;
      at = interrupted;
    } else if (!step(&c.memory, row, &at)) {
      lupe_registers stuck = at;
      if (stack == NULL || !step_without_bp(&c, &here, address, row, &stuck)) break;
      at = stuck;
    }
  }
  return depth;
}

__attribute__((noinline)) static size_t walk_own(const lupe_registers *from, bool exact, bool leave_out_first,
                                                 uint64_t *pcs, size_t max, bool *truncated) {
  return walk(from, NULL, exact, leave_out_first, pcs, max, truncated);
}

/* ---- The interface. ---- */

bool lupe_unwind_supported(void) {
  uint64_t there = 1, seen = 0;
  return &_dl_find_object != NULL &&
         lupe_memory_read_checked((uint64_t)(uintptr_t)&there, &seen, sizeof seen) == sizeof seen;
}

size_t lupe_unwind_from(const lupe_registers *regs, uint64_t *pcs, size_t max, bool *truncated) {
  return walk_own(regs, true, false, pcs, max, truncated);
}

size_t lupe_unwind_copied(const lupe_registers *regs, const void *copy, size_t bytes, uint64_t *pcs,
                          size_t max, bool *truncated) {
  const copied stack = {.copy = copy, .bytes = bytes};
  return walk(regs, &stack, true, false, pcs, max, truncated);
}

/* Called by lupe_unwind's entry code only, hence not static. */
__attribute__((visibility("hidden"), used)) size_t lupe_unwind_caller(const lupe_registers *regs,
                                                                      uint64_t *pcs, size_t max,
                                                                      bool *truncated);
size_t lupe_unwind_caller(const lupe_registers *regs, uint64_t *pcs, size_t max, bool *truncated) {
  return walk_own(regs, false, true, pcs, max, truncated);
}

__attribute__((naked)) size_t lupe_unwind(uint64_t *pcs __attribute__((unused)),
                                          size_t max __attribute__((unused)),
                                          bool *truncated __attribute__((unused))) {
  LUPE_UNWIND_ENTRY;
}

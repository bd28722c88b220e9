/* unwind_x86_64.h -- what the unwinder knows about x86-64: register numbers, the packed form of an unwind
 * row, the kernel's signal frame and pages, the raw system call and the entry that reads the caller's
 * registers. Another architecture brings a file with the same names. */
#ifndef LUPE_AGENT_UNWIND_X86_64_H
#define LUPE_AGENT_UNWIND_X86_64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

/* DWARF numbers of the registers that rows follow. Compilers define the CFA by SP or BP (or by a slot next to
 * BP where the stack is realigned); BX is here for glibc's _dl_runtime_resolve, which every first call
 * through a PLT crosses. */
enum { LUPE_DWARF_BX = 3, LUPE_DWARF_BP = 6, LUPE_DWARF_SP = 7, LUPE_DWARF_RA = 16 };

/* struct rt_sigframe as seen from __restore_rt: a fixed part of the kernel's interface. */
enum { LUPE_SIGFRAME_BP = 120, LUPE_SIGFRAME_BX = 128, LUPE_SIGFRAME_SP = 160, LUPE_SIGFRAME_PC = 168 };

enum { LUPE_PAGE_BYTES = 4096 }; /* the smallest that is mapped, protected or told of */

/* Between these a program's code can lie. */
#define LUPE_CODE_LOWEST UINT64_C(0x1000)
#define LUPE_CODE_HIGHEST UINT64_C(0x00ffffffffffffff) /* five-level page tables */

enum { LUPE_RETURN_ADDRESS_OFFSET = -8 }; /* from the CFA: the only place a call leaves it */

/* What an offset in a row is relative to. In a place, SAME means "was not saved". */
typedef enum lupe_base {
  LUPE_BASE_SAME = 0,
  LUPE_BASE_LOST, /* undefined, or by a rule that rows cannot hold: its value is unknown from here on */
  LUPE_BASE_CFA,
  LUPE_BASE_SP,
  LUPE_BASE_BP,
  LUPE_BASE_BX,
} lupe_base;

typedef struct lupe_place {
  lupe_base base;
  int32_t offset;
} lupe_place;

/* A row: how to get from one frame's registers to its caller's. Packed into 64 bits, so that the cache can
 * hold it in one word:  kind 4 | place of BP 18 | place of BX 18 | CFA 24.  0 is no row. */
typedef uint64_t lupe_row;

enum lupe_row_kind {
  LUPE_ROW_EMPTY = 0,
  LUPE_ROW_END,       /* the outermost frame: its return address is undefined */
  LUPE_ROW_UNCOVERED, /* no unwind information for this code */
  LUPE_ROW_UNKNOWN,   /* unwind information that no row can hold */
  LUPE_ROW_SIGNAL,    /* the caller was interrupted; its registers are in the signal frame */
  LUPE_ROW_SP,        /* CFA = SP + offset */
  LUPE_ROW_BP,        /* CFA = BP + offset */
  LUPE_ROW_BX,        /* CFA = BX + offset */
  LUPE_ROW_DEREF_SP,  /* CFA = *(SP + inner) + outer: hand-written code that moved SP */
  LUPE_ROW_DEREF_BP,  /* CFA = *(BP + inner) + outer: realigned stacks */
};

/* The CFA stands on top: one shift less on the way from a return address to the next. */
enum { LUPE_ROW_BP_SHIFT = 4, LUPE_ROW_BX_SHIFT = 22, LUPE_ROW_CFA_SHIFT = 40 };

static inline int64_t lupe_row_signed(lupe_row row, unsigned shift, unsigned bits) {
  return (int64_t)(row << (64 - shift - bits)) >> (64 - bits);
}
static inline unsigned lupe_row_kind(lupe_row row) {
  return row & 15;
}
static inline int64_t lupe_row_cfa_offset(lupe_row row) {
  return lupe_row_signed(row, LUPE_ROW_CFA_SHIFT, 24);
}
static inline int64_t lupe_row_cfa_inner(lupe_row row) {
  return lupe_row_signed(row, LUPE_ROW_CFA_SHIFT, 16);
}
static inline int64_t lupe_row_cfa_outer(lupe_row row) {
  return lupe_row_signed(row, LUPE_ROW_CFA_SHIFT + 16, 8);
}

/* Places keep their base in the low 3 bits and the offset in units of 8 bytes above. */
enum { LUPE_ROW_PLACE_BITS = 18 };
static inline unsigned lupe_row_place_base(lupe_row row, unsigned shift) {
  return row >> shift & 7;
}
static inline int64_t lupe_row_place_offset(lupe_row row, unsigned shift) {
  return lupe_row_signed(row, shift + 3, LUPE_ROW_PLACE_BITS - 3) * 8;
}

static inline bool lupe_fits(int64_t value, unsigned bits) {
  return value >= -(INT64_C(1) << (bits - 1)) && value < INT64_C(1) << (bits - 1);
}

/* A place that does not fit reads as lost: the frames below stay right, the stack may end early. */
static inline lupe_row lupe_row_pack_place(lupe_place place, unsigned shift) {
  if (place.base == LUPE_BASE_SAME) return 0;
  if (place.base == LUPE_BASE_LOST || place.offset % 8 != 0 ||
      !lupe_fits(place.offset / 8, LUPE_ROW_PLACE_BITS - 3)) {
    return (lupe_row)LUPE_BASE_LOST << shift;
  }
  uint64_t units = (uint64_t)(place.offset / 8) & ((UINT64_C(1) << (LUPE_ROW_PLACE_BITS - 3)) - 1);
  return (units << 3 | (unsigned)place.base) << shift;
}

/* CFA = base + inner, or, with deref, *(base + inner) + outer. Returns LUPE_ROW_UNKNOWN for what does not
 * fit. */
static inline lupe_row lupe_row_pack(lupe_base base, bool deref, int64_t inner, int64_t outer, lupe_place bp,
                                     lupe_place bx) {
  lupe_row row;
  if (!deref) {
    inner += outer;
    if (!lupe_fits(inner, 24)) return LUPE_ROW_UNKNOWN;
    row = (uint64_t)inner << LUPE_ROW_CFA_SHIFT;
    if (base == LUPE_BASE_SP)
      row |= LUPE_ROW_SP;
    else if (base == LUPE_BASE_BP)
      row |= LUPE_ROW_BP;
    else if (base == LUPE_BASE_BX)
      row |= LUPE_ROW_BX;
    else
      return LUPE_ROW_UNKNOWN;
  } else {
    if (!lupe_fits(inner, 16) || !lupe_fits(outer, 8)) return LUPE_ROW_UNKNOWN;
    row = ((uint64_t)inner & 0xffff) << LUPE_ROW_CFA_SHIFT | (uint64_t)outer << (LUPE_ROW_CFA_SHIFT + 16);
    if (base == LUPE_BASE_SP)
      row |= LUPE_ROW_DEREF_SP;
    else if (base == LUPE_BASE_BP)
      row |= LUPE_ROW_DEREF_BP;
    else
      return LUPE_ROW_UNKNOWN;
  }
  return row | lupe_row_pack_place(bp, LUPE_ROW_BP_SHIFT) | lupe_row_pack_place(bx, LUPE_ROW_BX_SHIFT);
}

/* A system call that leaves errno alone. Returns -errno on failure. */
static inline long lupe_system_call(long number, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

/* The body of lupe_unwind, a naked function: makes a lupe_registers {pc, sp, bp, bx} of its caller, as they
 * will be after the return, on the stack and calls lupe_unwind_caller(registers, pcs, max, truncated). */
#define LUPE_UNWIND_ENTRY              \
  __asm__(                             \
      "mov (%rsp), %rax\n\t"           \
      "lea 8(%rsp), %rcx\n\t"          \
      "sub $40, %rsp\n\t"              \
      ".cfi_adjust_cfa_offset 40\n\t"  \
      "mov %rax, (%rsp)\n\t"           \
      "mov %rcx, 8(%rsp)\n\t"          \
      "mov %rbp, 16(%rsp)\n\t"         \
      "mov %rbx, 24(%rsp)\n\t"         \
      "mov %rdx, %rcx\n\t"             \
      "mov %rsi, %rdx\n\t"             \
      "mov %rdi, %rsi\n\t"             \
      "mov %rsp, %rdi\n\t"             \
      "call lupe_unwind_caller\n\t"    \
      "add $40, %rsp\n\t"              \
      ".cfi_adjust_cfa_offset -40\n\t" \
      "ret")

#endif

#include "core/agent/unwind_cfi.h"

#include <string.h>

enum {
  WINDOW_BYTES = 256,        /* read ahead of a cursor */
  SEARCH_ENTRIES = 64,       /* of the search table, read at once: system calls cost more than bytes */
  ENTRY_BYTES_MAX = 1 << 15, /* of one FDE or CIE; real ones stay far below */
  TABLE_ENTRIES_MAX = 1 << 24,
  REMEMBERED_MAX = 8, /* nested DW_CFA_remember_state */
  OPERANDS_MAX = 8,   /* of an expression */
};

/* Pointer encodings (LSB, "DWARF Extensions"). */
enum {
  PE_ABSPTR = 0x00,
  PE_ULEB128 = 0x01,
  PE_UDATA2 = 0x02,
  PE_UDATA4 = 0x03,
  PE_UDATA8 = 0x04,
  PE_SLEB128 = 0x09,
  PE_SDATA2 = 0x0a,
  PE_SDATA4 = 0x0b,
  PE_SDATA8 = 0x0c,
  PE_PCREL = 0x10,
  PE_DATAREL = 0x30,
  PE_OMIT = 0xff,
};

/* ---- A cursor over the image: reads past its end, or of unreadable memory, give 0 and set `failed`. ---- */

typedef enum failure { FINE, MALFORMED, UNCOVERED, UNREADABLE } failure;

typedef struct cursor {
  const lupe_cfi_image *image;
  uint64_t at, end;
  uint64_t window_at;
  size_t window_bytes;
  failure failed;
  uint8_t window[WINDOW_BYTES];
} cursor;

static void fail(cursor *c, failure why) {
  if (c->failed == FINE) c->failed = why;
}

/* Restricts the cursor to [at, at + bytes); the window stays, so that neighbours cost nothing. */
static void seek(cursor *c, uint64_t at, uint64_t bytes) {
  if (at < c->image->start || at >= c->image->end || bytes > c->image->end - at) {
    fail(c, MALFORMED);
    return;
  }
  c->at = at;
  c->end = at + bytes;
}

static bool fill(cursor *c) {
  uint64_t room = c->image->end - c->at;
  c->window_at = c->at;
  c->window_bytes = 0;
  size_t got = c->image->read(c->image->context, c->at, c->window, room < WINDOW_BYTES ? room : WINDOW_BYTES);
  if (got == 0) {
    fail(c, UNREADABLE);
    return false;
  }
  c->window_bytes = got;
  return true;
}

static uint8_t take_byte(cursor *c) {
  if (c->failed != FINE) return 0;
  if (c->at >= c->end) {
    fail(c, MALFORMED);
    return 0;
  }
  if (c->at - c->window_at >= c->window_bytes && !fill(c)) return 0;
  return c->window[c->at++ - c->window_at];
}

static uint64_t take_fixed(cursor *c, unsigned bytes) {
  uint64_t value = 0;
  for (unsigned i = 0; i < bytes; i++) value |= (uint64_t)take_byte(c) << (8 * i);
  return value;
}

static int64_t sign_extend(uint64_t value, unsigned bits) {
  return bits >= 64 ? (int64_t)value : (int64_t)(value << (64 - bits)) >> (64 - bits);
}

static uint64_t take_uleb(cursor *c) {
  uint64_t value = 0;
  for (unsigned shift = 0;; shift += 7) {
    uint8_t byte = take_byte(c);
    if (shift < 64) value |= (uint64_t)(byte & 0x7f) << shift;
    if (!(byte & 0x80)) return value;
    if (shift > 63) {
      fail(c, MALFORMED);
      return 0;
    }
  }
}

static int64_t take_sleb(cursor *c) {
  uint64_t value = 0;
  for (unsigned shift = 0;;) {
    uint8_t byte = take_byte(c);
    if (shift < 64) value |= (uint64_t)(byte & 0x7f) << shift;
    shift += 7;
    if (!(byte & 0x80)) return byte & 0x40 ? sign_extend(value, shift < 64 ? shift : 64) : (int64_t)value;
    if (shift > 69) {
      fail(c, MALFORMED);
      return 0;
    }
  }
}

static void skip(cursor *c, uint64_t bytes) {
  if (bytes > c->end - c->at)
    fail(c, MALFORMED);
  else
    c->at += bytes;
}

static uint64_t take_value(cursor *c, uint8_t encoding) {
  switch (encoding & 0x0f) {
    case PE_ABSPTR:
    case PE_UDATA8:
    case PE_SDATA8:
      return take_fixed(c, 8);
    case PE_UDATA4:
      return take_fixed(c, 4);
    case PE_SDATA4:
      return (uint64_t)sign_extend(take_fixed(c, 4), 32);
    case PE_UDATA2:
      return take_fixed(c, 2);
    case PE_SDATA2:
      return (uint64_t)sign_extend(take_fixed(c, 2), 16);
    case PE_ULEB128:
      return take_uleb(c);
    case PE_SLEB128:
      return (uint64_t)take_sleb(c);
    default:
      fail(c, MALFORMED);
      return 0;
  }
}

static uint64_t take_pointer(cursor *c, uint8_t encoding) {
  uint64_t here = c->at;
  uint64_t value = take_value(c, encoding);
  switch (encoding & 0xf0) {
    case 0x00:
      return value;
    case PE_PCREL:
      return here + value;
    case PE_DATAREL:
      return c->image->header + value;
    default:
      fail(c, MALFORMED);
      return 0; /* text, function relative, aligned, indirect: nobody emits them here */
  }
}

/* ---- Finding the FDE. ---- */

typedef struct table {
  uint64_t first; /* address of entry 0: two int32 relative to the header: the function and its FDE, sorted */
  uint64_t count;
} table;

static bool read_header(cursor *c, table *out) {
  seek(c, c->image->header, c->image->header < c->image->end ? c->image->end - c->image->header : 0);
  uint8_t version = take_byte(c), frame_encoding = take_byte(c), count_encoding = take_byte(c);
  uint8_t table_encoding = take_byte(c);
  if (c->failed == FINE &&
      (version != 1 || count_encoding == PE_OMIT || table_encoding != (PE_DATAREL | PE_SDATA4))) {
    fail(c, MALFORMED); /* no table to search: a scan of all of .eh_frame would have no bound */
  }
  if (frame_encoding != PE_OMIT) take_pointer(c, frame_encoding);
  uint64_t count = take_pointer(c, count_encoding);
  if (c->failed != FINE) return false;
  if (count == 0 || count > TABLE_ENTRIES_MAX || count * 8 > c->end - c->at) {
    fail(c, MALFORMED);
    return false;
  }
  *out = (table){.first = c->at, .count = count};
  return true;
}

/* Where in [low, high) to look next: by the share of the address range, since functions spread about evenly.
 */
static uint64_t guess(uint64_t low, uint64_t high, int64_t low_key, int64_t high_key, int64_t key) {
  if (high_key <= low_key || key <= low_key) return low;
  if (key >= high_key) return high - 1;
  double share = (double)(key - low_key) / (double)(high_key - low_key);
  uint64_t at = low + (uint64_t)(share * (double)(high - low));
  return at < high ? at : high - 1;
}

/* Interpolating, with every second step a bisection, so that an uneven table costs 2 log2(n) steps at most.
 * Own function: its window leaves the stack before the program of the FDE is run. */
__attribute__((noinline)) static uint64_t find_fde(cursor *c, const table *t, uint64_t pc) {
  const lupe_cfi_image *image = c->image;
  struct entry {
    int32_t function, fde;
  } window[SEARCH_ENTRIES];
  int64_t key = (int64_t)(pc - image->header);
  if (!lupe_fits(key, 32)) {
    fail(c, MALFORMED);
    return 0;
  }
  uint64_t low = 0,
           high = t->count; /* the last entry whose function is <= key lies in [low, high) or below low */
  int64_t low_key = (int64_t)(image->start - image->header), high_key = (int64_t)(image->end - image->header);
  bool bisect = false, found = false;
  int32_t found_fde = 0;
  while (low < high) {
    uint64_t middle = bisect ? low + (high - low) / 2 : guess(low, high, low_key, high_key, key);
    bisect = !bisect;
    uint64_t from = middle > low + SEARCH_ENTRIES / 2 ? middle - SEARCH_ENTRIES / 2 : low;
    uint64_t count = high - from < SEARCH_ENTRIES ? high - from : SEARCH_ENTRIES;
    size_t got = image->read(image->context, t->first + from * 8, window, count * 8) / 8;
    if (got == 0) {
      fail(c, UNREADABLE);
      return 0;
    }
    if (window[0].function > key) {
      high = from;
      high_key = window[0].function;
      continue;
    }
    uint64_t last = 0; /* of those in the window that are <= key */
    for (uint64_t step = SEARCH_ENTRIES / 2; step > 0; step /= 2) {
      if (last + step < got && window[last + step].function <= key) last += step;
    }
    found = true;
    found_fde = window[last].fde;
    if (last + 1 < got) break; /* the next one is above: this is it */
    low = from + got;
    low_key = window[got - 1].function;
  }
  if (!found) fail(c, UNCOVERED);
  return image->header + (uint64_t)(int64_t)found_fde;
}

/* ---- CIE and FDE. ---- */

typedef struct entry {
  uint64_t body, end; /* what follows the length field */
} entry;

static entry open_entry(cursor *c, uint64_t at) {
  seek(c, at, c->image->end > at ? c->image->end - at : 0);
  uint64_t length = take_fixed(c, 4); /* 0xffffffff, the 64-bit form, is beyond the bound as well */
  if (length < 4 || length > ENTRY_BYTES_MAX) fail(c, MALFORMED);
  entry e = {.body = c->at, .end = c->at + length};
  if (c->failed == FINE) seek(c, e.body, length);
  return e;
}

typedef struct cie {
  uint64_t code_align;
  int64_t data_align;
  uint64_t program, program_end;
  uint8_t pointer_encoding;
  bool augmented; /* 'z': its FDEs have an augmentation length */
  bool signal;
} cie;

static void read_cie(cursor *c, uint64_t at, cie *out) {
  char augmentation[8];
  size_t letters = 0;
  entry e = open_entry(c, at);
  uint32_t id = (uint32_t)take_fixed(c, 4);
  uint8_t version = take_byte(c);
  if (id != 0 || (version != 1 && version != 3)) fail(c, MALFORMED);
  for (char letter; (letter = (char)take_byte(c)) != 0; augmentation[letters++] = letter) {
    if (letters == sizeof augmentation) {
      fail(c, MALFORMED);
      return;
    }
  }
  *out = (cie){.pointer_encoding = PE_ABSPTR, .program_end = e.end};
  out->code_align = take_uleb(c);
  out->data_align = take_sleb(c);
  uint64_t return_register = version == 1 ? take_byte(c) : take_uleb(c);
  if (return_register != LUPE_DWARF_RA) fail(c, MALFORMED);
  if (letters > 0 && augmentation[0] != 'z') fail(c, MALFORMED); /* the ancient "eh" form */
  out->augmented = letters > 0;
  uint64_t length = out->augmented ? take_uleb(c) : 0;
  if (c->failed != FINE) return;
  out->program = c->at + length;
  if (length > c->end - c->at) fail(c, MALFORMED);
  for (size_t i = 1; i < letters && c->failed == FINE; i++) {
    switch (augmentation[i]) {
      case 'R':
        out->pointer_encoding = take_byte(c);
        break;
      case 'L':
        take_byte(c);
        break;
      case 'P':
        take_value(c, take_byte(c));
        break;
      case 'S':
        out->signal = true;
        break;
      default:
        i = letters;
        break; /* the length tells where the program starts, whatever else is in here */
    }
  }
}

/* ---- Expressions, evaluated to a sum that a row can hold: [*](base + inner) + outer. ---- */

/* base LUPE_BASE_SAME stands for 0: a plain number, in `outer`. */
typedef struct value {
  lupe_base base;
  bool deref;
  int64_t inner, outer;
} value;

static value number(uint64_t n) {
  return (value){.base = LUPE_BASE_SAME, .outer = (int64_t)n};
}
static bool is_number(value v) {
  return v.base == LUPE_BASE_SAME && !v.deref;
}
static int64_t wrapping_add(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a + (uint64_t)b);
}

static lupe_base base_of(uint64_t dwarf_register) {
  switch (dwarf_register) {
    case LUPE_DWARF_SP:
      return LUPE_BASE_SP;
    case LUPE_DWARF_BP:
      return LUPE_BASE_BP;
    case LUPE_DWARF_BX:
      return LUPE_BASE_BX;
    default:
      return LUPE_BASE_LOST;
  }
}

typedef struct operands {
  value v[OPERANDS_MAX];
  unsigned count;
} operands;

static void push(cursor *c, operands *s, value v) {
  if (s->count == OPERANDS_MAX)
    fail(c, MALFORMED);
  else
    s->v[s->count++] = v;
}

static value pop(cursor *c, operands *s) {
  if (s->count == 0) {
    fail(c, MALFORMED);
    return number(0);
  }
  return s->v[--s->count];
}

/* DWARF operation numbers. */
enum {
  OP_DEREF = 0x06,
  OP_CONST1U = 0x08,
  OP_CONSTU = 0x10,
  OP_CONSTS = 0x11,
  OP_DUP = 0x12,
  OP_DROP = 0x13,
  OP_AND = 0x1a,
  OP_MINUS = 0x1c,
  OP_MUL = 0x1e,
  OP_OR = 0x21,
  OP_PLUS = 0x22,
  OP_PLUS_UCONST = 0x23,
  OP_SHL = 0x24,
  OP_SHR = 0x25,
  OP_XOR = 0x27,
  OP_EQ = 0x29,
  OP_GE = 0x2a,
  OP_GT = 0x2b,
  OP_LE = 0x2c,
  OP_LT = 0x2d,
  OP_NE = 0x2e,
  OP_LIT0 = 0x30,
  OP_LIT31 = 0x4f,
  OP_BREG0 = 0x70,
  OP_BREG31 = 0x8f,
};

static uint64_t arithmetic(cursor *c, uint8_t op, uint64_t a, uint64_t b) {
  switch (op) {
    case OP_AND:
      return a & b;
    case OP_OR:
      return a | b;
    case OP_XOR:
      return a ^ b;
    case OP_PLUS:
      return a + b;
    case OP_MINUS:
      return a - b;
    case OP_MUL:
      return a * b;
    case OP_SHL:
      return b < 64 ? a << b : 0;
    case OP_SHR:
      return b < 64 ? a >> b : 0;
    case OP_EQ:
      return a == b;
    case OP_NE:
      return a != b;
    case OP_GE:
      return (int64_t)a >= (int64_t)b;
    case OP_GT:
      return (int64_t)a > (int64_t)b;
    case OP_LE:
      return (int64_t)a <= (int64_t)b;
    case OP_LT:
      return (int64_t)a < (int64_t)b;
    default:
      fail(c, MALFORMED);
      return 0;
  }
}

static value binary(cursor *c, uint8_t op, value a, value b) {
  if (is_number(a) && is_number(b)) return number(arithmetic(c, op, (uint64_t)a.outer, (uint64_t)b.outer));
  if (op == OP_PLUS && is_number(a)) {
    value swap = a;
    a = b;
    b = swap;
  }
  if ((op != OP_PLUS && op != OP_MINUS) || !is_number(b)) {
    fail(c, MALFORMED);
    return number(0);
  }
  a.outer = wrapping_add(a.outer, op == OP_PLUS ? b.outer : (int64_t)(0 - (uint64_t)b.outer));
  return a;
}

/* The instruction pointer counts as a number, since a row belongs to one address: that makes a PLT's rule,
 * which depends on it, an ordinary offset. */
static value register_value(uint64_t dwarf_register, int64_t offset, uint64_t pc) {
  if (dwarf_register == LUPE_DWARF_RA) return number(pc + (uint64_t)offset);
  return (value){.base = base_of(dwarf_register), .outer = offset};
}

static value dereference(cursor *c, value v) {
  if (v.deref || is_number(v))
    fail(c, MALFORMED); /* two levels do not fit a row; nor do absolute addresses */
  return (value){.base = v.base, .deref = true, .inner = v.outer};
}

/* Runs the expression at the cursor. `with_cfa`: the CFA is on the stack when it starts. */
static value evaluate(cursor *c, uint64_t pc, bool with_cfa) {
  operands s = {.count = 0};
  uint64_t length = take_uleb(c);
  if (c->failed != FINE || length > c->end - c->at) {
    fail(c, MALFORMED);
    return number(0);
  }
  uint64_t end = c->at + length;
  if (with_cfa) push(c, &s, (value){.base = LUPE_BASE_CFA});
  while (c->at < end && c->failed == FINE) {
    uint8_t op = take_byte(c);
    if (op >= OP_LIT0 && op <= OP_LIT31) {
      push(c, &s, number(op - OP_LIT0));
    } else if (op >= OP_BREG0 && op <= OP_BREG31) {
      push(c, &s, register_value(op - OP_BREG0, take_sleb(c), pc));
    } else if (op >= OP_CONST1U && op < OP_CONSTU) { /* 1u 1s 2u 2s 4u 4s 8u 8s */
      unsigned bytes = 1u << ((op - OP_CONST1U) / 2);
      uint64_t raw = take_fixed(c, bytes);
      push(c, &s, number((op - OP_CONST1U) % 2 ? (uint64_t)sign_extend(raw, bytes * 8) : raw));
    } else if (op == OP_CONSTU) {
      push(c, &s, number(take_uleb(c)));
    } else if (op == OP_CONSTS) {
      push(c, &s, number((uint64_t)take_sleb(c)));
    } else if (op == OP_PLUS_UCONST) {
      value a = pop(c, &s);
      push(c, &s, binary(c, OP_PLUS, a, number(take_uleb(c))));
    } else if (op == OP_DUP) {
      value a = pop(c, &s);
      push(c, &s, a);
      push(c, &s, a);
    } else if (op == OP_DROP) {
      pop(c, &s);
    } else if (op == OP_DEREF) {
      push(c, &s, dereference(c, pop(c, &s)));
    } else {
      value b = pop(c, &s), a = pop(c, &s);
      push(c, &s, binary(c, op, a, b));
    }
  }
  if (c->at != end) fail(c, MALFORMED);
  return pop(c, &s);
}

/* ---- The program. ---- */

enum { SAVED_RA, SAVED_BP, SAVED_BX, SAVED_SP, SAVED_COUNT };

typedef struct rules {
  value cfa;
  lupe_place saved[SAVED_COUNT];
} rules;

typedef struct machine {
  cursor *c;
  const cie *common;
  uint64_t pc;       /* the row wanted */
  uint64_t location; /* where the rules hold from */
  rules now, initial;
  rules remembered[REMEMBERED_MAX];
  unsigned depth;
} machine;

static lupe_place *saved_place(rules *r, uint64_t dwarf_register) {
  switch (dwarf_register) {
    case LUPE_DWARF_RA:
      return &r->saved[SAVED_RA];
    case LUPE_DWARF_BP:
      return &r->saved[SAVED_BP];
    case LUPE_DWARF_BX:
      return &r->saved[SAVED_BX];
    case LUPE_DWARF_SP:
      return &r->saved[SAVED_SP];
    default:
      return NULL;
  }
}

/* (LOST, 0) is DWARF's "undefined"; this is "there is a rule, but no row can hold it". */
static const lupe_place beyond_rows = {.base = LUPE_BASE_LOST, .offset = 1};

static void set_place(machine *m, uint64_t dwarf_register, lupe_base base, int64_t offset) {
  lupe_place *place = saved_place(&m->now, dwarf_register);
  if (place == NULL) return;
  *place = lupe_fits(offset, 32) ? (lupe_place){.base = base, .offset = (int32_t)offset} : beyond_rows;
}

static void set_beyond_rows(machine *m, uint64_t dwarf_register) {
  set_place(m, dwarf_register, beyond_rows.base, beyond_rows.offset);
}

static void set_place_by_offset(machine *m, uint64_t dwarf_register, uint64_t factor) {
  set_place(m, dwarf_register, LUPE_BASE_CFA, (int64_t)(factor * (uint64_t)m->common->data_align));
}

static void restore_place(machine *m, uint64_t dwarf_register) {
  lupe_place *place = saved_place(&m->now, dwarf_register);
  if (place != NULL) *place = *saved_place(&m->initial, dwarf_register);
}

static void set_cfa(machine *m, uint64_t dwarf_register, uint64_t offset) {
  m->now.cfa = (value){.base = base_of(dwarf_register), .outer = (int64_t)offset};
}

static void set_cfa_offset(machine *m, uint64_t offset) {
  if (m->now.cfa.deref) fail(m->c, MALFORMED);
  m->now.cfa.outer = (int64_t)offset;
}

/* Saved at an address that is an expression: usable when that is a register plus an offset. */
static void set_place_by_expression(machine *m, uint64_t dwarf_register) {
  value v = evaluate(m->c, m->pc, true);
  if (v.deref || v.base == LUPE_BASE_SAME || v.base == LUPE_BASE_LOST)
    set_beyond_rows(m, dwarf_register);
  else
    set_place(m, dwarf_register, v.base, v.outer);
}

static void remember(machine *m) {
  if (m->depth == REMEMBERED_MAX)
    fail(m->c, MALFORMED);
  else
    m->remembered[m->depth++] = m->now;
}

static void recall(machine *m) {
  if (m->depth == 0)
    fail(m->c, MALFORMED);
  else
    m->now = m->remembered[--m->depth];
}

enum {
  CFA_NOP = 0x00,
  CFA_SET_LOC,
  CFA_ADVANCE1,
  CFA_ADVANCE2,
  CFA_ADVANCE4,
  CFA_OFFSET_EXTENDED,
  CFA_RESTORE_EXTENDED,
  CFA_UNDEFINED,
  CFA_SAME_VALUE,
  CFA_REGISTER,
  CFA_REMEMBER,
  CFA_RESTORE_STATE,
  CFA_DEF_CFA,
  CFA_DEF_CFA_REGISTER,
  CFA_DEF_CFA_OFFSET,
  CFA_DEF_CFA_EXPRESSION,
  CFA_EXPRESSION,
  CFA_OFFSET_EXTENDED_SF,
  CFA_DEF_CFA_SF,
  CFA_DEF_CFA_OFFSET_SF,
  CFA_VAL_OFFSET,
  CFA_VAL_OFFSET_SF,
  CFA_VAL_EXPRESSION,
  CFA_GNU_ARGS_SIZE = 0x2e,
  CFA_ADVANCE = 0x40,
  CFA_OFFSET = 0x80,
  CFA_RESTORE = 0xc0, /* the operand in the low 6 bits */
};

static void run_extended(machine *m, uint8_t op) {
  cursor *c = m->c;
  uint64_t data_align = (uint64_t)m->common->data_align, reg;
  switch (op) {
    case CFA_NOP:
      break;
    case CFA_SET_LOC:
      m->location = take_pointer(c, m->common->pointer_encoding);
      break;
    case CFA_ADVANCE1:
      m->location += take_fixed(c, 1) * m->common->code_align;
      break;
    case CFA_ADVANCE2:
      m->location += take_fixed(c, 2) * m->common->code_align;
      break;
    case CFA_ADVANCE4:
      m->location += take_fixed(c, 4) * m->common->code_align;
      break;
    case CFA_OFFSET_EXTENDED:
      reg = take_uleb(c);
      set_place_by_offset(m, reg, take_uleb(c));
      break;
    case CFA_OFFSET_EXTENDED_SF:
      reg = take_uleb(c);
      set_place_by_offset(m, reg, (uint64_t)take_sleb(c));
      break;
    case CFA_RESTORE_EXTENDED:
      restore_place(m, take_uleb(c));
      break;
    case CFA_UNDEFINED:
      set_place(m, take_uleb(c), LUPE_BASE_LOST, 0);
      break;
    case CFA_SAME_VALUE:
      set_place(m, take_uleb(c), LUPE_BASE_SAME, 0);
      break;
    case CFA_REMEMBER:
      remember(m);
      break;
    case CFA_RESTORE_STATE:
      recall(m);
      break;
    case CFA_DEF_CFA:
      reg = take_uleb(c);
      set_cfa(m, reg, take_uleb(c));
      break;
    case CFA_DEF_CFA_SF:
      reg = take_uleb(c);
      set_cfa(m, reg, (uint64_t)take_sleb(c) * data_align);
      break;
    case CFA_DEF_CFA_REGISTER:
      set_cfa(m, take_uleb(c), (uint64_t)m->now.cfa.outer);
      break;
    case CFA_DEF_CFA_OFFSET:
      set_cfa_offset(m, take_uleb(c));
      break;
    case CFA_DEF_CFA_OFFSET_SF:
      set_cfa_offset(m, (uint64_t)take_sleb(c) * data_align);
      break;
    case CFA_DEF_CFA_EXPRESSION:
      m->now.cfa = evaluate(c, m->pc, false);
      break;
    case CFA_EXPRESSION:
      set_place_by_expression(m, take_uleb(c));
      break;
    case CFA_REGISTER: /* kept in another register, or computed: no row holds that */
    case CFA_VAL_OFFSET:
    case CFA_VAL_OFFSET_SF:
      reg = take_uleb(c);
      take_uleb(c);
      set_beyond_rows(m, reg);
      break;
    case CFA_VAL_EXPRESSION:
      reg = take_uleb(c);
      skip(c, take_uleb(c));
      set_beyond_rows(m, reg);
      break;
    case CFA_GNU_ARGS_SIZE:
      take_uleb(c);
      break;
    default:
      fail(c, MALFORMED);
      break;
  }
}

/* Runs instructions until the location passes the wanted address or the program ends. */
static void run(machine *m, uint64_t program, uint64_t end) {
  cursor *c = m->c;
  if (program > end)
    fail(c, MALFORMED);
  else
    seek(c, program, end - program);
  while (c->failed == FINE && c->at < c->end) {
    uint8_t op = take_byte(c), operand = op & 0x3f;
    switch (op & 0xc0) {
      case CFA_ADVANCE:
        m->location += operand * m->common->code_align;
        break;
      case CFA_OFFSET:
        set_place_by_offset(m, operand, take_uleb(c));
        break;
      case CFA_RESTORE:
        restore_place(m, operand);
        break;
      default:
        run_extended(m, op);
        break;
    }
    if (m->location > m->pc) return;
  }
}

static bool is_at(lupe_place p, lupe_base base, int64_t offset) {
  return p.base == base && p.offset == offset;
}

static lupe_row pack(const rules *r, bool signal) {
  const lupe_place *saved = r->saved;
  /* Undefined, as in _start and clone: the end. */
  if (is_at(saved[SAVED_RA], LUPE_BASE_LOST, 0)) return LUPE_ROW_END;
  if (signal) {
    bool kernels = r->cfa.deref && r->cfa.base == LUPE_BASE_SP && r->cfa.inner == LUPE_SIGFRAME_SP &&
                   r->cfa.outer == 0 && is_at(saved[SAVED_RA], LUPE_BASE_SP, LUPE_SIGFRAME_PC) &&
                   is_at(saved[SAVED_BP], LUPE_BASE_SP, LUPE_SIGFRAME_BP);
    if (kernels) return LUPE_ROW_SIGNAL;
  }
  if (!is_at(saved[SAVED_RA], LUPE_BASE_CFA, LUPE_RETURN_ADDRESS_OFFSET)) return LUPE_ROW_UNKNOWN;
  if (saved[SAVED_SP].base != LUPE_BASE_SAME) return LUPE_ROW_UNKNOWN;
  return lupe_row_pack(r->cfa.base, r->cfa.deref, r->cfa.inner, r->cfa.outer, saved[SAVED_BP],
                       saved[SAVED_BX]);
}

lupe_row lupe_cfi_row(const lupe_cfi_image *image, uint64_t at) {
  cursor c = {.image = image};
  machine m = {.c = &c, .pc = at};
  cie common;
  table t;
  if (!read_header(&c, &t)) goto failed;
  uint64_t fde_at = find_fde(&c, &t, at);
  if (c.failed != FINE) goto failed;

  entry fde = open_entry(&c, fde_at);
  uint64_t back = take_fixed(&c, 4); /* to the CIE, from this very field; 0 would make this a CIE */
  if (back == 0) fail(&c, MALFORMED);
  if (c.failed != FINE) goto failed;
  read_cie(&c, fde.body - back, &common);
  if (c.failed != FINE) goto failed;
  m.common = &common;

  seek(&c, fde.body + 4, fde.end - fde.body - 4);
  m.location = take_pointer(&c, common.pointer_encoding);
  uint64_t size = take_value(&c, common.pointer_encoding);
  uint64_t augmentation = common.augmented ? take_uleb(&c) : 0;
  skip(&c, augmentation);
  uint64_t program = c.at;
  if (at - m.location >= size) fail(&c, UNCOVERED); /* between two functions */
  if (c.failed != FINE) goto failed;

  uint64_t start = m.location;
  m.location = 0; /* the common program has no locations */
  run(&m, common.program, common.program_end);
  m.location = start;
  m.initial = m.now;
  run(&m, program, fde.end);
  if (c.failed == FINE) return pack(&m.now, common.signal);
failed:
  if (c.failed == UNREADABLE) return LUPE_ROW_EMPTY;
  return c.failed == UNCOVERED ? LUPE_ROW_UNCOVERED : LUPE_ROW_UNKNOWN;
}

#include "core/agent/unwind_expression.h"

enum { OPERANDS_MAX = 8 }; /* the linker's rule for PLTs, the longest in use, needs four */

static lupe_value number(uint64_t n) {
  return (lupe_value){.base = LUPE_BASE_SAME, .outer = (int64_t)n};
}
static bool is_number(lupe_value v) {
  return v.base == LUPE_BASE_SAME && !v.deref;
}
static int64_t wrapping_add(int64_t a, int64_t b) {
  return (int64_t)((uint64_t)a + (uint64_t)b);
}

lupe_base lupe_expression_base(uint64_t dwarf_register) {
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
  lupe_value v[OPERANDS_MAX];
  unsigned count;
} operands;

static void push(lupe_cursor *c, operands *s, lupe_value v) {
  if (s->count == OPERANDS_MAX)
    lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
  else
    s->v[s->count++] = v;
}

static lupe_value pop(lupe_cursor *c, operands *s) {
  if (s->count == 0) {
    lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
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

static uint64_t arithmetic(lupe_cursor *c, uint8_t op, uint64_t a, uint64_t b) {
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
      lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
      return 0;
  }
}

static lupe_value binary(lupe_cursor *c, uint8_t op, lupe_value a, lupe_value b) {
  if (is_number(a) && is_number(b)) return number(arithmetic(c, op, (uint64_t)a.outer, (uint64_t)b.outer));
  if (op == OP_PLUS && is_number(a)) {
    lupe_value swap = a;
    a = b;
    b = swap;
  }
  if ((op != OP_PLUS && op != OP_MINUS) || !is_number(b)) {
    lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
    return number(0);
  }
  a.outer = wrapping_add(a.outer, op == OP_PLUS ? b.outer : (int64_t)(0 - (uint64_t)b.outer));
  return a;
}

/* The instruction pointer counts as a number, since a row belongs to one address: that makes a PLT's rule,
 * which depends on it, an ordinary offset. */
static lupe_value register_value(uint64_t dwarf_register, int64_t offset, uint64_t pc) {
  if (dwarf_register == LUPE_DWARF_RA) return number(pc + (uint64_t)offset);
  return (lupe_value){.base = lupe_expression_base(dwarf_register), .outer = offset};
}

static lupe_value dereference(lupe_cursor *c, lupe_value v) {
  if (v.deref || is_number(v))
    lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED); /* two levels do not fit a row; nor do absolute addresses */
  return (lupe_value){.base = v.base, .deref = true, .inner = v.outer};
}

lupe_value lupe_expression_evaluate(lupe_cursor *c, uint64_t pc, bool with_cfa) {
  operands s = {.count = 0};
  uint64_t length = lupe_cursor_uleb(c);
  if (c->failed != LUPE_CURSOR_FINE || length > c->end - c->at) {
    lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
    return number(0);
  }
  uint64_t end = c->at + length;
  if (with_cfa) push(c, &s, (lupe_value){.base = LUPE_BASE_CFA});
  while (c->at < end && c->failed == LUPE_CURSOR_FINE) {
    uint8_t op = lupe_cursor_byte(c);
    if (op >= OP_LIT0 && op <= OP_LIT31) {
      push(c, &s, number(op - OP_LIT0));
    } else if (op >= OP_BREG0 && op <= OP_BREG31) {
      push(c, &s, register_value(op - OP_BREG0, lupe_cursor_sleb(c), pc));
    } else if (op >= OP_CONST1U && op < OP_CONSTU) { /* 1u 1s 2u 2s 4u 4s 8u 8s */
      unsigned bytes = 1u << ((op - OP_CONST1U) / 2);
      uint64_t raw = lupe_cursor_fixed(c, bytes);
      push(c, &s, number((op - OP_CONST1U) % 2 ? (uint64_t)lupe_sign_extend(raw, bytes * 8) : raw));
    } else if (op == OP_CONSTU) {
      push(c, &s, number(lupe_cursor_uleb(c)));
    } else if (op == OP_CONSTS) {
      push(c, &s, number((uint64_t)lupe_cursor_sleb(c)));
    } else if (op == OP_PLUS_UCONST) {
      lupe_value a = pop(c, &s);
      push(c, &s, binary(c, OP_PLUS, a, number(lupe_cursor_uleb(c))));
    } else if (op == OP_DUP) {
      lupe_value a = pop(c, &s);
      push(c, &s, a);
      push(c, &s, a);
    } else if (op == OP_DROP) {
      pop(c, &s);
    } else if (op == OP_DEREF) {
      push(c, &s, dereference(c, pop(c, &s)));
    } else {
      lupe_value b = pop(c, &s), a = pop(c, &s);
      push(c, &s, binary(c, op, a, b));
    }
  }
  if (c->at != end) lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
  return pop(c, &s);
}

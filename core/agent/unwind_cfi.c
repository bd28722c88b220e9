#include "core/agent/unwind_cfi.h"

#include "core/agent/unwind_expression.h"
#include "core/agent/unwind_fde.h"

enum { REMEMBERED_MAX = 8 }; /* nested DW_CFA_remember_state */

enum { SAVED_RA, SAVED_BP, SAVED_BX, SAVED_SP, SAVED_COUNT };

typedef struct rules {
  lupe_value cfa;
  lupe_place saved[SAVED_COUNT];
} rules;

typedef struct machine {
  lupe_cursor *c;
  const lupe_cie *common;
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
  m->now.cfa = (lupe_value){.base = lupe_expression_base(dwarf_register), .outer = (int64_t)offset};
}

static void set_cfa_offset(machine *m, uint64_t offset) {
  if (m->now.cfa.deref) lupe_cursor_fail(m->c, LUPE_CURSOR_MALFORMED);
  m->now.cfa.outer = (int64_t)offset;
}

/* Saved at an address that is an expression: usable when that is a register plus an offset. */
static void set_place_by_expression(machine *m, uint64_t dwarf_register) {
  lupe_value v = lupe_expression_evaluate(m->c, m->pc, true);
  if (v.deref || v.base == LUPE_BASE_SAME || v.base == LUPE_BASE_LOST)
    set_beyond_rows(m, dwarf_register);
  else
    set_place(m, dwarf_register, v.base, v.outer);
}

static void remember(machine *m) {
  if (m->depth == REMEMBERED_MAX)
    lupe_cursor_fail(m->c, LUPE_CURSOR_MALFORMED);
  else
    m->remembered[m->depth++] = m->now;
}

static void recall(machine *m) {
  if (m->depth == 0)
    lupe_cursor_fail(m->c, LUPE_CURSOR_MALFORMED);
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
  lupe_cursor *c = m->c;
  uint64_t data_align = (uint64_t)m->common->data_align, reg;
  switch (op) {
    case CFA_NOP:
      break;
    case CFA_SET_LOC:
      m->location = lupe_cursor_pointer(c, m->common->pointer_encoding);
      break;
    case CFA_ADVANCE1:
      m->location += lupe_cursor_fixed(c, 1) * m->common->code_align;
      break;
    case CFA_ADVANCE2:
      m->location += lupe_cursor_fixed(c, 2) * m->common->code_align;
      break;
    case CFA_ADVANCE4:
      m->location += lupe_cursor_fixed(c, 4) * m->common->code_align;
      break;
    case CFA_OFFSET_EXTENDED:
      reg = lupe_cursor_uleb(c);
      set_place_by_offset(m, reg, lupe_cursor_uleb(c));
      break;
    case CFA_OFFSET_EXTENDED_SF:
      reg = lupe_cursor_uleb(c);
      set_place_by_offset(m, reg, (uint64_t)lupe_cursor_sleb(c));
      break;
    case CFA_RESTORE_EXTENDED:
      restore_place(m, lupe_cursor_uleb(c));
      break;
    case CFA_UNDEFINED:
      set_place(m, lupe_cursor_uleb(c), LUPE_BASE_LOST, 0);
      break;
    case CFA_SAME_VALUE:
      set_place(m, lupe_cursor_uleb(c), LUPE_BASE_SAME, 0);
      break;
    case CFA_REMEMBER:
      remember(m);
      break;
    case CFA_RESTORE_STATE:
      recall(m);
      break;
    case CFA_DEF_CFA:
      reg = lupe_cursor_uleb(c);
      set_cfa(m, reg, lupe_cursor_uleb(c));
      break;
    case CFA_DEF_CFA_SF:
      reg = lupe_cursor_uleb(c);
      set_cfa(m, reg, (uint64_t)lupe_cursor_sleb(c) * data_align);
      break;
    case CFA_DEF_CFA_REGISTER:
      set_cfa(m, lupe_cursor_uleb(c), (uint64_t)m->now.cfa.outer);
      break;
    case CFA_DEF_CFA_OFFSET:
      set_cfa_offset(m, lupe_cursor_uleb(c));
      break;
    case CFA_DEF_CFA_OFFSET_SF:
      set_cfa_offset(m, (uint64_t)lupe_cursor_sleb(c) * data_align);
      break;
    case CFA_DEF_CFA_EXPRESSION:
      m->now.cfa = lupe_expression_evaluate(c, m->pc, false);
      break;
    case CFA_EXPRESSION:
      set_place_by_expression(m, lupe_cursor_uleb(c));
      break;
    case CFA_REGISTER: /* kept in another register, or computed: no row holds that */
    case CFA_VAL_OFFSET:
    case CFA_VAL_OFFSET_SF:
      reg = lupe_cursor_uleb(c);
      lupe_cursor_uleb(c);
      set_beyond_rows(m, reg);
      break;
    case CFA_VAL_EXPRESSION:
      reg = lupe_cursor_uleb(c);
      lupe_cursor_skip(c, lupe_cursor_uleb(c));
      set_beyond_rows(m, reg);
      break;
    case CFA_GNU_ARGS_SIZE:
      lupe_cursor_uleb(c);
      break;
    default:
      lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
      break;
  }
}

/* Runs instructions until the location passes the wanted address or the program ends. */
static void run(machine *m, uint64_t program, uint64_t end) {
  lupe_cursor *c = m->c;
  if (program > end)
    lupe_cursor_fail(c, LUPE_CURSOR_MALFORMED);
  else
    lupe_cursor_seek(c, program, end - program);
  while (c->failed == LUPE_CURSOR_FINE && c->at < c->end) {
    uint8_t op = lupe_cursor_byte(c), operand = op & 0x3f;
    switch (op & 0xc0) {
      case CFA_ADVANCE:
        m->location += operand * m->common->code_align;
        break;
      case CFA_OFFSET:
        set_place_by_offset(m, operand, lupe_cursor_uleb(c));
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
  lupe_cursor c = {.image = image};
  lupe_fde fde;
  if (lupe_fde_find(&c, at, &fde)) {
    machine m = {.c = &c, .common = &fde.common, .pc = at}; /* the common program has no locations */
    run(&m, fde.common.program, fde.common.program_end);
    m.location = fde.location;
    m.initial = m.now;
    run(&m, fde.program, fde.program_end);
    if (c.failed == LUPE_CURSOR_FINE) return pack(&m.now, fde.common.signal);
  }
  if (c.failed == LUPE_CURSOR_UNREADABLE) return LUPE_ROW_EMPTY;
  return c.failed == LUPE_CURSOR_UNCOVERED ? LUPE_ROW_UNCOVERED : LUPE_ROW_UNKNOWN;
}

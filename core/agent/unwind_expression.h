/* unwind_expression.h -- DWARF expressions, evaluated not to a number but to a sum that a row can hold.
 * Thread: any, also signal handlers. */
#ifndef LUPE_AGENT_UNWIND_EXPRESSION_H
#define LUPE_AGENT_UNWIND_EXPRESSION_H

#include "core/agent/unwind_cursor.h"
#include "core/agent/unwind_x86_64.h"

/* base + outer, or, with deref, *(base + inner) + outer. base LUPE_BASE_SAME stands for 0: a plain number;
 * LUPE_BASE_LOST for a register that rows do not follow. */
typedef struct lupe_value {
  lupe_base base;
  bool deref;
  int64_t inner, outer;
} lupe_value;

/* Runs the expression at the cursor, for the instruction at `pc`. `with_cfa`: the CFA is on the operand stack
 * when it starts. What is malformed, or no sum of this form, fails the cursor. */
lupe_value lupe_expression_evaluate(lupe_cursor *c, uint64_t pc, bool with_cfa);

/* What a row calls a register: LUPE_BASE_LOST for those it does not follow. */
lupe_base lupe_expression_base(uint64_t dwarf_register);

#endif

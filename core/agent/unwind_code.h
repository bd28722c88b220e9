/* unwind_code.h -- what machine code tells of a frame, where a register that its unwind information needs is
 * not known: whether an address is one that a call returns to, what that call calls, and how far a function's
 * entry moves the stack pointer. Code is read by checked reads; it may be anything. Owns nothing. Thread:
 * any, also signal handlers. Another architecture brings a .c of its own. */
#ifndef LUPE_AGENT_UNWIND_CODE_H
#define LUPE_AGENT_UNWIND_CODE_H

#include <stdbool.h>
#include <stdint.h>

/* What is known of the call behind which a return address stands. */
typedef enum lupe_call {
  LUPE_CALL_NONE,    /* no call stands before that address */
  LUPE_CALL_OTHER,   /* of something else; which may have jumped on to the function */
  LUPE_CALL_UNKNOWN, /* by a pointer */
  LUPE_CALL_CERTAIN, /* of it, directly or by way of the PLT */
} lupe_call;

/* `function`: its first address; 0 where that is not known. Two to four checked reads. */
lupe_call lupe_code_call(uint64_t return_address, uint64_t function);

/* How far below BP the stack pointer stands after the entry of a function that keeps BP (push %rbp; mov
 * %rsp,%rbp; other pushes; sub), as far as its first instructions tell: a guess to be verified. False where
 * it does not begin like that. */
bool lupe_code_frame_bytes(uint64_t function, uint64_t *out);

#endif

/* unwind.h -- the call stack of the calling thread, taken inside malloc and inside signal handlers.
 * No lock, no allocation, no fault, errno untouched; of the loader only _dl_find_object, which is lock-free.
 * About 3 KiB of stack; time bounded by `max`: some 8 ns a frame, and once per process and address some 3 us
 * to read its unwind information. All threads share one cache, static, 64 KiB at first and 2 MiB at most;
 * there is nothing to set up, to free or to repair after fork. Works before any constructor ran, in forked
 * and vforked children and inside dlopen. Where a module is replaced by another build of it in the very same
 * place, its stacks may be wrong for up to a second.
 *
 * A stack is a list of addresses, leaf first. All but an interrupted frame's are return addresses: look up
 * `address - 1` to find the call. `*truncated` is set to true when the stack goes on but could not be
 * followed (max reached, code without unwind information, memory that cannot be read), to false when its end
 * was reached. */
#ifndef LUPE_AGENT_UNWIND_H
#define LUPE_AGENT_UNWIND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The value of a register that is not known: the stack then ends, truncated, at the first frame that needs
 * it. */
enum { LUPE_REGISTER_UNKNOWN = 1 };

/* Where to start: pc and sp, and, where known, bp and bx. */
typedef struct lupe_registers {
  uint64_t pc;
  uint64_t sp;
  uint64_t bp;
  uint64_t bx;
} lupe_registers;

/* False where glibc has no _dl_find_object (before 2.35) or a sandbox forbids process_vm_readv: stacks are
 * then one frame long, or none, and truncated. Thread: any. */
bool lupe_unwind_supported(void);

/* The stack of the calling function, without that function: pcs[0] is the address to which the function that
 * called lupe_unwind will return (so a hook leaves itself out by calling this). Writes at most max addresses,
 * returns how many. Thread: any, also inside malloc and signal handlers. */
size_t lupe_unwind(uint64_t *pcs, size_t max, bool *truncated);

/* The stack from an interrupted instruction of the calling thread: pcs[0] is regs->pc itself (not a return
 * address). regs may be garbage; that shortens the stack, to nothing at worst, and does no harm. Thread: any,
 * handler. */
size_t lupe_unwind_from(const lupe_registers *regs, uint64_t *pcs, size_t max, bool *truncated);

/* The stack of another thread, one that stands still at regs->pc and regs->sp: words of [regs->sp, regs->sp +
 * bytes) come from `copy`, all others by checked reads. Where bp is LUPE_REGISTER_UNKNOWN and a frame needs
 * it, it is looked for in the copy: where the words and the code they lead to say that a call of that frame's
 * function returns there. regs and copy may be garbage. pcs[0] is regs->pc itself. Thread: any. */
size_t lupe_unwind_copied(const lupe_registers *regs, const void *copy, size_t bytes, uint64_t *pcs,
                          size_t max, bool *truncated);

#endif

/* context_x86_64.h -- what the signal handler knows about x86-64: the interrupted registers, and the
 * instruction that enters the kernel. Another architecture brings a file with the same names. */
#ifndef LUPE_AGENT_CONTEXT_X86_64_H
#define LUPE_AGENT_CONTEXT_X86_64_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "core/agent/unwind.h"
#include "core/agent/unwind_memory.h"

static inline lupe_registers lupe_context_registers(const ucontext_t *context) {
  const greg_t *r = context->uc_mcontext.gregs;
  return (lupe_registers){
      .pc = (uint64_t)r[REG_RIP],
      .sp = (uint64_t)r[REG_RSP],
      .bp = (uint64_t)r[REG_RBP],
      .bx = (uint64_t)r[REG_RBX],
  };
}

enum { LUPE_SYSCALL_BYTES = 2 };

/* `syscall` leaves the address behind itself in RCX, and so does the kernel as it returns: whoever stands
 * there with that in RCX comes from the kernel. Processors with FRED do not do that. Thread: any. */
static inline bool lupe_context_calls_leave_marks(void) {
  long result;
  uint64_t mark, behind;
  __asm__ volatile(
      "syscall\n"
      "0: lea 0b(%%rip), %2"
      : "=a"(result), "=&c"(mark), "=r"(behind)
      : "a"((long)SYS_gettid)
      : "r11", "memory");
  return mark == behind;
}

/* Whether the thread was in the kernel when it was interrupted: it stands behind `syscall`, or at one that is
 * to be made again. Without marks by a checked read, some microseconds: code may be executable and not
 * readable, or just unmapped. */
static inline bool lupe_context_in_system_call(const ucontext_t *context, bool marks) {
  static const uint8_t instruction[LUPE_SYSCALL_BYTES] = {0x0f, 0x05};
  uint64_t pc = (uint64_t)context->uc_mcontext.gregs[REG_RIP];
  if (marks) {
    uint64_t mark = (uint64_t)context->uc_mcontext.gregs[REG_RCX];
    return mark == pc || mark == pc + LUPE_SYSCALL_BYTES;
  }
  uint8_t code[2 * LUPE_SYSCALL_BYTES] = {0};
  size_t got = lupe_memory_read_checked(pc - LUPE_SYSCALL_BYTES, code, sizeof code);
  return (got >= LUPE_SYSCALL_BYTES && memcmp(code, instruction, LUPE_SYSCALL_BYTES) == 0) ||
         (got == sizeof code && memcmp(code + LUPE_SYSCALL_BYTES, instruction, LUPE_SYSCALL_BYTES) == 0);
}

#endif

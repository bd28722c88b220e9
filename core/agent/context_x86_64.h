/* context_x86_64.h -- what the signal handler knows about x86-64: the interrupted registers, and the
 * instruction that enters the kernel. Another architecture brings a file with the same names. */
#ifndef LUPE_AGENT_CONTEXT_X86_64_H
#define LUPE_AGENT_CONTEXT_X86_64_H

#include <stdbool.h>
#include <stdint.h>
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

/* Whether the thread was in the kernel when it was interrupted at `pc`: it stands behind `syscall`, or at one
 * that is to be made again. A checked read: code may be executable and not readable, or just unmapped. */
static inline bool lupe_context_in_system_call(uint64_t pc) {
  enum { SYSCALL_BYTES = 2 };
  static const uint8_t instruction[SYSCALL_BYTES] = {0x0f, 0x05};
  uint8_t code[2 * SYSCALL_BYTES] = {0};
  size_t got = lupe_memory_read_checked(pc - SYSCALL_BYTES, code, sizeof code);
  return (got >= SYSCALL_BYTES && memcmp(code, instruction, SYSCALL_BYTES) == 0) ||
         (got == sizeof code && memcmp(code + SYSCALL_BYTES, instruction, SYSCALL_BYTES) == 0);
}

#endif

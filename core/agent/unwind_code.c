#include "core/agent/unwind_code.h"

#include <stddef.h>
#include <string.h>

#include "core/agent/unwind_memory.h"

enum {
  CALL_BYTES_MAX = 8,  /* of an indirect call with a prefix, an index and 32 bits of offset */
  STUB_BYTES = 16,     /* of the PLT */
  PROLOGUE_BYTES = 64, /* six pushes and a subtraction need a third of that */
  INSTRUCTION_BYTES_MAX = 15,
  CALL_DIRECT = 0xe8,   /* call rel32 */
  GROUP_INDIRECT = 0xff /* call, jmp, push by what its next byte says */
};

static int32_t signed32(const uint8_t *at) {
  int32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static bool load(uint64_t address, uint64_t *out) {
  return lupe_memory_read_checked(address, out, sizeof *out) == sizeof *out;
}

/* The function that a call leads to, where the called address is a stub: [endbr64] [bnd] jmp *slot(%rip). */
static bool jumps_to(uint64_t stub, uint64_t function) {
  static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
  uint8_t code[STUB_BYTES] = {0};
  uint64_t slot;
  size_t at = 0;
  if (lupe_memory_read_checked(stub, code, sizeof code) < sizeof code) return false;
  if (memcmp(code, endbr64, sizeof endbr64) == 0) at = sizeof endbr64;
  if (code[at] == 0xf2) at++;
  if (code[at] != GROUP_INDIRECT || code[at + 1] != 0x25) return false;
  return load(stub + at + 6 + (uint64_t)(int64_t)signed32(code + at + 2), &slot) && slot == function;
}

/* What follows an opcode with a ModRM byte, that byte included. */
static size_t operand_bytes(const uint8_t *modrm) {
  unsigned mode = modrm[0] >> 6, base = modrm[0] & 7;
  if (mode == 3) return 1;
  size_t bytes = 1 + (base == 4) + (mode == 1 ? 1 : mode == 2 ? 4 : 0);
  if (mode == 0 && (base == 5 || (base == 4 && (modrm[1] & 7) == 5))) bytes += 4;
  return bytes;
}

/* Whether the `bytes` before `end` are a call by register or memory, of exactly that length. */
static bool is_indirect_call(const uint8_t *end, size_t bytes) {
  const uint8_t *code = end - bytes;
  return code[0] == GROUP_INDIRECT && (code[1] >> 3 & 7) == 2 && 1 + operand_bytes(code + 1) == bytes;
}

lupe_call lupe_code_call(uint64_t return_address, uint64_t function) {
  uint8_t code[CALL_BYTES_MAX + 1] = {0}; /* operand_bytes may look at one behind the call */
  const uint8_t *end = code + CALL_BYTES_MAX;
  if (return_address < CALL_BYTES_MAX ||
      lupe_memory_read_checked(return_address - CALL_BYTES_MAX, code, CALL_BYTES_MAX) < CALL_BYTES_MAX) {
    return LUPE_CALL_NONE;
  }
  if (end[-5] == CALL_DIRECT) {
    uint64_t target = return_address + (uint64_t)(int64_t)signed32(end - 4);
    if (function == 0) return LUPE_CALL_UNKNOWN;
    if (target == function || jumps_to(target, function)) return LUPE_CALL_CERTAIN;
  }
  if (end[-6] == GROUP_INDIRECT && end[-5] == 0x15 && function != 0) { /* call *slot(%rip) */
    uint64_t slot;
    if (load(return_address + (uint64_t)(int64_t)signed32(end - 4), &slot) && slot == function) {
      return LUPE_CALL_CERTAIN;
    }
  }
  for (size_t bytes = 2; bytes <= 7; bytes++) {
    if (is_indirect_call(end, bytes)) return LUPE_CALL_UNKNOWN;
  }
  return end[-5] == CALL_DIRECT ? LUPE_CALL_OTHER : LUPE_CALL_NONE;
}

/* The length of an instruction that only copies or computes values, as compilers put between the pushes of a
 * function's entry; 0 for all others. */
static size_t plain_instruction(const uint8_t *code) {
  size_t prefix = (code[0] & 0xf0) == 0x40; /* REX */
  switch (code[prefix]) {
    case 0x31: /* xor */
    case 0x33:
    case 0x63: /* movsxd */
    case 0x85: /* test */
    case 0x89: /* mov */
    case 0x8b:
    case 0x8d: /* lea */
      return prefix + 1 + operand_bytes(code + prefix + 1);
    default:
      return (code[prefix] & 0xf8) == 0xb8 && !(prefix && (code[0] & 8)) ? prefix + 5 : 0; /* mov imm32 */
  }
}

bool lupe_code_frame_bytes(uint64_t function, uint64_t *out) {
  static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa}, keep_bp[] = {0x55, 0x48, 0x89, 0xe5};
  uint8_t code[PROLOGUE_BYTES + INSTRUCTION_BYTES_MAX] = {0};
  size_t at = 0;
  if (function == 0 || lupe_memory_read_checked(function, code, PROLOGUE_BYTES) < PROLOGUE_BYTES)
    return false;
  if (memcmp(code, endbr64, sizeof endbr64) == 0) at = sizeof endbr64;
  if (memcmp(code + at, keep_bp, sizeof keep_bp) != 0) return false;
  at += sizeof keep_bp;
  for (uint64_t pushed = 0; at < PROLOGUE_BYTES;) {
    const uint8_t *here = code + at;
    if (here[0] == 0x48 && here[1] == 0x83 && here[2] == 0xec) { /* sub $imm8, %rsp */
      *out = pushed + here[3];
      return true;
    }
    if (here[0] == 0x48 && here[1] == 0x81 && here[2] == 0xec) { /* sub $imm32, %rsp */
      *out = pushed + (uint32_t)signed32(here + 3);
      return true;
    }
    size_t length = here[0] == 0x53 ? 1 : here[0] == 0x41 && (here[1] & 0xf8) == 0x50 ? 2 : 0;
    if (length > 0) { /* push %rbx; push %r8 to %r15 */
      pushed += 8;
    } else {
      length = plain_instruction(here);
      if (length == 0) {
        *out = pushed; /* there may be no subtraction */
        return true;
      }
    }
    at += length;
  }
  return false;
}

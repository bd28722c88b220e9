#include "core/agent/unwind_code.h"

#include <stddef.h>
#include <string.h>

#include "core/agent/unwind_memory.h"

enum {
  CALL_BYTES_MAX = 8,   /* of an indirect call with a prefix, an index and 32 bits of offset */
  STUB_BYTES = 16,      /* of the PLT */
  PROLOGUE_BYTES = 48,  /* six pushes and a subtraction need half of that */
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

/* Whether the `bytes` before `end` are a call by register or memory, of exactly that length. */
static bool is_indirect_call(const uint8_t *end, size_t bytes) {
  const uint8_t *code = end - bytes;
  if (code[0] != GROUP_INDIRECT || (code[1] >> 3 & 7) != 2) return false;
  unsigned mode = code[1] >> 6, base = code[1] & 7;
  if (mode == 3) return bytes == 2;
  size_t length = 2 + (base == 4) + (mode == 1 ? 1 : mode == 2 ? 4 : 0);
  if (mode == 0 && (base == 5 || (base == 4 && (code[2] & 7) == 5))) length += 4;
  return length == bytes;
}

lupe_call lupe_code_call(uint64_t return_address, uint64_t function) {
  uint8_t code[CALL_BYTES_MAX];
  const uint8_t *end = code + sizeof code;
  if (return_address < sizeof code ||
      lupe_memory_read_checked(return_address - sizeof code, code, sizeof code) < sizeof code) {
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

bool lupe_code_frame_bytes(uint64_t function, uint64_t *out) {
  static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa}, keep_bp[] = {0x55, 0x48, 0x89, 0xe5};
  uint8_t code[PROLOGUE_BYTES] = {0};
  size_t at = 0;
  if (function == 0 || lupe_memory_read_checked(function, code, sizeof code) < sizeof code) return false;
  if (memcmp(code, endbr64, sizeof endbr64) == 0) at = sizeof endbr64;
  if (memcmp(code + at, keep_bp, sizeof keep_bp) != 0) return false;
  at += sizeof keep_bp;
  uint64_t bytes = 0;
  for (; at + 7 <= sizeof code; bytes += 8) { /* push of %rbx or, with a prefix, %r8 to %r15 */
    if (code[at] == 0x53) {
      at++;
    } else if (code[at] == 0x41 && (code[at + 1] & 0xf8) == 0x50) {
      at += 2;
    } else {
      break;
    }
  }
  if (at + 7 > sizeof code) return false;
  if (code[at] == 0x48 && code[at + 1] == 0x83 && code[at + 2] == 0xec) {
    bytes += code[at + 3];
  } else if (code[at] == 0x48 && code[at + 1] == 0x81 && code[at + 2] == 0xec) {
    bytes += (uint32_t)signed32(code + at + 3);
  }
  *out = bytes;
  return true;
}

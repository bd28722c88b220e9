/* unwind_memory.h -- reading a stack without ever faulting.
 * Words of the thread's own stack, between the stack pointer and the stack's top, are read directly: they
 * stay mapped while the thread runs on them. Everything else (fibers, alternate signal stacks, what garbage
 * points to) goes through a checked read, and those are limited per capture. Owned by one capture, lives on
 * its stack; the thread's bounds are kept in its TLS. Thread: any, also handlers. */
#ifndef LUPE_AGENT_UNWIND_MEMORY_H
#define LUPE_AGENT_UNWIND_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
  LUPE_MEMORY_BLOCK_BYTES = 512, /* fetched by one checked read */
  LUPE_MEMORY_CHECKED_MAX = 128, /* checked reads per capture */
};

typedef struct lupe_memory {
  uint64_t direct_at; /* words whose address - direct_at <= direct_span are read directly */
  uint64_t direct_span;
  uint64_t checked_at;
  size_t checked_bytes;
  unsigned checked_left;
  uint64_t nothing; /* what the direct window shows when there is none */
  unsigned char checked[LUPE_MEMORY_BLOCK_BYTES];
  const unsigned char *copy; /* of another thread's stack; NULL: the stack is the own one */
  uint64_t copy_at, copy_bytes;
} lupe_memory;

/* Copies what can be read of the process's own memory; returns how many bytes. Never faults, keeps errno.
 * Costs about a microsecond. 0 also where a sandbox forbids process_vm_readv. */
size_t lupe_memory_read_checked(uint64_t address, void *to, size_t bytes);

/* How many bytes of the calling thread's own stack are left below `here`. SIZE_MAX: it is not on that, or it
 * is the first thread's, which grows. Thread: any, handlers too. */
size_t lupe_memory_stack_left(uint64_t here);

void lupe_memory_open(lupe_memory *m);

/* For the stack of another thread, one that stands still: words of [sp, sp + bytes) come from `copy`, which
 * must stay there while m is used. Nothing is read directly then. */
void lupe_memory_open_copy(lupe_memory *m, uint64_t sp, const void *copy, size_t bytes);

/* The walk now stands on the stack that `sp` points into: chooses the direct window. To be called at the
 * start and after each signal frame. sp may be garbage. A copy stays what it is. */
void lupe_memory_enter_stack(lupe_memory *m, uint64_t sp);

bool lupe_memory_load_checked(lupe_memory *m, uint64_t address, uint64_t *out);

/* Reads the word at `address`; false when that is not possible. (`value` is a copy of its own, so that the
 * caller's variable can stay in a register.) */
__attribute__((no_sanitize("address", "thread"))) static inline bool lupe_memory_load(lupe_memory *m,
                                                                                      uint64_t address,
                                                                                      uint64_t *out) {
  uint64_t value;
  if (__builtin_expect(address - m->direct_at > m->direct_span, 0)) {
    if (!lupe_memory_load_checked(m, address, &value)) return false;
    *out = value;
    return true;
  }
  memcpy(out, (const void *)(uintptr_t)address, sizeof *out);
  return true;
}

#endif

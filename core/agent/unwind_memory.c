#define _GNU_SOURCE
#include "core/agent/unwind_memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "core/agent/unwind_x86_64.h"

/* The initial stack pointer of the process, kept by ld.so. */
extern void *__libc_stack_end __attribute__((weak));

enum {
  MAIN_STACK_BYTES =
      8 << 20, /* of the main stack counted as such: the kernel keeps more than that free below its top */
  SCAN_FROM = 512,
  SCAN_TO = 2048,           /* bytes of struct pthread searched; it is larger in every glibc since 2.35 */
  ABOVE_TCB_MAX = 64 << 10, /* of a thread's stack block: the TCB, what is left of alignment */
  STACK_BYTES_MIN = 16 << 10,
  LOWEST_ADDRESS = 4096, /* below, nothing is ever mapped (unknown registers lead there) */
};
#define STACK_BYTES_MAX (UINT64_C(1) << 36)

typedef struct bounds {
  uint64_t low, high;
} bounds;

/* initial-exec: no allocation, no __tls_get_addr. A fresh thread starts with zeros. */
static __thread bounds thread_stack __attribute__((tls_model("initial-exec")));

size_t lupe_memory_read_checked(uint64_t address, void *to, size_t bytes) {
  struct iovec local = {.iov_base = to, .iov_len = bytes};
  struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = bytes};
  /* Asked anew: this may be a fork's or vfork's child. The thread, not the process: that is without memory in
   * the kernel's eyes once its first thread has left by pthread_exit. */
  long self = lupe_system_call(SYS_gettid, 0, 0, 0, 0, 0, 0);
  long got = lupe_system_call(SYS_process_vm_readv, self, (long)&local, 1, (long)&remote, 1, 0);
  return got > 0 ? (size_t)got : 0;
}

/* glibc puts a thread's TCB (pthread_self()) at the top of its stack block, and notes the block in it as two
 * words, address and size, followed by the size of its guard. Where in struct pthread differs between
 * versions, so the pair is searched: the one that spans the TCB with little above it. pthread_getattr_np
 * would know but allocates and locks. */
static bounds find_thread_stack(void) {
  uint64_t tcb = (uint64_t)pthread_self();
  const uint64_t *words = (const uint64_t *)(uintptr_t)tcb;
  for (size_t i = SCAN_FROM / 8; i < SCAN_TO / 8; i++) {
    uint64_t block = words[i], bytes = words[i + 1];
    if (bytes < STACK_BYTES_MIN || bytes > STACK_BYTES_MAX || block >= tcb) continue;
    uint64_t above = block + bytes - tcb;
    if (above == 0 || above > ABOVE_TCB_MAX || above >= bytes) continue;
    uint64_t guard = words[i + 2];
    if (guard >= bytes - above || guard % LUPE_PAGE_BYTES != 0) guard = 0;
    return (bounds){.low = block + guard, .high = tcb};
  }
  return (bounds){0, 0};
}

/* `high` is written last: a signal handler may come in between. */
static bounds own_thread_stack(void) {
  if (thread_stack.high == 0) {
    bounds found = find_thread_stack();
    thread_stack.low = found.low;
    atomic_signal_fence(memory_order_release);
    thread_stack.high = found.high;
  }
  return thread_stack;
}

/* The bounds of the thread's own stack, if sp is on it. Only `high` may be relied on as readable; what lies
 * between `low` and the stack pointer may be a guard page or not yet grown. */
static bool find_stack(uint64_t sp, bounds *out) {
  uint64_t main_top = &__libc_stack_end != NULL ? (uint64_t)__libc_stack_end : 0;
  if (sp < main_top && main_top - sp < MAIN_STACK_BYTES) {
    *out = (bounds){.low = main_top - MAIN_STACK_BYTES, .high = main_top};
    return true;
  }
  *out = own_thread_stack();
  return sp >= out->low && sp < out->high;
}

size_t lupe_memory_stack_left(uint64_t here) {
  bounds stack = own_thread_stack();
  return here >= stack.low && here < stack.high ? here - stack.low : SIZE_MAX;
}

void lupe_memory_enter_stack(lupe_memory *m, uint64_t sp) {
  if (m->copy != NULL) return;
  m->direct_at = (uint64_t)(uintptr_t)&m->nothing;
  m->direct_span = 0;
  bounds stack;
  if (sp % 8 != 0 || !find_stack(sp, &stack) || stack.high - sp < 8) return;
  /* A stack is mapped without a hole from wherever it was touched to its top. This very frame is such a
   * place; when it is on another stack (an alternate signal stack), a checked read of sp shows it. */
  uint64_t here = (uint64_t)(uintptr_t)__builtin_frame_address(0), ignored;
  if ((here < stack.low || here > sp) && !lupe_memory_load_checked(m, sp, &ignored)) return;
  m->direct_at = sp;
  m->direct_span = stack.high - sp - 8;
}

void lupe_memory_open(lupe_memory *m) {
  m->direct_at = (uint64_t)(uintptr_t)&m->nothing;
  m->direct_span = 0;
  m->copy = NULL;
  m->copy_at = m->copy_bytes = 0;
  m->checked_at = 0;
  m->checked_bytes = 0;
  m->checked_left = LUPE_MEMORY_CHECKED_MAX;
  m->nothing = 0;
}

void lupe_memory_open_copy(lupe_memory *m, uint64_t sp, const void *copy, size_t bytes) {
  lupe_memory_open(m);
  m->copy = copy;
  m->copy_at = sp;
  m->copy_bytes = bytes;
}

bool lupe_memory_load_checked(lupe_memory *m, uint64_t address, uint64_t *out) {
  uint64_t offset = address - m->copy_at;
  if (m->copy != NULL && m->copy_bytes >= 8 && offset <= m->copy_bytes - 8) {
    memcpy(out, m->copy + offset, sizeof *out);
    return true;
  }
  offset = address - m->checked_at;
  if (m->checked_bytes < 8 || offset > m->checked_bytes - 8) {
    if (m->checked_left == 0 || address < LOWEST_ADDRESS) return false;
    m->checked_left--;
    m->checked_at = address;
    m->checked_bytes = lupe_memory_read_checked(address, m->checked, sizeof m->checked);
    if (m->checked_bytes < 8) return false;
    offset = 0;
  }
  memcpy(out, m->checked + offset, sizeof *out);
  return true;
}

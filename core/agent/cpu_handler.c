#include "core/agent/cpu_handler.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <time.h>

#include "core/agent/context_x86_64.h"
#include "core/agent/own_threads.h"
#include "core/agent/tag.h"
#include "core/agent/unwind.h"
#include "core/agent/unwind_x86_64.h"
#include "core/agent/wiped.h"
#include "core/clock.h"
#include "core/wire/ring.h"

/* glibc's sigaction itself: signals.c interposes the name. */
extern int __sigaction(int number, const struct sigaction *act, struct sigaction *old);

enum {
  SHORT_FRAMES = 32,
  /* Of stack, for what lupe_unwind_from and the functions below need beside the frames (-fstack-usage). */
  UNWIND_BYTES = 3968,
  LEAF_BYTES = 768,    /* the same without lupe_unwind_from */
  KERNEL_BYTES = 3632, /* of a signal's frame with AVX-512, where the kernel does not tell (before 5.14) */
};

static atomic_bool ignored; /* whether a signal that is not ours is */
static atomic_bool marks;   /* what lupe_context_in_system_call asks */

static void count(_Atomic uint64_t *counter, uint64_t by) {
  atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* What one expiry tells, beside the stack. */
typedef struct expiry {
  lupe_segment *segment;
  lupe_registers registers;
  uint32_t tid, weight, state;
  uint64_t start_ns;
} expiry;

static void push(const expiry *e, const uint64_t *pcs, size_t depth, bool truncated) {
  lupe_record fields = {
      .kind = LUPE_RECORD_CPU,
      .flags = truncated ? LUPE_RECORD_TRUNCATED : 0,
      .depth = (uint16_t)depth,
      .tid = e->tid,
      .weight = e->weight,
      .state = e->state,
      .period_ns = atomic_load_explicit(&lupe_wiped_page->cpu_period_ns, memory_order_relaxed),
      .time_ns = e->start_ns,
  };
  lupe_ring_push(e->segment, &fields, pcs);
  if (truncated) count(&e->segment->counters.truncated_stacks, 1);
}

static void take_into(const expiry *e, uint64_t *pcs, size_t max) {
  bool truncated = false;
  size_t tags = lupe_tag_count();
  size_t depth = lupe_unwind_from(&e->registers, pcs, max - tags, &truncated);
  if (tags > 0) lupe_tag_frames(pcs + depth);
  push(e, pcs, depth + tags, truncated);
}

/* Three sizes, each with a frame of its own on the stack. */
__attribute__((noinline)) static void take_whole(const expiry *e) {
  uint64_t pcs[LUPE_MAX_FRAMES];
  take_into(e, pcs, LUPE_MAX_FRAMES);
}

__attribute__((noinline)) static void take_short(const expiry *e) {
  uint64_t pcs[SHORT_FRAMES];
  take_into(e, pcs, SHORT_FRAMES);
}

__attribute__((noinline)) static void take_leaf(const expiry *e) {
  uint64_t pcs[1 + LUPE_TAGS_MAX] = {e->registers.pc};
  lupe_tag_frames(pcs + 1);
  push(e, pcs, 1 + lupe_tag_count(), true);
}

/* Of the stack that the handler runs on. SIZE_MAX: not known, or it grows. */
static size_t stack_left(const ucontext_t *context) {
  uint64_t here = (uint64_t)(uintptr_t)__builtin_frame_address(0);
  uint64_t alternate = (uint64_t)(uintptr_t)context->uc_stack.ss_sp;
  if (here - alternate < context->uc_stack.ss_size) return here - alternate;
  return lupe_memory_stack_left(here);
}

static void take(const expiry *e, size_t left) {
  if (left >= UNWIND_BYTES + sizeof(uint64_t[LUPE_MAX_FRAMES])) {
    take_whole(e);
  } else if (left >= UNWIND_BYTES + sizeof(uint64_t[SHORT_FRAMES])) {
    take_short(e);
  } else {
    take_leaf(e);
  }
}

/* Somebody else's. By default it ends the process: as the handler returns, since it is blocked until then.
 * What the program has set in this very moment gets it. */
static void not_ours(void) {
  struct sigaction now, normal = {.sa_handler = SIG_DFL};
  if (atomic_load_explicit(&ignored, memory_order_relaxed)) return;
  if (__sigaction(SIGPROF, NULL, &now) == 0 && now.sa_sigaction == lupe_cpu_handler) {
    __sigaction(SIGPROF, &normal, NULL);
  }
  lupe_system_call(SYS_tgkill, lupe_system_call(SYS_getpid, 0, 0, 0, 0, 0, 0),
                   lupe_system_call(SYS_gettid, 0, 0, 0, 0, 0, 0), SIGPROF, 0, 0, 0);
}

static uint64_t value_of(const siginfo_t *info) {
  return (uint64_t)(uintptr_t)info->si_value.sival_ptr;
}

bool lupe_cpu_handler_expects(const siginfo_t *info) {
  uint32_t cookie = atomic_load_explicit(&lupe_wiped_page->cpu_cookie, memory_order_relaxed);
  return info->si_code == SI_TIMER && cookie != 0 && value_of(info) >> 32 == cookie;
}

void lupe_cpu_handler(int number, siginfo_t *info, void *context) {
  (void)number;
  int saved_errno = errno;
  if (!lupe_cpu_handler_expects(info)) {
    not_ours();
  } else {
    lupe_segment *s = lupe_wiped_enter(&lupe_wiped_page->cpu_segment);
    /* Else it was on its way when the timers were deleted, or the thread was adopted. */
    if (s && !lupe_own_threads_have((pid_t)(uint32_t)value_of(info))) {
      expiry e = {
          .segment = s,
          .registers = lupe_context_registers(context),
          .tid = (uint32_t)value_of(info),
          .weight = 1 + (info->si_overrun > 0 ? (uint32_t)info->si_overrun : 0),
          .state = lupe_context_in_system_call(context, marks) ? LUPE_THREAD_KERNEL : LUPE_THREAD_USER,
          .start_ns = lupe_monotonic_ns(),
      };
      take(&e, stack_left(context));
      count(&s->counters.cpu_samples, e.weight);
      count(&s->counters.handler_ns, lupe_monotonic_ns() - e.start_ns);
    }
    lupe_wiped_leave();
  }
  errno = saved_errno;
}

size_t lupe_cpu_handler_stack_bytes(void) {
  size_t kernels = getauxval(AT_MINSIGSTKSZ);
  return (kernels != 0 ? kernels : KERNEL_BYTES) + LEAF_BYTES;
}

void lupe_cpu_handler_prepare(void) {
  atomic_store(&marks, lupe_context_calls_leave_marks());
}

void lupe_cpu_handler_ignore_others(bool ignore) {
  atomic_store(&ignored, ignore);
}

#include "core/agent/heap.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/agent/jemalloc.h"
#include "core/agent/own_maps.h"
#include "core/agent/tag.h"
#include "core/agent/unwind.h"
#include "core/agent/wiped.h"
#include "core/clock.h"
#include "core/wire/ring.h"

typedef void backtrace_hook(void **frames, unsigned *count, unsigned max);

static lupe_heap_info info;
static struct { /* what was there before us; written by lupe_heap_prepare */
  backtrace_hook *hook;
  bool active;
} theirs;
static _Thread_local uint32_t cached_tid;

static void count(_Atomic uint64_t *counter, uint64_t by) {
  atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* ---- the hook ---- */

/* Called by jemalloc for each allocation that it samples; `frames` has room for `max`. */
static void on_sample(void **frames, unsigned *out_count, unsigned max) {
  int saved_errno = errno;
  bool truncated = false;
  lupe_segment *s = lupe_wiped_enter(&lupe_wiped_page->heap_segment);
  uint64_t start_ns = s ? lupe_monotonic_ns() : 0;
  if (max > LUPE_MAX_FRAMES) max = LUPE_MAX_FRAMES;
  size_t tags = lupe_tag_count();
  if (tags >= max) tags = 0;
  size_t depth = lupe_unwind((uint64_t *)frames, max - tags, &truncated);
  if (depth == 0) { /* jemalloc wants at least one */
    frames[0] = __builtin_return_address(0);
    depth = 1;
  }
  if (tags > 0) lupe_tag_frames((uint64_t *)frames + depth);
  depth += tags;
  *out_count = (unsigned)depth;
  if (s) {
    if (cached_tid == 0) cached_tid = (uint32_t)gettid();
    lupe_record fields = {
        .kind = LUPE_RECORD_HEAP,
        .flags = truncated ? LUPE_RECORD_TRUNCATED : 0,
        .depth = (uint16_t)depth,
        .tid = cached_tid,
        .weight = 1,
        .time_ns = start_ns,
    };
    lupe_ring_push(s, &fields, (const uint64_t *)frames);
    count(&s->counters.heap_samples, 1);
    if (truncated) count(&s->counters.truncated_stacks, 1);
    count(&s->counters.hook_ns, lupe_monotonic_ns() - start_ns);
  }
  lupe_wiped_leave();
  errno = saved_errno;
}

/* ---- finding out ---- */

#define HOOK_NAME "experimental.hooks.prof_backtrace"

static bool set_hook(backtrace_hook *hook) {
  return mallctl(HOOK_NAME, NULL, NULL, &hook, sizeof hook) == 0;
}

static bool install_hook(void) {
  backtrace_hook *now = NULL;
  if (!lupe_unwind_supported() || !lupe_jemalloc_get(HOOK_NAME, &now, sizeof now)) return false;
  if (now != on_sample) theirs.hook = now;
  return set_hook(on_sample);
}

static lupe_heap_state find_state(bool switched_off) {
  if (!lupe_jemalloc_is_malloc()) {
    return switched_off ? LUPE_HEAP_SWITCHED_OFF : LUPE_HEAP_NO_JEMALLOC;
  }
  const char *version = "";
  if (!lupe_jemalloc_get("version", &version, sizeof version)) version = "";
  snprintf(info.allocator, sizeof info.allocator, "jemalloc %s", version);
  info.has_figures = lupe_jemalloc_flag("config.stats");
  if (switched_off) return LUPE_HEAP_SWITCHED_OFF;
  if (!lupe_jemalloc_flag("config.prof")) return LUPE_HEAP_NO_PROFILING;
  if (!lupe_jemalloc_flag("opt.prof")) return LUPE_HEAP_PROF_DISABLED;
  size_t lg_period = 0;
  if (lupe_jemalloc_get("prof.lg_sample", &lg_period, sizeof lg_period) && lg_period < 64) {
    info.sample_period_bytes = UINT64_C(1) << lg_period;
  }
  theirs.active = lupe_jemalloc_flag("prof.active");
  return install_hook() ? LUPE_HEAP_ON : LUPE_HEAP_NO_HOOK;
}

void lupe_heap_prepare(bool switched_off, lupe_heap_info *out) {
  info = (lupe_heap_info){.allocator = "system"};
  info.state = find_state(switched_off);
  *out = info;
}

/* ---- switching ---- */

static bool profiling(void) {
  return info.state == LUPE_HEAP_ON || info.state == LUPE_HEAP_NO_HOOK;
}

void lupe_heap_arm(lupe_segment *s) {
  atomic_store(&lupe_wiped_page->heap_segment, s);
}

void lupe_heap_activate(bool on) {
  if (profiling()) lupe_jemalloc_set("prof.active", on);
}

void lupe_heap_restore(void) {
  lupe_heap_arm(NULL);
  if (!profiling()) return;
  lupe_jemalloc_set("prof.active", theirs.active);
  if (info.state == LUPE_HEAP_ON && theirs.hook) set_hook(theirs.hook);
}

const lupe_heap_info *lupe_heap_found(void) {
  return &info;
}

void lupe_heap_after_fork_in_child(void) {
  cached_tid = 0;
}

/* ---- profiles ---- */

/* jemalloc copies /proc/PID/maps to the end of a dump. That is empty once the first thread has left by
 * pthread_exit, and no address could be told then: a thread that lives still sees them. */
static int append_missing_mappings(int fd) {
  static const char title[] = "\nMAPPED_LIBRARIES:\n";
  char text[sizeof title];
  off_t end = lseek(fd, 0, SEEK_END), from = end - (off_t)(sizeof title - 1);
  if (from < 0 || pread(fd, text, sizeof title - 1, from) != (ssize_t)sizeof title - 1) return 0;
  if (memcmp(text, title, sizeof title - 1) != 0) return 0;
  int maps = lupe_own_maps_open();
  if (maps < 0) return 0; /* no worse than before */
  int error = lupe_own_maps_copy(maps, fd);
  close(maps);
  return error;
}

int lupe_heap_dump(int fd) {
  char path[48];
  const char *name = path;
  if (!profiling()) return ENOTSUP;
  /* thread-self: the agent's thread has descriptors of its own, which /proc/self does not show. Opening
   * through it works whatever the file's owner: a thread may always look at its own process. */
  snprintf(path, sizeof path, "/proc/thread-self/fd/%d", fd);
  int error = mallctl("prof.dump", NULL, NULL, &name, sizeof name);
  return error ? error : append_missing_mappings(fd);
}

#include "core/agent/heap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/agent/tag.h"
#include "core/agent/unwind.h"
#include "core/agent/unwind_x86_64.h"
#include "core/agent/wiped.h"
#include "core/clock.h"
#include "core/wire/ring.h"

/* jemalloc's control interface. Weak: bound by the loader where the process has it, else NULL. */
extern int mallctl(const char *name, void *old, size_t *old_bytes, void *new, size_t new_bytes)
    __attribute__((weak));
extern int mallctlnametomib(const char *name, size_t *mib, size_t *mib_length) __attribute__((weak));
extern int mallctlbymib(const size_t *mib, size_t mib_length, void *old, size_t *old_bytes, void *new,
                        size_t new_bytes) __attribute__((weak));

typedef void backtrace_hook(void **frames, unsigned *count, unsigned max);

#define ALL_ARENAS 4096 /* jemalloc's MALLCTL_ARENAS_ALL */
enum {
  MIB_MAX = 8,
  STEP_WAIT_MS = 20, /* a fork, for an arena that gives back */
  FORK_PAUSE_MS = 1, /* the agent's thread, between two looks whether a fork has ended */
};

static lupe_heap_info info;
static _Thread_local uint32_t cached_tid;
static _Atomic uint32_t step;            /* 1: an arena gives back; a futex */
static _Atomic uint32_t forks;           /* threads in the midst of one */
static _Thread_local uint32_t own_forks; /* a signal handler may fork amid a fork */

static uint64_t now_ns(void) {
  return (uint64_t)lupe_clock_ns(CLOCK_MONOTONIC);
}

static void count(_Atomic uint64_t *counter, uint64_t by) {
  atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* ---- the hook ---- */

/* Called by jemalloc for each allocation that it samples; `frames` has room for `max`. */
static void on_sample(void **frames, unsigned *out_count, unsigned max) {
  int saved_errno = errno;
  bool truncated = false;
  lupe_segment *s = atomic_load_explicit(&lupe_wiped_page->heap_segment, memory_order_acquire);
  uint64_t start_ns = s ? now_ns() : 0;
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
    count(&s->counters.hook_ns, now_ns() - start_ns);
  }
  errno = saved_errno;
}

/* ---- reading and setting ---- */

static bool get(const char *name, void *out, size_t bytes) {
  size_t got = bytes;
  return mallctl(name, out, &got, NULL, 0) == 0 && got == bytes;
}

static bool set(const char *name, bool value) {
  return mallctl(name, NULL, NULL, &value, sizeof value) == 0;
}

static uint64_t get_size(const char *name) {
  size_t value = 0;
  return get(name, &value, sizeof value) ? value : 0;
}

static bool get_bool(const char *name) {
  bool value = false;
  return get(name, &value, sizeof value) && value;
}

/* A name with an index in its middle, such as arenas.bin.0.size, looked up once and read for many. */
typedef struct indexed_name {
  size_t mib[MIB_MAX];
  size_t length; /* 0: this jemalloc does not have it */
} indexed_name;

static indexed_name look_up(const char *name) {
  indexed_name n = {.length = MIB_MAX};
  if (mallctlnametomib(name, n.mib, &n.length) != 0) n.length = 0;
  return n;
}

static uint64_t read_indexed(indexed_name *n, size_t position, size_t index) {
  size_t value = 0, bytes = sizeof value;
  if (n->length <= position) return 0;
  n->mib[position] = index;
  return mallctlbymib(n->mib, n->length, &value, &bytes, NULL, 0) == 0 ? value : 0;
}

/* ---- finding out ---- */

/* mallctl may be there while malloc is somebody else's (a program with its own allocator, under a
 * preloaded jemalloc): then jemalloc does not notice an allocation. */
static bool malloc_is_jemalloc(void) {
  uint64_t before = 0, after = 0;
  if (!get("thread.allocated", &before, sizeof before)) return true; /* built without statistics */
  void *volatile block = malloc(64);
  bool known = get("thread.allocated", &after, sizeof after);
  free(block);
  return !known || after != before;
}

static bool install_hook(void) {
  size_t mib[MIB_MAX], length = MIB_MAX;
  backtrace_hook *hook = on_sample;
  if (!lupe_unwind_supported()) return false;
  if (mallctlnametomib("experimental.hooks.prof_backtrace", mib, &length) != 0) return false;
  return mallctlbymib(mib, length, NULL, NULL, &hook, sizeof hook) == 0;
}

static lupe_heap_state find_state(bool switched_off) {
  if (!mallctl || !mallctlnametomib || !mallctlbymib || !malloc_is_jemalloc()) {
    return switched_off ? LUPE_HEAP_SWITCHED_OFF : LUPE_HEAP_NO_JEMALLOC;
  }
  const char *version = "";
  if (!get("version", &version, sizeof version)) version = "";
  snprintf(info.allocator, sizeof info.allocator, "jemalloc %s", version);
  info.has_figures = get_bool("config.stats");
  if (switched_off) return LUPE_HEAP_SWITCHED_OFF;
  if (!get_bool("config.prof")) return LUPE_HEAP_NO_PROFILING;
  if (!get_bool("opt.prof")) return LUPE_HEAP_PROF_DISABLED;
  size_t lg_period = 0;
  if (get("prof.lg_sample", &lg_period, sizeof lg_period) && lg_period < 64) {
    info.sample_period_bytes = UINT64_C(1) << lg_period;
  }
  return install_hook() ? LUPE_HEAP_ON : LUPE_HEAP_NO_HOOK;
}

void lupe_heap_prepare(bool switched_off, lupe_heap_info *out) {
  snprintf(info.allocator, sizeof info.allocator, "system");
  info.state = find_state(switched_off);
  *out = info;
}

/* ---- switching ---- */

static bool profiling(void) {
  return info.state == LUPE_HEAP_ON || info.state == LUPE_HEAP_NO_HOOK;
}

void lupe_heap_arm(lupe_segment *s) {
  atomic_store_explicit(&lupe_wiped_page->heap_segment, s, memory_order_release);
}

void lupe_heap_activate(bool on) {
  if (profiling()) set("prof.active", on);
}

void lupe_heap_hide_thread(void) {
  if (profiling()) set("thread.prof.active", false);
  if (info.has_figures) set("thread.tcache.enabled", false);
}

/* ---- around fork ---- */

static void end_step(void) {
  atomic_store(&step, 0);
  if (atomic_load(&forks) > 0) syscall(SYS_futex, &step, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void lupe_heap_before_fork(void) {
  if (own_forks++ == 0) atomic_fetch_add(&forks, 1);
  if (!atomic_load(&step)) return; /* nor a system call, behind a filter */
  const uint64_t deadline_ns = now_ns() + STEP_WAIT_MS * UINT64_C(1000000);
  uint64_t now;
  while (atomic_load(&step) && (now = now_ns()) < deadline_ns) {
    struct timespec left = {0, (long)(deadline_ns - now)};
    lupe_system_call(SYS_futex, (long)&step, FUTEX_WAIT_PRIVATE, 1, (long)&left, 0, 0);
  }
}

void lupe_heap_after_fork(void) {
  if (--own_forks == 0) atomic_fetch_sub(&forks, 1);
}

/* Of the threads that forked at the same time none is here. */
void lupe_heap_after_fork_in_child(void) {
  cached_tid = 0;
  own_forks--;
  atomic_store(&forks, own_forks > 0);
  atomic_store(&step, 0);
}

/* ---- profiles ---- */

static int write_all(int fd, const char *text, size_t bytes) {
  while (bytes > 0) {
    ssize_t n = write(fd, text, bytes);
    if (n < 0 && errno != EINTR) return errno;
    if (n > 0) text += n, bytes -= (size_t)n;
  }
  return 0;
}

/* jemalloc copies /proc/PID/maps to the end of a dump. That is empty once the first thread has left by
 * pthread_exit, and no address could be told then: a thread that lives still sees them. */
static int append_missing_mappings(int fd) {
  static const char title[] = "\nMAPPED_LIBRARIES:\n";
  char text[4096];
  off_t end = lseek(fd, 0, SEEK_END), from = end - (off_t)(sizeof title - 1);
  if (from < 0 || pread(fd, text, sizeof title - 1, from) != (ssize_t)sizeof title - 1) return 0;
  if (memcmp(text, title, sizeof title - 1) != 0) return 0;
  int maps = open("/proc/thread-self/maps", O_RDONLY | O_CLOEXEC);
  if (maps < 0) return 0; /* no worse than before */
  int error = 0;
  ssize_t n;
  while (error == 0 && (n = read(maps, text, sizeof text)) != 0) {
    if (n > 0) {
      error = write_all(fd, text, (size_t)n);
    } else if (errno != EINTR) {
      error = errno;
    }
  }
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

/* ---- giving back ---- */

static bool may_be_told(void) {
  return info.state != LUPE_HEAP_NO_JEMALLOC && info.state != LUPE_HEAP_SWITCHED_OFF;
}

/* jemalloc notes in an arena that a thread gives its pages back, and holds no lock meanwhile. A child forked
 * then inherits the note, but not the thread that would take it away: the arena never gives back there, and
 * what was about to be is lost to it. So a fork and a step wait for each other, the fork for a moment. */
static bool begin_step(void) {
  atomic_store(&step, 1);
  if (atomic_load(&forks) == 0) return true;
  end_step();
  poll(NULL, 0, FORK_PAUSE_MS);
  return false;
}

static bool count_arenas(unsigned *out) {
  return may_be_told() && get("arenas.narenas", out, sizeof *out);
}

int lupe_heap_purge(uint32_t *arena) {
  unsigned arenas = 0;
  size_t mib[MIB_MAX], length = MIB_MAX;
  if (!count_arenas(&arenas)) return ENOTSUP;
  if (*arena >= arenas) return 0;
  int error = mallctlnametomib("arena.0.purge", mib, &length);
  if (error) return error;
  if (!begin_step()) return EINPROGRESS;
  mib[1] = (*arena)++;
  error = mallctlbymib(mib, length, NULL, NULL, NULL, 0);
  end_step();
  return error ? error : EINPROGRESS;
}

/* jemalloc's own arena for huge blocks, behind those that threads are given. UINT_MAX: it has none. */
static unsigned huge_arena(void) {
  unsigned of_threads = 0;
  if (get_size("opt.oversize_threshold") == 0 || !get("opt.narenas", &of_threads, sizeof of_threads))
    return UINT_MAX;
  return of_threads;
}

static int set_default_decay(const char *name, ssize_t ms) {
  return ms == LUPE_DECAY_SAME ? 0 : mallctl(name, NULL, NULL, &ms, sizeof ms);
}

/* The arena for huge blocks gives back at once, and jemalloc starts a thread where it is told otherwise. */
static int set_arena_decay(const char *of_first, unsigned arena, ssize_t ms) {
  ssize_t its = 0;
  size_t mib[MIB_MAX], length = MIB_MAX, bytes = sizeof its;
  if (ms == LUPE_DECAY_SAME) return 0;
  int error = mallctlnametomib(of_first, mib, &length);
  if (error) return error;
  mib[1] = arena;
  if (mallctlbymib(mib, length, &its, &bytes, NULL, 0) != 0) return 0; /* it has not begun */
  if (its == 0 && arena == huge_arena()) return 0;
  return mallctlbymib(mib, length, NULL, NULL, &ms, sizeof ms);
}

int lupe_heap_set_decay(int32_t dirty_ms, int32_t muzzy_ms, uint32_t *arena) {
  unsigned arenas = 0;
  int error = 0;
  if (!count_arenas(&arenas)) return ENOTSUP;
  if (*arena == 0) error = set_default_decay("arenas.dirty_decay_ms", dirty_ms);
  if (*arena == 0 && error == 0) error = set_default_decay("arenas.muzzy_decay_ms", muzzy_ms);
  if (error || *arena >= arenas) return error;
  if (!begin_step()) return EINPROGRESS;
  unsigned its = (*arena)++;
  error = set_arena_decay("arena.0.dirty_decay_ms", its, dirty_ms);
  if (error == 0) error = set_arena_decay("arena.0.muzzy_decay_ms", its, muzzy_ms);
  end_step();
  return error ? error : EINPROGRESS;
}

/* ---- figures ---- */

static void read_classes(lupe_allocator_figures *f, const char *count_name, const char *size_name,
                         const char *live_name) {
  unsigned classes = 0;
  if (!get(count_name, &classes, sizeof classes)) return;
  indexed_name size = look_up(size_name), live = look_up(live_name);
  if (live.length > 2) live.mib[2] = ALL_ARENAS;
  for (unsigned i = 0; i < classes && f->class_count < LUPE_SIZE_CLASSES_MAX; i++) {
    uint64_t live_count = read_indexed(&live, 4, i);
    if (live_count == 0) continue;
    f->classes[f->class_count++] = (lupe_size_class){read_indexed(&size, 2, i), live_count};
  }
}

lupe_status lupe_heap_read_figures(lupe_allocator_figures *out) {
  if (!info.has_figures) return LUPE_ENOENT;
  uint64_t epoch = 1;
  mallctl("epoch", NULL, NULL, &epoch, sizeof epoch); /* what is read from here on is of one moment */
  memset(out, 0, sizeof *out);
  out->time_ms = lupe_clock_ns(CLOCK_REALTIME) / 1000000;
  out->allocated_bytes = get_size("stats.allocated");
  out->active_bytes = get_size("stats.active");
  out->metadata_bytes = get_size("stats.metadata");
  out->resident_bytes = get_size("stats.resident");
  out->mapped_bytes = get_size("stats.mapped");
  out->retained_bytes = get_size("stats.retained");
  uint64_t page_bytes = get_size("arenas.page");
  indexed_name dirty = look_up("stats.arenas.0.pdirty"), muzzy = look_up("stats.arenas.0.pmuzzy");
  out->dirty_bytes = read_indexed(&dirty, 2, ALL_ARENAS) * page_bytes;
  out->muzzy_bytes = read_indexed(&muzzy, 2, ALL_ARENAS) * page_bytes;
  indexed_name cached = look_up("stats.arenas.0.tcache_bytes");
  out->cached_bytes = read_indexed(&cached, 2, ALL_ARENAS);
  ssize_t decay_ms = 0;
  if (get("arenas.dirty_decay_ms", &decay_ms, sizeof decay_ms)) out->dirty_decay_ms = decay_ms;
  if (get("arenas.muzzy_decay_ms", &decay_ms, sizeof decay_ms)) out->muzzy_decay_ms = decay_ms;
  unsigned arenas = 0;
  if (get("arenas.narenas", &arenas, sizeof arenas)) out->arena_count = arenas;
  out->background_thread = get_bool("background_thread");
  out->thread_cache = get_bool("opt.tcache");
  read_classes(out, "arenas.nbins", "arenas.bin.0.size", "stats.arenas.0.bins.0.curregs");
  read_classes(out, "arenas.nlextents", "arenas.lextent.0.size", "stats.arenas.0.lextents.0.curlextents");
  return LUPE_OK;
}

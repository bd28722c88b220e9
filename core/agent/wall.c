#define _GNU_SOURCE
#include "core/agent/wall.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/agent/thread_table.h"
#include "core/agent/unwind.h"
#include "core/agent/unwind_memory.h"
#include "core/clock.h"
#include "core/wire/ring.h"

enum {
  PAIRS_MAX = 512,
  DESCRIPTORS_SPARED = 64, /* of RLIMIT_NOFILE: for the agent's other work */
  STACK_COPIED = 16 << 10, /* bytes above the stack pointer; what is further up is read piece by piece */
  GATHER_NS = 1000000000,
  LATE_LOOKS = 4,       /* so many looks may be missed and their time still counts; */
  LATE_NS = 1000000000, /* or so much time: the agent's thread takes heap profiles, too */
  LINE_BYTES = 256,
  FUTEX_COMMAND = 0x7f,
  NOTHING_GATHERED = UINT32_MAX,
};

/* What one look saw. */
typedef struct sight {
  uint32_t state;
  uint16_t depth;
  uint8_t flags;
  uint64_t frames[LUPE_MAX_FRAMES];
} sight;

typedef enum answer {
  ANSWER_LINE,
  ANSWER_GONE,    /* the thread has ended */
  ANSWER_REFUSED, /* its files are not for us to read */
} answer;

static void count(_Atomic uint64_t *counter) {
  atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- /proc ---- */

static int open_of(const lupe_wall *w, pid_t tid, const char *name) {
  char path[32];
  snprintf(path, sizeof path, "%d/%s", (int)tid, name);
  return openat(w->tasks, path, O_RDONLY | O_CLOEXEC);
}

/* Reads a file of one line. `kept`: its descriptor, -1 to open it for this once. */
static answer read_line(const lupe_wall *w, pid_t tid, const char *name, int kept, char line[LINE_BYTES]) {
  int fd = kept >= 0 ? kept : open_of(w, tid, name);
  if (fd < 0) return errno == ENOENT || errno == ESRCH ? ANSWER_GONE : ANSWER_REFUSED;
  ssize_t n = pread(fd, line, LINE_BYTES - 1, 0);
  int why = errno;
  if (kept < 0) close(fd);
  line[n > 0 ? n : 0] = '\0';
  if (n > 0) return ANSWER_LINE;
  return n == 0 || why == ESRCH ? ANSWER_GONE : ANSWER_REFUSED;
}

/* How often the thread was put on a core: the third number of schedstat. 0: not known. */
static uint64_t read_runs(const lupe_wall *w, const lupe_wall_thread *t) {
  char line[LINE_BYTES], *at = line;
  if (read_line(w, t->tid, "schedstat", t->schedstat_fd, line) != ANSWER_LINE) return 0;
  for (int skipped = 0; skipped < 2; skipped++) {
    at = strchr(at, ' ');
    if (at == NULL) return 0;
    at++;
  }
  return strtoull(at, NULL, 10);
}

/* The line is "running", or "-1 SP PC", or "NUMBER six arguments SP PC". False for the first. */
static bool parse_waiting(const char *line, uint32_t *out_state, lupe_registers *out) {
  char *at;
  uint64_t words[8] = {0};
  size_t got = 0;
  long number = strtol(line, &at, 10);
  if (at == line) return false;
  while (got < 8 && *at == ' ') words[got++] = strtoull(at + 1, &at, 16);
  if (got != 2 && got != 8) return false;
  bool in_call = got == 8 && number >= 0 && number < LUPE_NO_SYSCALL;
  *out_state = LUPE_THREAD_WAITING | (in_call ? (uint32_t)number : (uint32_t)LUPE_NO_SYSCALL) << 16;
  if (in_call && number == SYS_futex) *out_state |= (uint32_t)(words[1] & FUTEX_COMMAND) << 8;
  *out = (lupe_registers){
      .pc = words[got - 1], .sp = words[got - 2], .bp = LUPE_REGISTER_UNKNOWN, .bx = LUPE_REGISTER_UNKNOWN};
  return true;
}

/* ---- one look ---- */

/* Whether the thread has stood still since `line` was read, before which it had been put on a core `runs`
 * times. The line alone tells as much where there is no such number, but for a thread that ran and is back in
 * the same call. */
static bool stood_still(const lupe_wall *w, const lupe_wall_thread *t, uint64_t runs, const char *line) {
  char again[LINE_BYTES];
  if (runs != 0) return read_runs(w, t) == runs;
  return read_line(w, t->tid, "syscall", t->syscall_fd, again) == ANSWER_LINE && strcmp(line, again) == 0;
}

/* `*out_settled`: it waits, and will be found the same for as long as it has not run. */
static answer see(lupe_wall *w, const lupe_wall_thread *t, uint64_t runs, sight *out, bool *out_settled) {
  char line[LINE_BYTES];
  unsigned char stack[STACK_COPIED];
  lupe_registers registers;
  bool truncated;
  out->state = LUPE_THREAD_RUNNING;
  out->depth = out->flags = 0;
  *out_settled = false;
  answer got = read_line(w, t->tid, "syscall", t->syscall_fd, line);
  uint32_t state;
  if (got != ANSWER_LINE || !parse_waiting(line, &state, &registers)) return got;
  if (registers.sp == 0) return ANSWER_GONE; /* a first thread that has left, a worker of the kernel's */
  size_t copied = lupe_memory_read_checked(registers.sp, stack, sizeof stack);
  size_t depth = lupe_unwind_copied(&registers, stack, copied, out->frames, LUPE_MAX_FRAMES, &truncated);
  if (!stood_still(w, t, runs, line)) {
    count(&w->segment->counters.wall_moved);
    return ANSWER_LINE;
  }
  out->state = state;
  out->depth = (uint16_t)depth;
  if (truncated) {
    out->flags = LUPE_RECORD_TRUNCATED;
    count(&w->segment->counters.truncated_stacks);
  }
  *out_settled = runs != 0;
  return ANSWER_LINE;
}

static void note_unread(lupe_wall *w, lupe_wall_thread *t, bool unread) {
  if (unread == t->unread) return;
  t->unread = unread;
  w->unread += unread ? 1 : (uint32_t)-1;
}

/* ---- records ---- */

static void push(lupe_wall *w, lupe_wall_thread *t) {
  uint64_t weight_us = t->gathered_ns / 1000;
  if (t->state == NOTHING_GATHERED || weight_us == 0) return;
  lupe_record fields = {
      .kind = LUPE_RECORD_WALL,
      .flags = t->flags,
      .depth = t->depth,
      .tid = (uint32_t)t->tid,
      .weight = (uint32_t)weight_us,
      .state = t->state,
      .switches = (uint32_t)t->switches,
      .time_ns = t->looked_ns,
  };
  lupe_ring_push(w->segment, &fields, t->frames);
  t->gathered_ns -= weight_us * 1000; /* what is below a microsecond goes to the next one */
  t->switches = 0;
}

static bool is_gathered(const lupe_wall_thread *t, const sight *seen) {
  return t->state == seen->state && t->depth == seen->depth && t->flags == seen->flags &&
         memcmp(t->frames, seen->frames, seen->depth * sizeof seen->frames[0]) == 0;
}

static void gather(lupe_wall *w, lupe_wall_thread *t, const sight *seen) {
  if (is_gathered(t, seen)) return;
  push(w, t);
  t->state = seen->state;
  t->depth = seen->depth;
  t->flags = seen->flags;
  memcpy(t->frames, seen->frames, seen->depth * sizeof seen->frames[0]);
}

void lupe_wall_look(lupe_wall *w, lupe_wall_thread *t, uint64_t longest_ns) {
  if (w->segment == NULL || t->tid == 0) return;
  uint64_t runs = read_runs(w, t);
  if (!t->settled || runs == 0 || runs != t->runs) {
    sight seen;
    bool settled;
    answer got = see(w, t, runs, &seen, &settled);
    if (got != ANSWER_GONE) note_unread(w, t, got == ANSWER_REFUSED);
    if (got != ANSWER_LINE) {
      t->looked_ns = lupe_monotonic_ns(); /* nothing is known about the time until now */
      return;
    }
    gather(w, t, &seen);
    t->settled = settled;
    if (runs > t->runs && t->runs != 0) t->switches += runs - t->runs;
    t->runs = runs;
  }
  uint64_t now = lupe_monotonic_ns(), elapsed = now - t->looked_ns;
  t->gathered_ns += elapsed < longest_ns ? elapsed : longest_ns;
  t->looked_ns = now;
  count(&w->segment->counters.wall_looks);
  if (t->gathered_ns >= GATHER_NS) push(w, t);
}

/* ---- all threads ---- */

void lupe_wall_set_rate(lupe_wall *w, uint32_t hz) {
  w->interval_ns = 1000000000 / hz;
}

void lupe_wall_begin(lupe_wall *w, lupe_segment *s, int tasks, uint32_t hz) {
  struct rlimit files;
  lupe_sampling_state state = LUPE_SAMPLING_OFF;
  *w = (lupe_wall){.tasks = tasks, .pairs_left = PAIRS_MAX};
  if (hz != 0) state = lupe_unwind_supported() ? LUPE_SAMPLING_ON : LUPE_SAMPLING_UNSUPPORTED;
  atomic_store_explicit(&s->counters.wall_state, state, memory_order_relaxed);
  if (state != LUPE_SAMPLING_ON) return;
  w->segment = s;
  lupe_wall_set_rate(w, hz);
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < DESCRIPTORS_SPARED + 2 * PAIRS_MAX) {
    w->pairs_left =
        files.rlim_cur > DESCRIPTORS_SPARED ? (uint32_t)(files.rlim_cur - DESCRIPTORS_SPARED) / 2 : 0;
  }
}

void lupe_wall_thread_start(lupe_wall *w, lupe_wall_thread *t, pid_t tid) {
  t->tid = 0;
  if (w->segment == NULL) return;
  t->tid = tid;
  t->syscall_fd = t->schedstat_fd = -1;
  t->unread = t->settled = false;
  t->looked_ns = lupe_monotonic_ns();
  t->gathered_ns = t->switches = 0;
  t->state = NOTHING_GATHERED;
  t->depth = 0;
  w->started++;
  if (w->pairs_left > 0) t->syscall_fd = open_of(w, tid, "syscall");
  if (t->syscall_fd >= 0) {
    t->schedstat_fd = open_of(w, tid, "schedstat");
    w->pairs_left--;
  }
  t->runs = read_runs(w, t);
}

void lupe_wall_thread_end(lupe_wall *w, lupe_wall_thread *t) {
  if (w->segment == NULL || t->tid == 0) return;
  push(w, t);
  if (t->syscall_fd >= 0) {
    close(t->syscall_fd);
    w->pairs_left++;
  }
  if (t->schedstat_fd >= 0) close(t->schedstat_fd);
  note_unread(w, t, false);
  w->started--;
  t->tid = 0;
}

void lupe_wall_tick(lupe_wall *w, lupe_thread_table *threads) {
  size_t all = lupe_thread_table_count(threads);
  if (w->segment == NULL || all == 0) return;
  size_t looks = all < LUPE_WALL_THREADS_PER_TICK ? all : LUPE_WALL_THREADS_PER_TICK;
  uint64_t rounds = (all + looks - 1) / looks, longest_ns = LATE_LOOKS * rounds * w->interval_ns;
  if (longest_ns < LATE_NS) longest_ns = LATE_NS;
  for (size_t i = 0; i < looks; i++) {
    w->next = w->next < all ? w->next : 0;
    lupe_wall_look(w, &lupe_thread_table_at(threads, w->next++)->wall, longest_ns);
  }
  lupe_counters *counters = &w->segment->counters;
  bool none = w->started > 0 && w->unread == w->started;
  atomic_store_explicit(&counters->threads_unread, w->unread, memory_order_relaxed);
  atomic_store_explicit(&counters->wall_state, none ? LUPE_SAMPLING_UNREADABLE : LUPE_SAMPLING_ON,
                        memory_order_relaxed);
}

void lupe_wall_end(lupe_wall *w, lupe_thread_table *threads) {
  if (w->segment == NULL) return;
  size_t all = lupe_thread_table_count(threads);
  for (size_t i = 0; i < all; i++) lupe_wall_thread_end(w, &lupe_thread_table_at(threads, i)->wall);
  w->segment = NULL;
}

#define _GNU_SOURCE
#include "core/agent/wall.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/agent/unwind.h"
#include "core/clock.h"
#include "core/wire/ring.h"

enum {
  PAIRS_MAX = 512,
  DESCRIPTORS_SPARED = 64, /* of RLIMIT_NOFILE: for the agent's other work */
  NOTHING_GATHERED = UINT32_MAX,
};

static uint64_t now_ns(void) {
  return (uint64_t)lupe_clock_ns(CLOCK_MONOTONIC);
}

static int open_of(pid_t tid, const char *name) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/%s", (int)tid, name);
  return open(path, O_RDONLY | O_CLOEXEC);
}

void lupe_wall_begin(lupe_wall *w, lupe_segment *s, uint32_t hz) {
  struct rlimit files;
  *w = (lupe_wall){.pairs_left = PAIRS_MAX};
  bool supported = lupe_unwind_supported();
  lupe_sampling_state state = hz == 0     ? LUPE_SAMPLING_OFF
                              : supported ? LUPE_SAMPLING_ON
                                          : LUPE_SAMPLING_UNSUPPORTED;
  atomic_store_explicit(&s->counters.wall_state, state, memory_order_relaxed);
  if (state != LUPE_SAMPLING_ON) return;
  w->segment = s;
  w->interval_ns = 1000000000 / hz;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < DESCRIPTORS_SPARED + 2 * PAIRS_MAX) {
    w->pairs_left =
        files.rlim_cur > DESCRIPTORS_SPARED ? (uint32_t)(files.rlim_cur - DESCRIPTORS_SPARED) / 2 : 0;
  }
}

void lupe_wall_thread_start(lupe_wall *w, lupe_wall_thread *t, pid_t tid) {
  if (w->segment == NULL) {
    t->tid = 0;
    return;
  }
  t->tid = tid;
  t->syscall_fd = t->schedstat_fd = -1;
  t->unread = t->settled = false;
  t->runs = 0;
  t->looked_ns = now_ns();
  t->gathered_ns = t->switches = 0;
  t->state = NOTHING_GATHERED;
  if (w->pairs_left == 0) return;
  t->syscall_fd = open_of(tid, "syscall");
  if (t->syscall_fd < 0) return;
  t->schedstat_fd = open_of(tid, "schedstat");
  w->pairs_left--;
}

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
  t->gathered_ns -= weight_us * 1000;
  t->switches = 0;
}

void lupe_wall_thread_end(lupe_wall *w, lupe_wall_thread *t) {
  if (w->segment == NULL || t->tid == 0) return;
  push(w, t);
  if (t->syscall_fd >= 0) {
    close(t->syscall_fd);
    w->pairs_left++;
  }
  if (t->schedstat_fd >= 0) close(t->schedstat_fd);
  if (t->unread) w->unread--;
  t->tid = 0;
}

/* thread_table.h -- the program's threads, as the agent's thread knows them from /proc/self/task.
 * At most 4096; what is above is counted only. Memory: one mapping, touched as far as there are threads; no
 * malloc. Threads stay in their place while they live. Thread: the agent's only, for every function. */
#ifndef LUPE_AGENT_THREAD_TABLE_H
#define LUPE_AGENT_THREAD_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/agent/cpu.h"
#include "core/agent/wall.h"
#include "core/lupe.h"

enum { LUPE_THREADS_MAX = LUPE_CPU_TIMERS_MAX };

typedef struct lupe_thread {
  pid_t tid;
  uint32_t scan; /* the last scan that saw it */
  lupe_cpu_thread cpu;
  lupe_wall_thread wall;
} lupe_thread;

typedef struct lupe_thread_table lupe_thread_table;

/* What /proc tells about a thread and a look needs. */
typedef struct lupe_thread_status {
  char state;                   /* as ps shows it: 'Z' for a first thread that has left */
  uint64_t blocked;             /* the signals it blocks: bit N - 1 for signal N */
  uint64_t queued, queue_limit; /* of the user's signals and timers: RLIMIT_SIGPENDING. 0: not told */
} lupe_thread_status;

/* Told about one thread. A thread that has just started is all zeros but for `tid`. */
typedef void lupe_thread_event(void *arg, lupe_thread *t);

/* Opens /proc/self/task and /proc/loadavg, which stay readable whatever the program does to its credentials
 * or its root directory. Empty: the first scan finds all threads. A table that the parent of a forked child
 * left behind is used again. LUPE_ENOENT: no /proc; LUPE_ENOMEM. */
lupe_status lupe_thread_table_open(lupe_thread_table **out);

/* /proc/self/task, for openat: the table's, open until lupe_thread_table_close. */
int lupe_thread_table_folder(const lupe_thread_table *t);

/* Forgets all threads without a word: the next scan finds them anew. */
void lupe_thread_table_forget(lupe_thread_table *t);

/* Closes the directory, and frees. NULL is a no-op. */
void lupe_thread_table_close(lupe_thread_table *t);

/* Reads the directory. `started` and `ended` are told what has changed; threads of `own` are left out.
 * LUPE_EIO: nothing was learned. */
lupe_status lupe_thread_table_scan(lupe_thread_table *t, const pid_t *own, size_t own_count,
                                   lupe_thread_event *started, lupe_thread_event *ended, void *arg);

/* Whether a scan would find something else than the last one did, at the price of two system calls. */
typedef enum lupe_thread_change {
  LUPE_THREADS_SAME,
  LUPE_THREADS_PERHAPS, /* as many as before, but something has been started on this system since */
  LUPE_THREADS_CHANGED,
} lupe_thread_change;
lupe_thread_change lupe_thread_table_changed(const lupe_thread_table *t);

size_t lupe_thread_table_count(const lupe_thread_table *t);
lupe_thread *lupe_thread_table_at(lupe_thread_table *t, size_t i);

/* The place that is this thread's alone while it lives: below LUPE_THREADS_MAX. */
size_t lupe_thread_table_place(const lupe_thread_table *t, const lupe_thread *thread);

/* Threads that the last scan saw and that have no place in the table. */
size_t lupe_thread_table_beyond(const lupe_thread_table *t);

/* LUPE_ENOENT: it has ended. */
lupe_status lupe_thread_table_status(const lupe_thread_table *t, pid_t tid, lupe_thread_status *out);

#endif

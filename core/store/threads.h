/* threads.h -- the threads of a process and the CPU time that each used, from /proc/PID/task.
 * Thread: any. One open and two reads per thread. */
#ifndef LUPE_STORE_THREADS_H
#define LUPE_STORE_THREADS_H

#include <stdint.h>
#include <sys/types.h>

#include "core/lupe.h"

typedef struct lupe_thread_figures {
  pid_t tid;
  char name[64];
  uint64_t user_ns, system_ns; /* in steps of a clock tick */
} lupe_thread_figures;

/* Fills at most `capacity` rows; *out_count of them. Threads that end meanwhile are left out. LUPE_ENOENT:
 * the process is gone; LUPE_EPERM; LUPE_EIO. */
lupe_status lupe_threads_read(pid_t pid, lupe_thread_figures *out, size_t capacity, size_t *out_count);

#endif

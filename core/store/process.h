/* process.h -- what /proc tells about a process and about the host.
 * No state: every call opens, reads and closes. A process's files are read through one descriptor of
 * its /proc folder, so that a reused pid never mixes two processes. Results are written whole or not at all.
 * Thread: any. Each call takes some 10-50 us of system calls and never waits for another process.
 * Returns, unless said otherwise: LUPE_OK; LUPE_ENOENT when the process is gone, a zombie or without memory
 * (a kernel thread); LUPE_EPERM when it is another user's; LUPE_ECORRUPT when a file is not of the form the
 * kernel documents; LUPE_EIO. */
#ifndef LUPE_STORE_PROCESS_H
#define LUPE_STORE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/lupe.h"
#include "core/store/snapshot_layout.h"

/* Fills time_ms, rss, virtual, shared (bytes), user and system (ns, whole threads of the process, in steps of
 * a clock tick), faults and threads; all else becomes 0. */
lupe_status lupe_process_read(pid_t pid, lupe_memory_figures *out);

/* When the process started, in clock ticks since boot: with the pid it names one process for good. */
lupe_status lupe_process_start_ticks(pid_t pid, uint64_t *out);

/* The base name of its program's file; of a file deleted since, its old name; its comm where the
 * link cannot be read. Always terminated; LUPE_EINVAL if `capacity` cannot hold it. 256 always can. */
lupe_status lupe_process_name(pid_t pid, char *out, size_t capacity);

/* The kernel's name of its main thread, which a program may set (at most 63 bytes). */
lupe_status lupe_process_comm(pid_t pid, char *out, size_t capacity);

/* Load averages over 1, 5 and 15 minutes, and the cores online. LUPE_EIO where they cannot be read. */
typedef struct lupe_host_load {
  double load_1m, load_5m, load_15m;
  uint32_t cores;
} lupe_host_load;
lupe_status lupe_host_load_read(lupe_host_load *out);

#endif

/* cgroup.h -- the memory limit that a process lives under.
 * Walks from the process's own group to the root of what is mounted here, version 2 and version 1
 * (also both at once), and answers for the group whose limit is the smallest: that one is hit first.
 * Thread: any; reads files. */
#ifndef LUPE_STORE_CGROUP_H
#define LUPE_STORE_CGROUP_H

#include <stdint.h>
#include <sys/types.h>

#include "core/lupe.h"

typedef struct lupe_cgroup_memory {
  uint64_t limit_bytes;       /* 0: no group on the way up has one */
  uint64_t used_bytes;        /* of the group with that limit; without one, of the process's own */
  uint64_t reclaimable_bytes; /* of these: cached pages of files that have not been used lately, which the
                                 kernel takes back before it ends anything */
} lupe_cgroup_memory;

/* LUPE_ENOENT: the process is gone, or no memory controller is mounted where lupe can see it. */
lupe_status lupe_cgroup_memory_read(pid_t pid, lupe_cgroup_memory *out);

/* The same from other files than /proc/PID/cgroup and /proc/self/mountinfo: for the specs. */
lupe_status lupe__cgroup_memory_from(const char *cgroup_path, const char *mountinfo_path,
                                     lupe_cgroup_memory *out);

#endif

/* quiet_fork.h -- a fork that the program does not notice: no SIGCHLD, nothing for waitpid(-1) to find.
 *
 * The C library's own fork runs, with all its handlers, the allocator's among them. Its clone is trapped by
 * syscall user dispatch (x86-64, Linux 5.11) on this thread alone, and made with exit signal 0: the kernel
 * tells nobody of such a child's end, and only waits with __WCLONE or __WALL see it. All other system calls
 * of the fork are made as they are. For that moment SIGSYS is ours; one that is not for us ends the process,
 * as it would have. Thread: the agent's, with SIGSYS unblocked for the moment; no function waits. */
#ifndef LUPE_AGENT_QUIET_FORK_H
#define LUPE_AGENT_QUIET_FORK_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/lupe.h"

/* LUPE_OK: it can be done here; LUPE_EINUSE: the program has a handler for SIGSYS of its own;
 * LUPE_EUNSUPPORTED: the kernel, or a filter, does not let system calls be trapped. */
lupe_status lupe_quiet_fork_check(void);

/* As fork: 0 in the child, -1 and errno. ENOTSUP where lupe_quiet_fork_check says no. The child is reaped by
 * waitpid(pid, ..., __WCLONE), and only by that. */
pid_t lupe_quiet_fork(void);

/* Whether the fork that runs on this thread is a quiet one: the agent is not to begin anew in its child.
 * Thread: any; for fork handlers. */
bool lupe_quiet_fork_running(void);

/* In a child of the program's own, which another thread may have forked meanwhile: gives SIGSYS back there too. */
void lupe_quiet_fork_after_fork_in_child(void);

#endif

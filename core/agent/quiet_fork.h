/* quiet_fork.h -- a fork that the program does not notice: no SIGCHLD, nothing for waitpid(-1) to find.
 *
 * The C library's own fork runs, with the handlers that prepare it, the allocator's among them: so the copy
 * is one in which nobody is in the midst of anything. Its clone is trapped by syscall user dispatch (x86-64,
 * Linux 5.11) on this thread alone, and made with exit signal 0: the kernel tells nobody of such a child's
 * end, and only waits with __WCLONE or __WALL see it. All other system calls of the fork are made as they
 * are; but fork handlers that start threads or programs are told that this is not possible. For that moment
 * SIGSYS is ours; one that is not for us ends the process, as it would have.
 *
 * The child never comes back to the C library, which would begin to take the other threads' storage apart: it
 * goes on in the handler. No handler of the program's runs there, locks stay as they are, the allocator's are
 * taken. Thread: the agent's, with SIGSYS unblocked for the moment. Waits for what fork handlers wait for. */
#ifndef LUPE_AGENT_QUIET_FORK_H
#define LUPE_AGENT_QUIET_FORK_H

#include <sys/types.h>

#include "core/lupe.h"

/* LUPE_OK: it can be done here; LUPE_EINUSE: the program has a handler for SIGSYS of its own;
 * LUPE_EUNSUPPORTED: the kernel, or a filter, does not let system calls be trapped. */
lupe_status lupe_quiet_fork_check(void);

/* Returns the child's pid, or -1 and errno: ENOTSUP where lupe_quiet_fork_check says no. In the child
 * `run(arg)` is called, which must not return, nor allocate. It is reaped by waitpid(pid, ..., __WCLONE), and
 * only by that. */
pid_t lupe_quiet_fork(void (*run)(void *arg), void *arg);

/* In a child of the program's own, which another thread may have forked meanwhile: gives SIGSYS back there
 * too. */
void lupe_quiet_fork_after_fork_in_child(void);

#endif

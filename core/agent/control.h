/* control.h -- the agent's thread: it speaks with the runtime and takes heap profiles.
 *
 * The thread has a descriptor table of its own, empty but for what it opens itself. The program can
 * neither close nor reuse the agent's descriptors, never sees them, and inherits none into its children;
 * whatever number a file of the program's has, the agent cannot write to it.
 * It blocks all signals, runs at normal priority, and does not keep the process alive: once all other threads
 * have ended, it ends, and with it the process.
 *
 * No runtime, or one that went away: sampling stops, the thread ends, the program goes on. Where the runtime
 * had said that it is a daemon's, the thread stays and looks for it again, at pauses that grow to 10 s. What
 * is forked meanwhile is not profiled, until it execs. */
#ifndef LUPE_AGENT_CONTROL_H
#define LUPE_AGENT_CONTROL_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/lupe.h"

enum { LUPE_AGENT_STACK_BYTES = 256 << 10 /* of the thread, its thread-local storage included */ };

/* Once in a process's life, after lupe_wiped_create. LUPE_ENOMEM. */
lupe_status lupe_control_prepare(void);

/* ---- One thread at a time; any but the agent's. ---- */

/* Whether there is no thread of the agent's. One that has finished is cleared away. */
bool lupe_control_may_start(void);

/* After lupe_control_may_start. Starts the thread, and waits (at most 1 s) until it has said HELLO, or until
 * sampling is as the runtime wants it. `socket_path` is copied. Anything but LUPE_OK: neither, as agent.h
 * says why; the thread may go on trying, if lupe_control_stop does not follow. */
lupe_status lupe_control_start(const char *socket_path, bool leave_allocator, bool until_welcome);

/* A last profile and a farewell, at most 1 s; then there is neither thread nor segment, but for what agent.h
 * says (LUPE_EAGAIN). */
lupe_status lupe_control_stop(void);

/* Whether the runtime has been told HELLO. Thread: any. */
bool lupe_control_online(void);

/* In a forked child, on the thread that forked, after jemalloc's own handler. Where the parent was connected:
 * a thread is started, and as root this waits (at most 0.1 s) until it has connected, since the child may
 * change its credentials next. The thread then says nothing for 100 ms: most children exec or exit at once.
 */
void lupe_control_after_fork(void);

/* At normal exit: a last profile and a farewell, for which this waits at most 1 s; where a leak proof is
 * wanted before, also as long as its limits let that take. Does nothing in any other process than the
 * thread's own. Thread: any. */
void lupe_control_finish(void);

/* A last profile and a farewell in the midst of the program, which is about to forbid itself what the agent
 * does. Sampling stays off, and from here on no function above makes a system call. Waits at most 1 s.
 * Thread: any. */
void lupe_control_leave(void);

/* Whether it has, here or in a process that this one was forked from. Makes no system call. Thread: any. */
bool lupe_control_has_left(void);

/* The agent's thread; one that has just been started is waited for, at most 1 s: -1, it has not said which it
 * is. 0: there is none in this process, or lupe_control_leave was called; then this makes no system call that
 * a filter could end the program for. Thread: any. */
pid_t lupe_control_thread_id(void);

/* Ends the agent's thread for good, without a farewell: the program is about to ask the kernel for something
 * that only a process with one thread may do (`only_single`: not where there are further ones), or that this
 * thread could not do alike. Waits at most 10 s, as for a profile that is being taken. True: it has just
 * ended, though the kernel may need a moment more to forget it. Thread: any. */
bool lupe_control_retire(bool only_single);

#endif

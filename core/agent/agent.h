/* agent.h -- the agent as a part of a program: what the preloaded library does by itself at start and exit,
 * and an embedding program has done by lupe_start and lupe_stop.
 *
 * liblupe.so and liblupe-agent.so both have these functions, and those of lupe.h that mark: where a program
 * that is linked to the one runs with the other preloaded, all calls go to the preloaded agent, and there is
 * one. */
#ifndef LUPE_AGENT_AGENT_H
#define LUPE_AGENT_AGENT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/agent/heap.h"
#include "core/lupe.h"

#define LUPE_AGENT_API __attribute__((visibility("default")))

/* Speaks with the runtime behind `socket_path` (copied) from now on; returns when sampling is on. May be
 * called again after lupe_agent_stop. `leave_allocator`: the heap is not profiled. LUPE_EINUSE: it speaks
 * with one already; LUPE_ENOENT: nobody listens there, or did not welcome us within a second; LUPE_EPERM:
 * somebody else's; LUPE_EVERSION: it speaks another version of the wire; LUPE_EUNSUPPORTED: this kernel
 * cannot, or the program exits, has forbidden itself what the agent does, or is a child of vfork;
 * LUPE_ENOMEM, LUPE_EIO; LUPE_EINVAL: no such path can be. Nothing runs then. Thread: any but the agent's. */
LUPE_AGENT_API lupe_status lupe_agent_start(const char *socket_path, bool leave_allocator);

/* A last profile and a farewell (at most 1 s); then sampling is off, jemalloc's unwinder and prof.active are
 * what they were before, the agent's thread has been joined, and its segment is unmapped as soon as no thread
 * can be writing to it. A no-op where it does not run. LUPE_EAGAIN: the agent's thread waits for something
 * and ends later, or a thread was amid a sample for 100 ms, and the segment (1 MiB) stays mapped; the next
 * start or stop sees to it. Thread: any but the agent's. */
LUPE_AGENT_API lupe_status lupe_agent_stop(void);

/* The same where the program exits: it waits for the farewell alone (at most 1 s, and for a leak proof where
 * one is wanted then), and touches nothing that a signal handler, in which the program may exit, could have
 * interrupted. Thread: any but the agent's. */
LUPE_AGENT_API void lupe_agent_exit(void);

/* Whether it speaks with a runtime. Thread: any. */
LUPE_AGENT_API bool lupe_agent_online(void);

/* What lupe_agent_start found out of the allocator. Thread: any, after it. */
LUPE_AGENT_API const lupe_heap_info *lupe_agent_heap(void);

/* ---- Threads of an embedded runtime. ---- */

/* The calling thread belongs to lupe: it is not sampled by any clock, what it allocates is not sampled
 * either, and comes out of an arena of lupe's own, which is left out of the allocator's figures and told
 * beside them. At most 15 at a time (LUPE_EFULL: more; the thread works on, and is seen; so it does where
 * LUPE_EUNSUPPORTED, LUPE_ENOMEM or LUPE_EAGAIN say that the agent cannot run, or is being started for
 * seconds). Thread: the one that is meant; before or after lupe_agent_start. */
LUPE_AGENT_API lupe_status lupe_agent_adopt_thread(void);
/* Before an adopted thread ends. */
LUPE_AGENT_API void lupe_agent_release_thread(void);

/* A thread of lupe's that is not adopted, since the program's code runs on it, does nothing but wait (+1), or
 * works or ends (-1). A program whose first thread has left by pthread_exit ends when none but the adopted
 * threads and so many that wait are left. Thread: any, never blocks; after an attempt to adopt one. */
LUPE_AGENT_API void lupe_agent_expect_thread(int change);

#endif

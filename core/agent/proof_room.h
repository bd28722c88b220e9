/* proof_room.h -- how much memory is left for the copies that a program's writes make while a child of it
 * lives. Thread: any; reads some files of /proc and /sys, allocates nothing. */
#ifndef LUPE_AGENT_PROOF_ROOM_H
#define LUPE_AGENT_PROOF_ROOM_H

#include <stdint.h>

/* The least of: what the machine can give without swapping, what the commit limit leaves where the kernel
 * counts strictly, and what each memory cgroup on the way up leaves. Files' cached pages count as free.
 * UINT64_MAX: nothing of it can be read. */
uint64_t lupe_proof_room_bytes(void);

/* The process's private memory, about: resident, less what it shares. 0: it cannot be read. */
uint64_t lupe_proof_anonymous_bytes(void);

#endif

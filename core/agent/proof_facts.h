/* proof_facts.h -- what a leak proof must know of the process beside its memory: where its threads stand, and
 * the pointers that the kernel keeps for it (the data of epoll and of POSIX timers, the arguments of system
 * calls under way). Gathered from /proc just before a fork, in a mapping of its own that the child finds
 * again. Thread: the agent's. Takes some microseconds per thread and per descriptor; stops nobody. */
#ifndef LUPE_AGENT_PROOF_FACTS_H
#define LUPE_AGENT_PROOF_FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/agent/proof_mappings.h"
#include "core/lupe.h"

typedef struct lupe_proof_thread {
  pid_t tid;
  bool in_call; /* it waits in a system call: what registers held for that is among `pointers` */
  uint64_t sp;  /* 0: it runs, or cannot be read */
} lupe_proof_thread;

typedef struct lupe_proof_facts {
  void *mapping; /* that the arrays are in */
  size_t mapping_bytes;
  lupe_proof_thread *threads; /* without `own` */
  size_t thread_count;
  uint64_t *pointers;
  size_t pointer_count;
  lupe_proof_span *mappings; /* writable ones, ascending: what a fork leaves out is missing afterwards */
  size_t mapping_count;
  uint64_t thread_storage_bytes; /* of each thread, between its first frame and its control block */
  uint32_t hidden;               /* LUPE_HIDDEN_*: what could not be read, or is known not to be shown */
  bool sigsys_blocked;           /* by all threads: the program may wait for it */
  bool vfork;                    /* a thread waits for its vforked child */
} lupe_proof_facts;

/* `own`: the agent's threads; `first_frame`: the frame address of this thread's first function. LUPE_ENOENT:
 * /proc cannot be read; LUPE_ENOMEM: no mapping. */
lupe_status lupe_proof_facts_gather(lupe_proof_facts *out, const pid_t *own, size_t own_count,
                                    const void *first_frame);
void lupe_proof_facts_release(lupe_proof_facts *f);

#endif

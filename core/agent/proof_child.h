/* proof_child.h -- what the forked child of a leak proof does, from its first step to its last. */
#ifndef LUPE_AGENT_PROOF_CHILD_H
#define LUPE_AGENT_PROOF_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#include "core/agent/proof_facts.h"
#include "core/wire/message.h"

/* Descriptors are files in memory, at their beginning. */
typedef struct lupe_proof_job {
  lupe_proof_limits limits;
  uint64_t sample_period_bytes;
  pid_t parent;
  pid_t parents_tid; /* of its thread that forks: lives as long as the process does */
  bool second;       /* scan; else the first */
  int progress_fd;   /* see lupe_proof_progress */
  int seen_fd;       /* written by the first scan, read by the second: what nothing leads to */
  int block_fd;      /* written by the second: see core/wire/proof.h */
} lupe_proof_job;

_Noreturn void lupe_proof_child_run(const lupe_proof_job *job, const lupe_proof_facts *facts);

#endif

/* proof_groups.h -- how many pointers would have had to be missed for what nothing leads to. A single one (in
 * a register, say) explains an object and all that can be reached from it: a group. A hundred groups need a
 * hundred. The heads of groups are objects, or rings of them, that no other lost object points to. Child
 * only. */
#ifndef LUPE_AGENT_PROOF_GROUPS_H
#define LUPE_AGENT_PROOF_GROUPS_H

#include "core/agent/proof_marks.h"

typedef struct lupe_proof_groups {
  uint64_t objects, bytes; /* that nothing leads to */
} lupe_proof_groups;

/* After lupe_proof_marks_make, whose marks are used up. Sets `group`, `referenced` and, where it was none,
 * `holder` of the samples that nothing leads to. */
void lupe_proof_groups_make(lupe_proof_groups *out, lupe_proof_marks *m);

#endif

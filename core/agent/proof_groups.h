/* proof_groups.h -- how the objects that nothing leads to hang together. A single pointer that was not seen
 * (in a register, say) can explain one group, and all that is in it; a hundred groups need a hundred of them.
 * A group is what pointers connect, whichever way they point. Child only. */
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

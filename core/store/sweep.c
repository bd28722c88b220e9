/* Making room in the stack table: stacks of samples that left the log, and of forgotten processes. */
#include <stdlib.h>

#include "core/store/run.h"

enum {
  MARK_SIXTEENTHS = 12,  /* of the table's limit; below them nothing is done while all find room. Samples may
                            fill one more */
  GROWTH_SIXTEENTHS = 1, /* since the last sweep, for the next one to be worth it; */
  AGED_SECONDS = 30,     /* or so much of the sample log must have gone */
};

static bool is_due(const lupe_aggregator *a) {
  size_t sixteenth = lupe_stack_table_limit(a->stacks) / 16, bytes = lupe_stack_table_bytes(a->stacks);
  int64_t from = lupe_sample_log_from(a->samples);
  /* Many short stacks run out of entries first. */
  if (bytes < sixteenth * MARK_SIXTEENTHS && lupe_stack_table_overflows(a->stacks) == a->swept_overflows)
    return false;
  if (bytes >= a->swept_bytes + sixteenth * GROWTH_SIXTEENTHS) return true;
  return from > a->swept_from && (uint64_t)from - (uint64_t)a->swept_from >= AGED_SECONDS;
}

void lupe__stacks_sweep(lupe_aggregator *a) {
  if (!is_due(a)) return;
  uint32_t *ids = calloc(lupe_stack_table_stacks(a->stacks), sizeof *ids);
  if (!ids) return; /* the next absorb tries again */
  /* All that keep ids: profiles, leak proofs and the log. What is queued has addresses, lines belong to
   * frames, a snapshot has copies; a target that was forgotten while a job still holds it is not seen again.
   */
  for (lupe_target *t = NULL; (t = lupe__target_next(a, t));) {
    size_t count = 0;
    const lupe_heap_row *rows = t->profile ? lupe_heap_profile_rows(t->profile, &count) : NULL;
    for (size_t i = 0; i < count; i++) ids[rows[i].stack] = 1;
  }
  lupe__proofs_mark_stacks(a, ids);
  lupe_sample_log_mark_stacks(a->samples, ids);
  lupe_stack_table_keep(a->stacks, ids);
  for (lupe_target *t = NULL; (t = lupe__target_next(a, t));) {
    if (t->profile) lupe_heap_profile_renumber(t->profile, ids);
  }
  lupe__proofs_renumber_stacks(a, ids);
  lupe_sample_log_renumber_stacks(a->samples, ids);
  free(ids);
  a->swept_bytes = lupe_stack_table_bytes(a->stacks);
  a->swept_overflows = lupe_stack_table_overflows(a->stacks);
  a->swept_from = lupe_sample_log_from(a->samples);
}

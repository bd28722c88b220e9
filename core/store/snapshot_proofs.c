/* The part of a snapshot that tells of leak proofs. */
#include <stdlib.h>

#include "core/store/snapshot_build.h"

enum { WANTED_SHARE = 200 /* a stack with one part of what is unreachable has its lines looked for first */ };

static const lupe__target_proof *proof_of(const lupe__builder *b, size_t target) {
  return &b->targets[target]->proof;
}

void lupe__number_proof_stacks(lupe__builder *b) {
  for (size_t i = 0; i < b->target_count; i++) {
    const lupe__target_proof *proof = proof_of(b, i);
    b->proof_count += proof->answered;
    b->proof_row_count += proof->complete.count;
    for (size_t k = 0; k < proof->complete.count; k++)
      lupe__add_stack(b, proof->complete.rows[k].stack, true); /* holders and heads are among them */
  }
}

static double past_zero(int64_t x) {
  return x > 0 ? (double)x : 0;
}

static lupe_snapshot_proof describe(const lupe__target_proof *proof, uint32_t target) {
  const lupe_proof_reply *r = &proof->newest;
  lupe_snapshot_proof p = {
      .target = target,
      .outcome = r->outcome,
      .error = r->error,
      .time_ms = past_zero(r->time_ms),
      .elapsed_ns = (double)r->elapsed_ns,
      .pause_ns = (double)r->pause_ns,
      .anonymous_bytes = (double)r->anonymous_bytes,
      .read_bytes = (double)r->read_bytes,
  };
  if (!proof->proven) return p;
  const lupe_proof_head *h = &proof->complete.head;
  p.scanned_ms = past_zero(h->time_ms);
  p.hidden = h->hidden;
  p.interval_ms = h->interval_ms;
  p.scan_ns = (double)h->scan_ns;
  p.table_bytes = (double)h->table_bytes;
  p.threads = h->threads;
  p.registers = h->registers;
  p.sample_period_bytes = (double)h->sample_period_bytes;
  p.heap_objects = (double)h->heap_objects;
  p.heap_bytes = (double)h->heap_bytes;
  p.unreachable_objects = (double)h->unreachable_objects;
  p.unreachable_bytes = (double)h->unreachable_bytes;
  return p;
}

static uint32_t stack_at(const lupe__builder *b, uint32_t id) {
  return id == LUPE_PROOF_NONE ? LUPE__NONE : b->stack_of[id];
}

static lupe_snapshot_proof_row show(const lupe__builder *b, const lupe_proof_row *row, uint32_t proof) {
  return (lupe_snapshot_proof_row){
      .proof = proof,
      .stack = stack_at(b, row->stack),
      .holder_stack = stack_at(b, row->holder_stack),
      .held = row->held,
      .reachable = row->counts[LUPE_PROOF_REACHABLE],
      .interior = row->counts[LUPE_PROOF_INTERIOR],
      .stack_only = row->counts[LUPE_PROOF_STACK_ONLY],
      .unreachable = row->counts[LUPE_PROOF_UNREACHABLE],
      .unsettled = row->counts[LUPE_PROOF_UNSETTLED],
      .groups = row->groups,
      .largest_behind = row->largest_behind,
      .head_stack = stack_at(b, row->head_stack),
      .objects = row->objects,
      .bytes = row->bytes,
      .unreachable_objects = row->unreachable_objects,
      .unreachable_bytes = row->unreachable_bytes,
      .objects_variance = row->objects_variance,
      .bytes_variance = row->bytes_variance,
  };
}

static int by_stack(const void *a, const void *b) {
  uint32_t x = ((const lupe_snapshot_proof_row *)a)->stack, y = ((const lupe_snapshot_proof_row *)b)->stack;
  return (x > y) - (x < y);
}

static void want_lines(const lupe__builder *b, const lupe_snapshot_proof_row *rows, size_t count) {
  double all = 0;
  for (size_t i = 0; i < count; i++) all += rows[i].unreachable_bytes;
  for (size_t i = 0; i < count; i++) {
    const uint32_t *frames;
    size_t depth;
    if (rows[i].unreachable == 0 || rows[i].unreachable_bytes * WANTED_SHARE < all) continue;
    if (lupe_stack_table_get(b->a->stacks, b->id_of[rows[i].stack], &frames, &depth) == LUPE_OK)
      lupe_frame_names_want_lines(b->a->names, frames, depth);
  }
}

void lupe__fill_proofs(lupe__builder *b) {
  lupe_snapshot_proof *proofs = lupe__column(b, &b->header.proofs);
  lupe_snapshot_proof_row *rows = lupe__column(b, &b->header.proof_rows);
  uint32_t count = 0;
  for (size_t i = 0; i < b->target_count; i++) {
    const lupe__target_proof *proof = proof_of(b, i);
    if (!proof->answered) continue;
    size_t found = proof->complete.count;
    for (size_t k = 0; k < found; k++) rows[k] = show(b, &proof->complete.rows[k], count);
    qsort(rows, found, sizeof *rows, by_stack); /* stacks are numbered anew in each snapshot */
    want_lines(b, rows, found);
    rows += found;
    proofs[count++] = describe(proof, (uint32_t)i);
  }
}

/* The part of a snapshot that tells of spans. */
#include <stdlib.h>

#include "core/store/snapshot_build.h"

static lupe_status collect_window(lupe__builder *b) {
  lupe_span_owner *owners = malloc((b->owner_count + 1) * sizeof *owners);
  if (!owners) return LUPE_ENOMEM;
  for (size_t i = 0; i < b->owner_count; i++)
    owners[i] = (lupe_span_owner){b->owners[i].number, b->owners[i].row};
  lupe_status status = lupe_span_log_sum(b->a->spans, b->span_window.from, b->span_window.to, owners,
                                         b->owner_count, &b->spans, &b->span_count);
  free(owners);
  return status;
}

lupe_status lupe__collect_spans(lupe__builder *b) {
  lupe_status status = collect_window(b);
  if (status != LUPE_OK || b->span_count == 0) return status;
  b->span_functions = malloc(b->span_count * sizeof *b->span_functions);
  if (!b->span_functions) return LUPE_ENOMEM;
  for (size_t i = 0; i < b->span_count; i++) {
    status = lupe_frame_names_function(b->a->names, b->spans[i].place, &b->span_functions[i]);
    if (status == LUPE_ENOMEM) return status;
    if (status != LUPE_OK) b->span_functions[i] = LUPE__NONE;
  }
  return LUPE_OK;
}

void lupe__number_span_totals(lupe__builder *b) {
  const lupe_aggregator *a = b->a;
  for (uint32_t i = 0; i < a->span_total_room && b->span_total_count < LUPE_SNAPSHOT_SPAN_TOTALS_MAX; i++)
    b->span_total_count += a->span_totals[i].count > 0;
}

size_t lupe__span_string_bytes(const lupe__builder *b) {
  const lupe_text_store *texts = &b->a->mark_names;
  size_t bytes = 0;
  for (size_t i = 0; i < b->span_count; i++)
    bytes += lupe__string_bytes(lupe_text_store_at(texts, b->spans[i].name));
  uint32_t left = b->span_total_count;
  for (uint32_t i = 0; left > 0; i++) {
    if (b->a->span_totals[i].count <= 0) continue;
    bytes += lupe__string_bytes(lupe_text_store_at(texts, i));
    left--;
  }
  return bytes;
}

void lupe__fill_spans(lupe__builder *b) {
  const lupe_text_store *texts = &b->a->mark_names;
  lupe_snapshot_span *spans = lupe__column(b, &b->header.spans);
  double *buckets = lupe__column(b, &b->header.span_buckets);
  for (size_t i = 0; i < b->span_count; i++) {
    const lupe_span_sum *s = &b->spans[i];
    spans[i] = (lupe_snapshot_span){
        .name = lupe__put_string(b, lupe_text_store_at(texts, s->name)),
        .target = s->row,
        .function = b->span_functions[i],
        .count = s->count,
        .total_ns = s->total_ns,
        .max_ns = s->max_ns,
    };
    for (uint32_t k = 0; k < LUPE_SPAN_BUCKETS; k++) *buckets++ = s->buckets[k];
  }
  lupe_snapshot_span_total *totals = lupe__column(b, &b->header.span_totals);
  uint32_t at = 0;
  for (uint32_t i = 0; at < b->span_total_count; i++) {
    const lupe__span_total *t = &b->a->span_totals[i];
    if (t->count <= 0) continue;
    totals[at++] = (lupe_snapshot_span_total){.name = lupe__put_string(b, lupe_text_store_at(texts, i)),
                                              .count = t->count,
                                              .total_ns = t->total_ns};
  }
}

void lupe__clear_spans(lupe__builder *b) {
  free(b->spans);
  free(b->span_functions);
}

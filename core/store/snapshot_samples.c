/* The part of a snapshot that tells of CPU and wall samples. */
#include <stdlib.h>

#include "core/store/snapshot_build.h"
#include "core/wire/record.h"

enum {
  WANTED_SHARE = 1000, /* a row with one part of the time has its lines looked for first, */
  WANTED_COUNT = 3,    /* if it is of so many samples: early in a run each one is a large share */
};

/* The owner of a thread of the log. */
static const lupe__sample_owner *owner_of(const lupe__builder *b, uint32_t thread) {
  uint32_t number = lupe_sample_log_thread_at(b->a->samples, thread)->target;
  size_t low = 0, high = b->owner_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (b->owners[middle].number < number) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return &b->owners[low]; /* the log was asked for samples of these only */
}

static bool is_cpu(const lupe_sample *s) {
  return s->state == LUPE_THREAD_USER || s->state == LUPE_THREAD_KERNEL;
}

/* Of what was switched off samples may be there from before. */
static void leave_out_what_is_off(lupe__builder *b) {
  size_t kept = 0;
  for (size_t i = 0; i < b->sample_count; i++) {
    bool on = is_cpu(&b->samples[i]) ? b->header.cpu_hz != 0 : b->header.wall_hz != 0;
    if (on) b->samples[kept++] = b->samples[i];
  }
  b->sample_count = kept;
}

static lupe_status sum(lupe__builder *b) {
  uint32_t *numbers = malloc((b->owner_count + 1) * sizeof *numbers);
  if (!numbers) return LUPE_ENOMEM;
  for (size_t i = 0; i < b->owner_count; i++) numbers[i] = b->owners[i].number;
  lupe_status status = lupe_sample_log_sum(b->a->samples, b->window.from, b->window.to, numbers,
                                           b->owner_count, &b->samples, &b->sample_count);
  free(numbers);
  if (status == LUPE_OK) leave_out_what_is_off(b);
  return status;
}

/* Lines of the stacks that have a share of the CPU or wall time come first. */
static void want_lines(const lupe__builder *b) {
  uint64_t all[2] = {0};
  for (size_t i = 0; i < b->sample_count; i++) all[is_cpu(&b->samples[i])] += b->samples[i].ns;
  for (size_t i = 0; i < b->sample_count; i++) {
    const lupe_sample *s = &b->samples[i];
    const uint32_t *frames;
    size_t depth;
    if (s->stack == LUPE_SAMPLE_NO_STACK || s->count < WANTED_COUNT || s->ns < all[is_cpu(s)] / WANTED_SHARE)
      continue;
    if (lupe_stack_table_get(b->a->stacks, s->stack, &frames, &depth) == LUPE_OK)
      lupe_frame_names_want_lines(b->a->names, frames, depth);
  }
}

lupe_status lupe__collect_samples(lupe__builder *b) {
  lupe_status status = sum(b);
  if (status != LUPE_OK) return status;
  uint32_t threads = lupe_sample_log_threads(b->a->samples);
  b->thread_of = malloc((threads + 1) * sizeof *b->thread_of);
  b->log_of = malloc((threads + 1) * sizeof *b->log_of);
  if (!b->thread_of || !b->log_of) return LUPE_ENOMEM;
  for (uint32_t i = 0; i < threads; i++) b->thread_of[i] = LUPE__NONE;
  for (size_t i = 0; i < b->sample_count; i++) {
    const lupe_sample *s = &b->samples[i];
    if (b->thread_of[s->thread] == LUPE__NONE) {
      b->log_of[b->thread_count] = s->thread;
      b->thread_of[s->thread] = b->thread_count++;
    }
    if (s->stack != LUPE_SAMPLE_NO_STACK) lupe__add_stack(b, s->stack, false);
  }
  want_lines(b);
  return LUPE_OK;
}

size_t lupe__sample_string_bytes(const lupe__builder *b) {
  size_t bytes = 0;
  for (uint32_t i = 0; i < b->thread_count; i++)
    bytes += lupe__string_bytes(lupe_sample_log_thread_at(b->a->samples, b->log_of[i])->name);
  return bytes;
}

void lupe__fill_samples(lupe__builder *b) {
  const lupe_snapshot_header *h = &b->header;
  lupe_snapshot_thread *threads = lupe__column(b, &h->threads);
  for (uint32_t i = 0; i < b->thread_count; i++) {
    const lupe_sample_thread *t = lupe_sample_log_thread_at(b->a->samples, b->log_of[i]);
    threads[i] = (lupe_snapshot_thread){
        .target = owner_of(b, b->log_of[i])->row, .tid = t->tid, .name = lupe__put_string(b, t->name)};
  }
  uint32_t *stacks = lupe__column(b, &h->sample_stack), *of = lupe__column(b, &h->sample_thread);
  uint32_t *states = lupe__column(b, &h->sample_state);
  double *counts = lupe__column(b, &h->sample_count), *ns = lupe__column(b, &h->sample_ns);
  for (size_t i = 0; i < b->sample_count; i++) {
    const lupe_sample *s = &b->samples[i];
    stacks[i] = s->stack == LUPE_SAMPLE_NO_STACK ? LUPE__NONE : b->stack_of[s->stack];
    of[i] = b->thread_of[s->thread];
    states[i] = s->state;
    counts[i] = s->count;
    ns[i] = (double)s->ns;
    threads[of[i]].switches += s->switches;
  }
}

void lupe__clear_samples(lupe__builder *b) {
  free(b->samples);
  free(b->thread_of);
  free(b->log_of);
  free(b->owners);
}

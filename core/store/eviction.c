/* Forgetting the processes that ended first, where they are too many: what samples they left goes on with
 * their nearest relative. */
#include "core/store/run.h"

enum {
  SHORT_LIFE_MS = 10000,
  DEAD_UNABSORBED_MAX = 512, /* between two absorbs; each may hold a descriptor */
  EVICTED_AT_ONCE = 64,
};

lupe_target *lupe__target_parent(const lupe_aggregator *a, const lupe_target *t) {
  /* An exec goes on in the program that came of it. */
  lupe_target *same = t->superseded ? lupe__target_find(a, t->status.pid) : NULL;
  if (same && same != t) return same;
  lupe_target *parent = lupe__target_find(a, t->status.ppid);
  return parent != t ? parent : NULL;
}

/* What its samples would take to absorb is too long for the loop. Caller holds `lock`. */
static void lose_samples(lupe_target *t) {
  size_t at = 0;
  while (lupe_record_queue_next(&t->queue, &at)) t->status.sample_drops++;
  t->aggregator->queued_bytes -= t->queue.used;
  lupe_record_queue_clear(&t->queue);
}

/* Where programs come and go, a burst of short ones is not to push out those of which there is something to
 * tell. */
static bool goes_before(const lupe_aggregator *a, const lupe_target *t, const lupe_target *other) {
  bool is_short = a->endless && t->died_ms - t->status.first_ms < SHORT_LIFE_MS;
  bool other_is_short = a->endless && other->died_ms - other->status.first_ms < SHORT_LIFE_MS;
  return is_short == other_is_short ? t->died_ms < other->died_ms : is_short;
}

/* Takes the one that died first out of the list, where they are too many; else NULL. Caller holds `lock`. */
static lupe_target *unlink_oldest(lupe_aggregator *a, bool on_loop) {
  lupe_target *oldest = NULL, *before = NULL, *previous = NULL;
  if (a->dead_count <= LUPE_TARGETS_DEAD_MAX) return NULL;
  for (lupe_target *t = a->first; t; previous = t, t = t->next) {
    if (t->status.live || (oldest && !goes_before(a, t, oldest))) continue;
    oldest = t;
    before = previous;
  }
  if (!oldest) return NULL;
  bool absorbed = oldest->queue.used == 0 && oldest->new_maps < 0 && !oldest->new_marks && !oldest->marks;
  if (on_loop && !absorbed && a->dead_count <= DEAD_UNABSORBED_MAX) return NULL;
  if (before)
    before->next = oldest->next;
  else
    a->first = oldest->next;
  if (a->last == oldest) a->last = before;
  a->dead_count--;
  a->series_rows -= lupe_series_room(oldest->series);
  return oldest;
}

/* Forgets some of those who died first. Caller holds `work`; on the loop, which must not wait, only those of
 * which nothing is left to absorb, unless they are far too many. False: there are no more. */
static bool evict_some(lupe_aggregator *a, bool on_loop) {
  lupe_target *gone[EVICTED_AT_ONCE], *parents[EVICTED_AT_ONCE];
  lupe_sample_heir heirs[EVICTED_AT_ONCE];
  size_t count = 0;
  pthread_mutex_lock(&a->lock);
  while (count < EVICTED_AT_ONCE && (gone[count] = unlink_oldest(a, on_loop))) count++;
  for (size_t i = 0; i < count; i++) {
    lupe_target *parent = lupe__target_parent(a, gone[i]);
    if (!parent && !a->endless) parent = a->first; /* most likely the program that was started */
    if (on_loop) lose_samples(gone[i]);
    parents[i] = parent;
    heirs[i] = (lupe_sample_heir){gone[i]->number, parent ? parent->number : gone[i]->number};
  }
  pthread_mutex_unlock(&a->lock);
  for (size_t i = 0; i < count && !on_loop; i++) lupe__target_absorb_records(gone[i]);
  if (count > 0) lupe_sample_log_hand_over(a->samples, heirs, count);
  if (count > 0) lupe_span_log_hand_over(a->spans, heirs, count);
  pthread_mutex_lock(&a->lock);
  for (size_t i = 0; i < count; i++) {
    if (parents[i]) parents[i]->status.sample_drops += gone[i]->status.sample_drops;
  }
  pthread_mutex_unlock(&a->lock);
  for (size_t i = 0; i < count; i++) lupe_target_release(gone[i]);
  return count == EVICTED_AT_ONCE;
}

void lupe__targets_evict(lupe_aggregator *a) {
  pthread_mutex_lock(&a->lock);
  size_t passes = a->dead_count / EVICTED_AT_ONCE + 1; /* however fast others die meanwhile */
  pthread_mutex_unlock(&a->lock);
  while (passes-- > 0 && evict_some(a, false)) continue;
}

void lupe__targets_evict_some(lupe_aggregator *a) {
  /* The loop must not wait for a job; the next one's end, or the next death, evicts otherwise. */
  if (pthread_mutex_trylock(&a->work) != 0) return;
  (void)evict_some(a, true);
  pthread_mutex_unlock(&a->work);
}

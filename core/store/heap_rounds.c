/* The aggregator's heap profiles: rounds, the dumps that come in them, and the timeline they leave. */
#include <math.h>
#include <string.h>

#include "core/clock.h"
#include "core/store/heap_dump.h"
#include "core/store/run.h"

enum {
  HEAP_INTERVAL_MAX_MS = 24 * 3600 * 1000,
  ENDLESS_INTERVAL_MAX_MS = 64000, /* a program that connects after weeks is to have a history too */
};

lupe_status lupe_aggregator_begin_round(lupe_aggregator *a, double time_ms, uint64_t *out_tick) {
  lupe_status status = LUPE_EAGAIN;
  pthread_mutex_lock(&a->lock);
  if (!a->open_tick) {
    a->open_ms = isfinite(time_ms) && time_ms > a->last_ms ? time_ms : a->last_ms + 1;
    a->last_ms = a->open_ms;
    a->open_tick = a->next_tick++;
    *out_tick = a->open_tick;
    status = LUPE_OK;
  }
  pthread_mutex_unlock(&a->lock);
  return status;
}

void lupe__target_absorb(lupe_target *t) {
  if (!t->profile) return;
  pthread_mutex_lock(&t->aggregator->lock);
  lupe_pending_samples taken = t->pending;
  t->pending = (lupe_pending_samples){0};
  pthread_mutex_unlock(&t->aggregator->lock);
  uint64_t lost = taken.lost_weight;
  for (size_t i = 0; i < taken.count; i++) {
    const struct lupe_pending_stack *s = &taken.stacks[i];
    uint32_t id = lupe_heap_dump_intern(t->map, t->aggregator->stacks, &taken.addresses[s->first], s->depth);
    if (lupe_heap_profile_sample(t->profile, id, (double)s->weight) != LUPE_OK) lost += s->weight;
  }
  if (lost) (void)lupe_heap_profile_sample(t->profile, LUPE_STACK_OVERFLOW, (double)lost);
  lupe_pending_samples_clear(&taken);
}

static double allocated_of(lupe_target *t) {
  pthread_mutex_lock(&t->aggregator->lock);
  const lupe_memory_figures *f = &t->figures;
  double beside = (double)f->cached_bytes + (double)f->sampling_bytes;
  double bytes =
      t->has_figures && (double)f->allocated_bytes > beside ? (double)f->allocated_bytes - beside : 0;
  pthread_mutex_unlock(&t->aggregator->lock);
  return bytes;
}

/* Drops every second tick, the newest stays, and doubles the interval. Caller holds `work`. */
static void thin(lupe_aggregator *a) {
  for (lupe_target *t = NULL; (t = lupe__target_next(a, t));) {
    if (t->profile) lupe_heap_profile_thin(t->profile, a->ticks);
  }
  for (size_t i = 1; i < a->ticks; i += 2) a->tick_ms[i / 2] = a->tick_ms[i];
  a->ticks /= 2;
  pthread_mutex_lock(&a->lock);
  if (a->heap_interval_ms <= HEAP_INTERVAL_MAX_MS / 2) a->heap_interval_ms *= 2;
  pthread_mutex_unlock(&a->lock);
}

/* Drops the older half of the timeline. Caller holds `work`. */
static void drop_older_half(lupe_aggregator *a) {
  size_t gone = a->ticks / 2;
  for (lupe_target *t = NULL; (t = lupe__target_next(a, t));) {
    if (t->profile) lupe_heap_profile_drop_oldest(t->profile, a->ticks, gone);
  }
  memmove(a->tick_ms, a->tick_ms + gone, (a->ticks - gone) * sizeof *a->tick_ms);
  a->ticks -= gone;
}

static void make_room(lupe_aggregator *a) {
  if (a->endless && a->heap_interval_ms > ENDLESS_INTERVAL_MAX_MS / 2) {
    drop_older_half(a);
  } else {
    thin(a);
  }
}

/* Adds a tick to the timeline and to every target's history. Caller holds `work`. */
static void add_tick(lupe_aggregator *a, uint64_t tick, double time_ms) {
  if (a->ticks == LUPE_SNAPSHOT_TICKS_MAX) make_room(a);
  size_t at = a->ticks++;
  /* A late first dump may have made a tick of its own while a round was open. */
  if (at > 0 && time_ms <= a->tick_ms[at - 1]) time_ms = a->tick_ms[at - 1] + 1;
  a->tick_ms[at] = time_ms;
  for (lupe_target *t = NULL; (t = lupe__target_next(a, t));) {
    if (!t->profile) continue;
    /* Short of memory the tick repeats the last one: a gap in the history, no error. */
    if (t->delivered == tick)
      (void)lupe_heap_profile_record(t->profile, at, allocated_of(t));
    else
      lupe_heap_profile_repeat(t->profile, at);
  }
  pthread_mutex_lock(&a->lock);
  a->generation++;
  pthread_mutex_unlock(&a->lock);
}

static lupe_status ingest(lupe_target *t, int fd, double time_ms) {
  lupe_aggregator *a = t->aggregator;
  lupe_status status;
  if ((status = lupe__target_make_map(t)) != LUPE_OK) return status;
  lupe__target_take_marks(t); /* whose tags the dump speaks of */
  lupe_heap_dump dump;
  status = lupe_heap_dump_read(fd, t->map, a->stacks, &dump, t->why, sizeof t->why);
  if (status != LUPE_OK) return status;
  if (!t->profile) status = lupe_heap_profile_create(&t->profile);
  if (status == LUPE_OK)
    status = lupe_heap_profile_update(t->profile, dump.entries, dump.count, dump.period_bytes, time_ms);
  if (status == LUPE_OK) {
    pthread_mutex_lock(&a->lock);
    t->sampling_bytes = t->figures.sampling_bytes = (uint64_t)dump.sampling_bytes;
    pthread_mutex_unlock(&a->lock);
  }
  lupe_heap_dump_clear(&dump);
  return status;
}

lupe_status lupe_target_ingest(lupe_target *t, int fd, uint64_t tick, const char **why) {
  lupe_aggregator *a = t->aggregator;
  pthread_mutex_lock(&a->work);
  t->why[0] = '\0';
  pthread_mutex_lock(&a->lock);
  bool in_round = tick != 0 && tick == a->open_tick;
  double time_ms = in_round ? a->open_ms : lupe_unix_ms();
  if (time_ms < a->last_ms) time_ms = a->last_ms;
  pthread_mutex_unlock(&a->lock);

  lupe_status status = ingest(t, fd, time_ms);
  if (status == LUPE_OK) {
    lupe__target_absorb(t);
    if (in_round) {
      t->delivered = tick;
      a->round_delivered = true;
    } else if (a->ticks > 0) {
      (void)lupe_heap_profile_record(t->profile, a->ticks - 1, allocated_of(t));
    } else {
      pthread_mutex_lock(&a->lock);
      uint64_t own = t->delivered = a->next_tick++;
      if (time_ms > a->last_ms) a->last_ms = time_ms;
      pthread_mutex_unlock(&a->lock);
      add_tick(a, own, time_ms);
    }
  }
  pthread_mutex_lock(&a->lock);
  if (status == LUPE_ECORRUPT) t->status.bad_profiles++;
  if (status == LUPE_OK && time_ms > t->status.last_ms) t->status.last_ms = time_ms;
  pthread_mutex_unlock(&a->lock);
  if (why) *why = t->why;
  pthread_mutex_unlock(&a->work);
  return status;
}

void lupe_aggregator_end_round(lupe_aggregator *a) {
  pthread_mutex_lock(&a->work);
  pthread_mutex_lock(&a->lock);
  uint64_t tick = a->open_tick;
  double time_ms = a->open_ms;
  pthread_mutex_unlock(&a->lock);
  if (tick) {
    /* A round in which nobody gave a profile leaves no tick: there is nothing to compare it with. */
    if (a->round_delivered) add_tick(a, tick, time_ms);
    a->round_delivered = false;
    pthread_mutex_lock(&a->lock);
    a->open_tick = 0;
    pthread_mutex_unlock(&a->lock);
  }
  lupe__targets_evict(a);
  lupe__stacks_sweep(a);
  pthread_mutex_unlock(&a->work);
}

/* What a target's program marks: the segment is taken over by the loop, and read by a pool job. Names become
 * numbers of the run's own, so that a name in two processes is one; a tag becomes a frame of the module
 * "[tag]", and what spans add up to goes into the span log. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/store/run.h"

enum { NAMES_BYTES_MAX = 4 << 20 /* of all names of a run */ };

static const char others[] = "(others)", unknown[] = "(unknown)", tag_module[] = "[tag]";

/* -- what comes ------------------------------------------------------------------------------- */

lupe_status lupe_target_set_marks(lupe_target *t, int fd) {
  lupe_marks_reader *reader;
  lupe_status status = lupe_marks_reader_create(&reader, fd);
  close(fd);
  if (status != LUPE_OK) return status;
  pthread_mutex_lock(&t->aggregator->lock);
  lupe_marks_reader *old = t->new_marks;
  t->new_marks = reader;
  t->aggregator->marked = true;
  pthread_mutex_unlock(&t->aggregator->lock);
  lupe_marks_reader_free(old);
  return LUPE_OK;
}

/* -- names ------------------------------------------------------------------------------------ */

/* The run's number of a name of the process; 0: it has no such name, or there is no memory. */
static uint32_t number_if_there(lupe_target *t, uint32_t name) {
  lupe_text_store *texts = &t->aggregator->mark_names;
  char text[LUPE_MARK_NAME_BYTES];
  if (name >= LUPE_MARK_NAMES_MAX) return 0;
  if (t->mark_numbers && t->mark_numbers[name]) return t->mark_numbers[name];
  if (!t->marks || !lupe_marks_reader_name(t->marks, name, text)) return 0;
  uint32_t number = lupe_text_store_put(texts, text, NAMES_BYTES_MAX);
  if (!number) number = lupe_text_store_put(texts, others, SIZE_MAX);
  if (!t->mark_numbers) t->mark_numbers = calloc(LUPE_MARK_NAMES_MAX, sizeof *t->mark_numbers);
  if (t->mark_numbers) t->mark_numbers[name] = number;
  return number;
}

static uint32_t number_of(lupe_target *t, uint32_t name) {
  uint32_t number = number_if_there(t, name);
  return number ? number : lupe_text_store_put(&t->aggregator->mark_names, unknown, SIZE_MAX);
}

lupe_frame lupe__target_tag_frame(void *arg, uint32_t number) {
  lupe_target *t = arg;
  lupe_aggregator *a = t->aggregator;
  uint16_t module = lupe_module_table_intern(a->modules, tag_module, sizeof tag_module - 1, NULL, 0);
  uint32_t name = number_of(t, number);
  if (module == LUPE_MODULE_UNKNOWN || name == 0) return LUPE_FRAME_UNKNOWN;
  lupe_frame_names_set_tags(a->names, module, &a->mark_names);
  return (lupe_frame)module << 48 | name;
}

/* -- spans ------------------------------------------------------------------------------------ */

typedef struct reading {
  lupe_target *target;
  int64_t second;
} reading;

static void add_total(lupe_aggregator *a, uint32_t name, const lupe_span_change *change) {
  if (name >= a->span_total_room) {
    uint32_t room = a->mark_names.count + 32;
    lupe__span_total *totals = realloc(a->span_totals, room * sizeof *totals);
    if (!totals) return;
    memset(totals + a->span_total_room, 0, (room - a->span_total_room) * sizeof *totals);
    a->span_totals = totals;
    a->span_total_room = room;
  }
  a->span_totals[name].count += (double)change->count;
  a->span_totals[name].total_ns += (double)change->total_ns;
}

static void on_change(void *arg, const lupe_span_change *change) {
  const reading *r = arg;
  lupe_target *t = r->target;
  lupe_aggregator *a = t->aggregator;
  lupe_span_key key = {.target = t->number, .name = number_of(t, change->name), .place = LUPE_FRAME_UNKNOWN};
  uint64_t place = lupe_marks_reader_place(t->marks, change->name);
  if (t->map && !lupe_address_is_tag(place)) key.place = lupe_address_map_frame(t->map, place);
  t->places_unknown |= place && key.place == LUPE_FRAME_UNKNOWN;
  if (key.name == 0 || lupe_span_log_add(a->spans, r->second, &key, change) != LUPE_OK)
    a->spans_lost += change->count;
  else
    add_total(a, key.name, change);
}

static uint64_t more_than(uint64_t *known, uint64_t now) {
  uint64_t more = now > *known ? now - *known : 0;
  *known = now;
  return more;
}

static void read_spans(lupe_target *t, double now_ms) {
  lupe_aggregator *a = t->aggregator;
  reading r = {.target = t, .second = (int64_t)floor(now_ms / 1000)};
  t->places_unknown = false;
  (void)lupe_marks_reader_read(t->marks, on_change, &r); /* out of memory it is told the next time */
  a->mark_names_lost += more_than(&t->names_lost, lupe_marks_reader_names_lost(t->marks));
  a->spans_lost += more_than(&t->spans_lost, lupe_marks_reader_spans_lost(t->marks));
}

static void close_marks(lupe_target *t) {
  lupe_marks_reader_free(t->marks);
  t->marks = NULL;
  t->names_lost = t->spans_lost = 0;
  t->places_unknown = false;
}

void lupe__target_take_marks(lupe_target *t) {
  pthread_mutex_lock(&t->aggregator->lock);
  lupe_marks_reader *fresh = t->new_marks;
  t->new_marks = NULL;
  pthread_mutex_unlock(&t->aggregator->lock);
  if (!fresh) return;
  if (t->marks && lupe_marks_reader_same(t->marks, fresh)) {
    lupe_marks_reader_free(fresh);
    return;
  }
  if (t->marks) read_spans(t, lupe_unix_ms());
  close_marks(t);
  free(t->mark_numbers); /* another segment has numbers of its own */
  t->mark_numbers = NULL;
  t->marks = fresh;
}

void lupe__target_read_marks(lupe_target *t, bool live, double now_ms) {
  if (!t->marks) return;
  read_spans(t, now_ms);
  if (live) return;
  /* That was the last of it. Its last heap profile is still to come, with tags in it. */
  for (uint32_t i = 0; i < LUPE_MARK_NAMES_MAX; i++) (void)number_if_there(t, i);
  close_marks(t);
}

void lupe__span_window(const lupe_aggregator *a, double time_ms, uint32_t window_ms,
                       lupe__sample_seconds *out) {
  if (window_ms == 0) window_ms = LUPE_WINDOW_MS;
  if (window_ms > LUPE_WINDOW_MAX_MS) window_ms = LUPE_WINDOW_MAX_MS;
  /* What was read since the snapshot was asked for, in a later second perhaps, is in it. */
  double read_ms = fmax(time_ms, lupe_unix_ms());
  *out = (lupe__sample_seconds){.to = (int64_t)floor(read_ms / 1000) + 1, .to_ms = time_ms};
  out->from = (int64_t)ceil((time_ms - window_ms) / 1000);
  int64_t whole = lupe_span_log_from(a->spans);
  if (out->from < whole) out->from = whole < out->to ? whole : out->to;
  out->from_ms = fmax(0, fmin(time_ms, fmax((double)out->from * 1000, a->started_ms)));
}

/* The aggregator's CPU and wall samples: queued by the loop as they come, and from there, by a pool job,
 * translated and summed into the sample log. */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/store/maps_file.h"
#include "core/store/proc_stat.h"
#include "core/store/run.h"
#include "core/store/seconds.h"
#include "core/wire/record.h"

enum {
  QUEUED_BYTES_MAX = 64 << 20, /* of all targets together */
  MAPS_AGE_MS = 10000,
  MAPS_PAUSE_MS =
      200,          /* between two readings for addresses that are not known; doubled as they do not help */
  MAPS_SHARE = 100, /* of the time, reading may take one part: the process cannot map meanwhile */
  PERIOD_MIN_NS = 100000, /* of a CPU timer: ten times shorter than any that is asked for */
  SECOND_NS = 1000000000,
  NAME_AGE_MS = 10000,
  NAMES_AT_ONCE = 256, /* of threads: some 15 us each */
};

static void close_fd(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

/* -- what comes ------------------------------------------------------------------------------- */

void lupe_target_thread_sample(lupe_target *t, const lupe_thread_sample *s, const uint64_t *addresses,
                               size_t depth) {
  lupe_aggregator *a = t->aggregator;
  if (depth > LUPE_MAX_FRAMES) depth = LUPE_MAX_FRAMES;
  pthread_mutex_lock(&a->lock);
  size_t before = t->queue.used;
  if (a->queued_bytes < QUEUED_BYTES_MAX && lupe_record_queue_add(&t->queue, s, addresses, depth))
    a->queued_bytes += t->queue.used - before;
  else
    t->status.sample_drops++;
  pthread_mutex_unlock(&a->lock);
}

void lupe_target_set_sampling(lupe_target *t, const lupe_target_sampling *sampling) {
  lupe_target_sampling known = *sampling;
  if (known.cpu_state > LUPE_SAMPLING_UNSUPPORTED) known.cpu_state = LUPE_SAMPLING_OFF;
  if (known.wall_state > LUPE_SAMPLING_UNSUPPORTED) known.wall_state = LUPE_SAMPLING_OFF;
  pthread_mutex_lock(&t->aggregator->lock);
  t->status.sampling = known;
  pthread_mutex_unlock(&t->aggregator->lock);
}

lupe_status lupe_target_set_maps(lupe_target *t, int fd) {
  bool live;
  lupe_status status = lupe_maps_file_check(fd, &live);
  if (status != LUPE_OK) {
    close(fd);
    return status;
  }
  pthread_mutex_lock(&t->aggregator->lock);
  int old = t->new_maps;
  t->new_maps = fd;
  t->aggregator->new_maps = true;
  pthread_mutex_unlock(&t->aggregator->lock);
  if (old >= 0) close(old);
  return LUPE_OK;
}

bool lupe_aggregator_unabsorbed(lupe_aggregator *a) {
  pthread_mutex_lock(&a->lock);
  bool any = a->queued_bytes > 0 || a->new_maps || a->marked;
  pthread_mutex_unlock(&a->lock);
  return any;
}

/* -- where addresses belong ------------------------------------------------------------------- */

/* What an absorb of one target works with. */
typedef struct absorb {
  lupe_target *target;
  bool live;
  double now_ms;
} absorb;

static void read_maps(absorb *b) {
  lupe_target *t = b->target;
  bool live;
  if (t->maps < 0 || lupe_maps_file_check(t->maps, &live) != LUPE_OK) return;
  int64_t start_ns = lupe_clock_ns(CLOCK_MONOTONIC);
  lupe_status status = lupe_maps_file_read(t->maps, t->map);
  if (status != LUPE_OK && status != LUPE_ENOENT) {
    fprintf(stderr, "lupe: the mappings of process %d cannot be read: %s\n", (int)t->status.pid,
            lupe_status_text(status));
  }
  t->maps_read_ms = b->now_ms;
  double pause_ms = (double)(lupe_clock_ns(CLOCK_MONOTONIC) - start_ns) / 1e6 * MAPS_SHARE;
  if (t->maps_pause_ms < pause_ms) t->maps_pause_ms = pause_ms;
  /* A copy does not change; and what cannot be read will not be better next time. */
  if (!live || (status != LUPE_OK && status != LUPE_ENOENT)) close_fd(&t->maps);
}

/* Takes over a descriptor that came, and looks again where the last look is old. */
static lupe_status refresh_maps(absorb *b, int new_maps, bool has_records) {
  lupe_target *t = b->target;
  if (new_maps >= 0 || has_records) {
    lupe_status status = lupe__target_make_map(t);
    if (status != LUPE_OK) {
      if (new_maps >= 0) close(new_maps);
      return status;
    }
  }
  double age_ms = b->now_ms - t->maps_read_ms;
  if (new_maps >= 0) {
    close_fd(&t->maps);
    t->maps = new_maps;
    t->maps_pause_ms = MAPS_PAUSE_MS;
    read_maps(b);
  } else if (has_records && age_ms >= MAPS_AGE_MS && age_ms >= t->maps_pause_ms) {
    t->maps_pause_ms = MAPS_PAUSE_MS;
    read_maps(b);
  }
  return LUPE_OK;
}

static lupe_frame frame_of(absorb *b, uint64_t address) {
  lupe_target *t = b->target;
  lupe_frame frame = lupe_address_map_frame(t->map, address);
  if (frame != LUPE_FRAME_UNKNOWN || t->maps < 0 || lupe_address_map_covers(t->map, address)) return frame;
  if (b->now_ms - t->maps_read_ms < t->maps_pause_ms) return frame;
  read_maps(b);
  /* Not every address is one: a stack may be walked wrongly, for as long as the program runs. */
  if (lupe_address_map_covers(t->map, address))
    t->maps_pause_ms = fmax(MAPS_PAUSE_MS, t->maps_pause_ms / 2);
  else
    t->maps_pause_ms = fmax(t->maps_pause_ms, fmin(2 * t->maps_pause_ms, MAPS_AGE_MS));
  return lupe_address_map_frame(t->map, address);
}

static uint32_t intern(absorb *b, const uint64_t *addresses, size_t depth) {
  lupe_frame frames[LUPE_MAX_FRAMES] = {LUPE_FRAME_UNKNOWN};
  uint32_t id = LUPE_STACK_OVERFLOW;
  /* The first one is the instruction that was to run next; the others are where calls return to. */
  for (size_t i = 0; i < depth; i++)
    frames[i] = frame_of(b, addresses[i] + (i == 0 && !lupe_address_is_tag(addresses[i])));
  (void)lupe_stack_table_intern_sample(b->target->aggregator->stacks, frames, depth ? depth : 1, &id);
  return id;
}

/* -- threads ---------------------------------------------------------------------------------- */

static void set_name(lupe_sample_thread *thread, const char *name) {
  size_t n = strnlen(name, sizeof thread->name - 1);
  for (size_t i = 0; i < n; i++)
    thread->name[i] = (char)((unsigned char)name[i] < 0x20 || name[i] == 0x7f ? '?' : name[i]);
  thread->name[n] = '\0';
}

static bool read_name(int32_t pid, int32_t tid, lupe_sample_thread *thread) {
  char path[64], text[2 * LUPE_SAMPLE_NAME_BYTES];
  snprintf(path, sizeof path, "/proc/%d/task/%d/comm", (int)pid, (int)tid);
  size_t n;
  if (lupe__proc_read(AT_FDCWD, path, text, sizeof text, &n) != LUPE_OK || n == 0) return false;
  if (text[n - 1] == '\n') text[n - 1] = '\0';
  set_name(thread, text);
  return true;
}

static void name_thread(absorb *b, lupe_sample_thread *thread) {
  const lupe_target *t = b->target;
  if (thread->name_due_ms > b->now_ms || t->aggregator->names_left == 0) return;
  thread->name_due_ms = b->now_ms + NAME_AGE_MS;
  bool read = false;
  if (b->live) {
    t->aggregator->names_left--;
    read = read_name(t->status.pid, thread->tid, thread);
  }
  /* As the kernel names a process that does not say otherwise. */
  if (!read && !thread->name[0] && thread->tid == t->status.pid) set_name(thread, t->status.name);
}

void lupe_target_name_thread(lupe_target *t, int32_t tid, const char *name) {
  lupe_aggregator *a = t->aggregator;
  uint32_t number;
  pthread_mutex_lock(&a->work);
  lupe__absorb_records(a);
  if (lupe_sample_log_thread(a->samples, t->number, tid, INT64_MIN, &number) == LUPE_OK) {
    lupe_sample_thread *thread = lupe_sample_log_thread_at(a->samples, number);
    set_name(thread, name);
    thread->name_due_ms = INFINITY;
  }
  pthread_mutex_unlock(&a->work);
}

/* -- rows ------------------------------------------------------------------------------------- */

/* What a record says, as far as it can be true; false: it says nothing. The thread and the stack are not
 * filled in. */
static bool read_record(const lupe_thread_sample *r, lupe_sample *out) {
  uint32_t what = r->state & 0xff;
  *out = (lupe_sample){.stack = LUPE_SAMPLE_NO_STACK, .count = 1};
  if (!isfinite(r->time_ms)) return false;
  if (r->kind == LUPE_RECORD_CPU) {
    if (r->period_ns < PERIOD_MIN_NS || r->period_ns > SECOND_NS) return false;
    uint32_t most = (uint32_t)(LUPE_SECONDS_MAX * UINT64_C(1000000000) / r->period_ns);
    out->count = r->weight == 0 ? 1 : r->weight < most ? r->weight : most;
    out->ns = out->count * (uint64_t)r->period_ns;
    out->state = what == LUPE_THREAD_KERNEL ? LUPE_THREAD_KERNEL : LUPE_THREAD_USER;
    return true;
  }
  if (r->kind == LUPE_RECORD_WALL) {
    uint64_t most = LUPE_SECONDS_MAX * UINT64_C(1000000);
    out->ns = (r->weight < most ? r->weight : most) * 1000;
    out->state = what == LUPE_THREAD_WAITING ? r->state : LUPE_THREAD_RUNNING;
    out->switches = r->switches;
    return what == LUPE_THREAD_WAITING || what == LUPE_THREAD_RUNNING;
  }
  return false;
}

/* The C library's functions without a symbol get their names, once it is known where they are. */
static void name_memory_functions(lupe_target *t) {
  for (uint32_t i = 0; t->map && i < LUPE_MEMORY_FUNCTIONS; i++) {
    uint64_t address = t->memory_functions[i];
    lupe_frame frame = address ? lupe_address_map_frame(t->map, address + 1) : LUPE_FRAME_UNKNOWN;
    if (frame == LUPE_FRAME_UNKNOWN) continue;
    if (lupe_frame_names_name_memory(t->aggregator->names, frame, i) == LUPE_OK) t->memory_functions[i] = 0;
  }
}

void lupe__target_absorb_records(lupe_target *t) {
  lupe_aggregator *a = t->aggregator;
  absorb b = {.target = t, .now_ms = lupe_unix_ms()};
  pthread_mutex_lock(&a->lock);
  lupe_record_queue queue = t->queue;
  int new_maps = t->new_maps;
  t->queue = (lupe_record_queue){0};
  t->new_maps = -1;
  a->queued_bytes -= queue.used;
  b.live = t->status.live;
  pthread_mutex_unlock(&a->lock);

  lupe__target_take_marks(t);
  uint64_t lost = 0, lost_before = lupe_sample_log_lost(a->samples);
  size_t at = 0;
  const lupe_queued_record *r;
  if (refresh_maps(&b, new_maps, queue.used > 0 || t->places_unknown) == LUPE_OK) {
    while ((r = lupe_record_queue_next(&queue, &at))) {
      lupe_sample row;
      if (!read_record(&r->sample, &row)) continue;
      int64_t second = (int64_t)floor(r->sample.time_ms / 1000);
      if (lupe_sample_log_thread(a->samples, t->number, r->sample.tid, second, &row.thread) != LUPE_OK) {
        lost += row.count;
        continue;
      }
      if (row.state != LUPE_THREAD_RUNNING) row.stack = intern(&b, r->addresses, r->depth);
      name_thread(&b, lupe_sample_log_thread_at(a->samples, row.thread));
      lupe_sample_log_add(a->samples, second, &row);
    }
  }
  lupe_record_queue_clear(&queue);
  lupe__target_read_marks(t, b.live, b.now_ms);
  name_memory_functions(t);
  if (!b.live) close_fd(&t->maps); /* there is nothing more to read */
  lost += lupe_sample_log_lost(a->samples) - lost_before;
  if (!lost) return;
  pthread_mutex_lock(&a->lock);
  t->status.sample_drops += lost;
  pthread_mutex_unlock(&a->lock);
}

lupe_status lupe__target_read_maps(lupe_target *t) {
  absorb b = {.target = t, .now_ms = lupe_unix_ms()};
  lupe__target_absorb_records(t);
  if (t->map) {
    read_maps(&b);
    return LUPE_OK;
  }
  return lupe__target_make_map(t);
}

lupe_status lupe__target_make_map(lupe_target *t) {
  if (t->map) return LUPE_OK;
  lupe_status status = lupe_address_map_create(&t->map, t->aggregator->modules, t->status.pid);
  if (status == LUPE_OK) lupe_address_map_set_tags(t->map, lupe__target_tag_frame, t);
  return status;
}

void lupe__absorb_records(lupe_aggregator *a) {
  a->names_left = NAMES_AT_ONCE;
  pthread_mutex_lock(&a->lock);
  a->new_maps = false;
  a->marked = false;
  pthread_mutex_unlock(&a->lock);
  bool marked = false;
  for (lupe_target *t = NULL; (t = lupe__target_next(a, t));) {
    lupe__target_absorb_records(t);
    marked |= t->marks != NULL;
  }
  pthread_mutex_lock(&a->lock);
  a->marked |= marked; /* some more may have come meanwhile */
  pthread_mutex_unlock(&a->lock);
}

void lupe_aggregator_absorb(lupe_aggregator *a) {
  pthread_mutex_lock(&a->work);
  lupe__absorb_records(a);
  lupe__targets_evict(a);
  lupe__stacks_sweep(a);
  pthread_mutex_unlock(&a->work);
}

lupe__rates lupe__rates_now(lupe_aggregator *a) {
  pthread_mutex_lock(&a->lock);
  lupe__rates rates = a->rates;
  pthread_mutex_unlock(&a->lock);
  return rates;
}

void lupe_aggregator_set_rates(lupe_aggregator *a, uint32_t cpu_hz, uint32_t wall_hz, double time_ms) {
  pthread_mutex_lock(&a->lock);
  if (cpu_hz && !a->rates.cpu_hz) a->rates.cpu_since_ms = time_ms;
  if (wall_hz && !a->rates.wall_hz) a->rates.wall_since_ms = time_ms;
  a->rates.cpu_hz = cpu_hz;
  a->rates.wall_hz = wall_hz;
  pthread_mutex_unlock(&a->lock);
}

/* Since when all that is on has been on. */
static double whole_since_ms(const lupe__rates *rates) {
  if (!rates->cpu_hz) return rates->wall_since_ms;
  return rates->wall_hz ? fmax(rates->cpu_since_ms, rates->wall_since_ms) : rates->cpu_since_ms;
}

void lupe__sample_window(const lupe_aggregator *a, const lupe__rates *rates, double time_ms,
                         uint32_t window_ms, lupe__sample_seconds *out) {
  if (window_ms == 0) window_ms = LUPE_WINDOW_MS;
  if (window_ms > LUPE_WINDOW_MAX_MS) window_ms = LUPE_WINDOW_MAX_MS;
  *out = (lupe__sample_seconds){.from_ms = time_ms, .to_ms = time_ms};
  if (!rates->cpu_hz && !rates->wall_hz) return;
  out->to = (int64_t)floor(time_ms / 1000) + 1;
  out->from = (int64_t)ceil((time_ms - window_ms) / 1000);
  double since_ms = whole_since_ms(rates);
  int64_t whole = lupe_sample_log_from(a->samples), since = (int64_t)floor(since_ms / 1000);
  if (whole < since) whole = since;
  if (out->from < whole) out->from = whole < out->to ? whole : out->to;
  out->from_ms = fmin(time_ms, fmax((double)out->from * 1000, since_ms));
}

/* -- whose they are --------------------------------------------------------------------------- */

/* The row that is shown for `t`: its own, or that of what it came from, as near as can be told. */
static uint32_t row_of(const lupe_aggregator *a, const lupe_target *t, lupe_target *const *rows,
                       size_t count) {
  for (int steps = 0; t && steps < LUPE_TARGETS_DEAD_MAX; steps++) {
    for (size_t i = 0; i < count; i++) {
      if (rows[i] == t) return (uint32_t)i;
    }
    t = lupe__target_parent(a, t);
  }
  return 0;
}

static bool same_program(const lupe_target *t, const lupe_target *other) {
  return t->status.root_pid == other->status.root_pid && t->status.root_ticks == other->status.root_ticks;
}

lupe_status lupe__sample_owners(lupe_aggregator *a, lupe_target *const *rows, size_t count, bool merged,
                                bool tree, lupe__sample_owner **out, size_t *out_count) {
  size_t all = 0, filled = 0, at = 0;
  pthread_mutex_lock(&a->lock);
  for (const lupe_target *t = a->first; t; t = t->next) all++;
  lupe__sample_owner *owners = malloc((all + 1) * sizeof *owners);
  for (const lupe_target *t = a->first; owners && count > 0 && t; t = t->next) {
    bool shown = at < count && rows[at] == t; /* rows come in the order of the list */
    if (!shown && (!merged || (tree && !same_program(t, rows[0])))) continue;
    owners[filled++] = (lupe__sample_owner){t->number, shown ? (uint32_t)at : row_of(a, t, rows, count)};
    at += shown;
  }
  pthread_mutex_unlock(&a->lock);
  if (!owners) return LUPE_ENOMEM;
  *out = owners;
  *out_count = filled;
  return LUPE_OK;
}

/* The message is never whole in memory: of repeated fields, parts of a message written one after the other
 * are the same as one, so each `batch` is packed into the gzip stream and forgotten. */
#include "core/export/pprof.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/export/address_space.h"
#include "core/export/columns.h"
#include "core/export/gzip.h"
#include "core/export/sample_rows.h"
#include "core/export/string_table.h"
#include "core/store/hash.h"
#include "profile.pb-c.h"

enum {
  BATCH = 512,            /* messages of a kind */
  ROOM_BYTES = 1 << 20,   /* for the batch's messages */
  DEPTH_MAX = 4096,       /* frames of a stack, and lines of a frame; ours have 128 frames */
  SAMPLE_BYTES = 1024,    /* more than a sample takes without its locations */
  LINE_BYTES = 64,        /* more than a line takes, with the pointer to it */
  FIRST_FUNCTIONS = 1024, /* a power of two */
  VALUES_MAX = 4,
  LABELS_MAX = 6,
};

typedef struct function_key {
  uint32_t name, file, line; /* numbers of strings; of its definition */
} function_key;

typedef struct encoder {
  lupe_columns c;
  lupe_pprof_type type;
  lupe_status status; /* the first failure; from then on nothing is added */
  ProtobufCBuffer buffer;
  lupe_gzip *gzip;
  lupe_string_table strings;
  uint8_t *used; /* by frame: it is in the profile */
  bool running;  /* the location of [running] is in it, too */
  lupe_profile_mapping *mappings;
  function_key *functions;  /* by id - 1 */
  uint32_t *function_slots; /* id; twice as many as functions */
  size_t function_count, function_capacity;

  Lupe__Pprof__Profile batch;
  Lupe__Pprof__Sample *samples[BATCH];
  Lupe__Pprof__Location *locations[BATCH];
  Lupe__Pprof__Function *batch_functions[BATCH];
  Lupe__Pprof__Mapping *batch_mappings[BATCH];
  char *room;
  size_t room_used;
} encoder;

/* -- batches ---------------------------------------------------------------------------------- */

static void fail(encoder *e, lupe_status status) {
  if (e->status == LUPE_OK) e->status = status;
}

static void append(ProtobufCBuffer *buffer, size_t count, const uint8_t *bytes) {
  encoder *e = (encoder *)((char *)buffer - offsetof(encoder, buffer));
  lupe_gzip_write(e->gzip, bytes, count);
}

static void begin_batch(encoder *e) {
  lupe__pprof__profile__init(&e->batch);
  e->batch.sample = e->samples;
  e->batch.location = e->locations;
  e->batch.function = e->batch_functions;
  e->batch.mapping = e->batch_mappings;
  e->room_used = 0;
}

static void write_batch(encoder *e) {
  lupe__pprof__profile__pack_to_buffer(&e->batch, &e->buffer);
  begin_batch(e);
}

/* Makes room for one message more, of `bytes` with all that it points to. */
static bool make_room(encoder *e, size_t bytes) {
  const Lupe__Pprof__Profile *b = &e->batch;
  if (e->status != LUPE_OK) return false;
  if (ROOM_BYTES - e->room_used < bytes || b->n_sample == BATCH || b->n_location == BATCH ||
      b->n_function == BATCH || b->n_mapping == BATCH)
    write_batch(e);
  return true;
}

static void *take(encoder *e, size_t bytes) {
  void *taken = e->room + e->room_used;
  e->room_used += (bytes + 7) & ~(size_t)7;
  return taken;
}

static int64_t string(encoder *e, const char *text) {
  uint32_t number = lupe_string_table_number(&e->strings, text);
  if (number == UINT32_MAX) fail(e, LUPE_ENOMEM);
  return number;
}

/* -- the head --------------------------------------------------------------------------------- */

static Lupe__Pprof__ValueType *value_type(encoder *e, const char *type, const char *unit) {
  Lupe__Pprof__ValueType *v = take(e, sizeof *v);
  lupe__pprof__value_type__init(v);
  v->type = string(e, type);
  v->unit = string(e, unit);
  return v;
}

static bool is_heap(const encoder *e) {
  return e->type == LUPE_PPROF_HEAP || e->type == LUPE_PPROF_ALLOCS;
}

static bool knows_allocations(const lupe_columns *c) {
  for (size_t i = 0; i < c->stack_count; i++) {
    if (c->alloc_objects[i] > 0) return true;
  }
  return c->stack_count == 0;
}

static void write_head(encoder *e) {
  const lupe_snapshot_header *h = e->c.header;
  Lupe__Pprof__Profile *b = &e->batch;
  Lupe__Pprof__ValueType *types[VALUES_MAX];
  int64_t comment;
  b->sample_type = types;
  if (is_heap(e)) {
    types[b->n_sample_type++] = value_type(e, "alloc_objects", "count");
    types[b->n_sample_type++] = value_type(e, "alloc_space", "bytes");
    types[b->n_sample_type++] = value_type(e, "inuse_objects", "count");
    types[b->n_sample_type++] = value_type(e, "inuse_space", "bytes");
    b->default_sample_type = string(e, e->type == LUPE_PPROF_HEAP ? "inuse_space" : "alloc_space");
    b->period_type = value_type(e, "space", "bytes");
    b->period = (int64_t)h->sample_period_bytes;
    b->time_nanos = (int64_t)(h->time_ms * 1e6);
    if (!knows_allocations(&e->c)) {
      comment = string(
          e, "alloc_objects and alloc_space are not known: the allocator does not tell what was freed");
      b->comment = &comment;
      b->n_comment = 1;
    }
  } else {
    const char *name = e->type == LUPE_PPROF_CPU ? "cpu" : "wall";
    uint32_t hz = e->type == LUPE_PPROF_CPU ? h->cpu_hz : h->wall_hz;
    types[b->n_sample_type++] = value_type(e, "samples", "count");
    types[b->n_sample_type++] = value_type(e, name, "nanoseconds");
    b->default_sample_type = string(e, name);
    b->period_type = value_type(e, name, "nanoseconds");
    b->period = hz ? (int64_t)(1000000000 / hz) : 0;
    b->time_nanos = (int64_t)(h->profile_from_ms * 1e6);
    b->duration_nanos = (int64_t)((h->profile_to_ms - h->profile_from_ms) * 1e6);
  }
  write_batch(e);
}

/* -- samples ---------------------------------------------------------------------------------- */

static uint64_t running_location(const encoder *e) {
  return e->c.frame_count + 1;
}

/* A sample of this stack, in the batch; NULL after a failure. */
static Lupe__Pprof__Sample *add_sample(encoder *e, uint32_t stack) {
  const lupe_columns *c = &e->c;
  uint32_t first = 0;
  size_t depth = 1;
  if (stack != LUPE_NO_STACK) {
    first = is_heap(e) ? lupe_heap_stack_first(c, stack) : c->stack_first[stack];
    depth = lupe_stack_tags(c, stack) - first;
  }
  if (depth > DEPTH_MAX) fail(e, LUPE_ECORRUPT);
  if (!make_room(e, SAMPLE_BYTES + depth * sizeof(uint64_t))) return NULL;
  Lupe__Pprof__Sample *s = take(e, sizeof *s);
  lupe__pprof__sample__init(s);
  s->n_location_id = depth;
  s->location_id = take(e, depth * sizeof(uint64_t));
  s->label = take(e, LABELS_MAX * sizeof(Lupe__Pprof__Label *));
  s->value = take(e, VALUES_MAX * sizeof(int64_t));
  if (stack == LUPE_NO_STACK) {
    e->running = true;
    s->location_id[0] = running_location(e);
  } else {
    const uint32_t *frames = c->stack_frames + first;
    for (size_t i = 0; i < depth; i++) {
      e->used[frames[i]] = 1;
      s->location_id[i] = (uint64_t)frames[i] + 1;
    }
  }
  e->samples[e->batch.n_sample++] = s;
  return s;
}

static Lupe__Pprof__Label *add_label(encoder *e, Lupe__Pprof__Sample *s, const char *key) {
  Lupe__Pprof__Label *l = take(e, sizeof *l);
  lupe__pprof__label__init(l);
  l->key = string(e, key);
  s->label[s->n_label++] = l;
  return l;
}

/* The innermost tag of a stack. */
static void add_tag(encoder *e, Lupe__Pprof__Sample *s, uint32_t stack) {
  const lupe_columns *c = &e->c;
  uint32_t tag = stack == LUPE_NO_STACK ? 0 : lupe_stack_tags(c, stack);
  if (stack == LUPE_NO_STACK || tag == c->stack_first[stack + 1]) return;
  uint32_t function = c->frames[c->stack_frames[tag]].function;
  add_label(e, s, "tag")->str = string(e, c->strings + c->functions[function].name);
}

static void add_heap_samples(encoder *e) {
  const lupe_columns *c = &e->c;
  for (uint32_t i = 0; i < c->stack_count; i++) {
    int64_t values[VALUES_MAX] = {llround(c->alloc_objects[i]), llround(c->alloc_space[i]),
                                  llround(c->inuse_objects[i]), llround(c->inuse_space[i])};
    if (!values[0] && !values[1] && !values[2] && !values[3]) continue;
    Lupe__Pprof__Sample *s = add_sample(e, i);
    if (!s) return;
    memcpy(s->value, values, sizeof values);
    s->n_value = VALUES_MAX;
    add_tag(e, s, i);
  }
}

static void add_labels(encoder *e, Lupe__Pprof__Sample *s, size_t row) {
  static const char *const states[] = {
      [LUPE_THREAD_USER] = "user",
      [LUPE_THREAD_KERNEL] = "kernel",
      [LUPE_THREAD_RUNNING] = "running",
      [LUPE_THREAD_WAITING] = "waiting",
  };
  const lupe_columns *c = &e->c;
  const lupe_snapshot_thread *t = &c->threads[c->sample_thread[row]];
  uint32_t state = lupe_row_state(c, row), syscall = c->sample_state[row] >> 16;
  if (c->strings[t->name]) add_label(e, s, "thread")->str = string(e, c->strings + t->name);
  add_label(e, s, "tid")->num = t->tid;
  if (t->target < c->target_count) add_label(e, s, "pid")->num = c->targets[t->target].pid;
  add_label(e, s, "state")->str = string(e, states[state]);
  if (state == LUPE_THREAD_WAITING && syscall != LUPE_NO_SYSCALL) add_label(e, s, "syscall")->num = syscall;
}

static void add_time_samples(encoder *e) {
  const lupe_columns *c = &e->c;
  for (size_t i = 0; i < c->row_count; i++) {
    if (!(e->type == LUPE_PPROF_CPU ? lupe_row_is_cpu(c, i) : lupe_row_is_wall(c, i))) continue;
    if (c->sample_stack[i] == LUPE_NO_STACK && lupe_row_state(c, i) != LUPE_THREAD_RUNNING) continue;
    Lupe__Pprof__Sample *s = add_sample(e, c->sample_stack[i]);
    if (!s) return;
    s->value[s->n_value++] = llround(c->sample_count[i]);
    s->value[s->n_value++] = llround(c->sample_ns[i]);
    add_labels(e, s, i);
    add_tag(e, s, c->sample_stack[i]);
  }
}

/* -- functions and places --------------------------------------------------------------------- */

static bool grow_functions(encoder *e) {
  size_t capacity = e->function_capacity ? 2 * e->function_capacity : FIRST_FUNCTIONS;
  uint32_t *slots = calloc(2 * capacity, sizeof *slots);
  function_key *functions = slots ? realloc(e->functions, capacity * sizeof *functions) : NULL;
  if (!functions) {
    free(slots);
    return false;
  }
  free(e->function_slots);
  e->functions = functions;
  e->function_slots = slots;
  e->function_capacity = capacity;
  for (size_t i = 0; i < e->function_count; i++) {
    const uint64_t words[2] = {(uint64_t)functions[i].name << 32 | functions[i].file, functions[i].line};
    size_t at = lupe_hash_words(words, 2) & (2 * capacity - 1);
    while (slots[at]) at = (at + 1) & (2 * capacity - 1);
    slots[at] = (uint32_t)i + 1;
  }
  return true;
}

static uint64_t function_id(encoder *e, const char *name, const char *file, uint32_t line) {
  function_key key = {(uint32_t)string(e, name), (uint32_t)string(e, file), line};
  if (e->function_count == e->function_capacity && !grow_functions(e)) {
    fail(e, LUPE_ENOMEM);
    return 0;
  }
  const uint64_t words[2] = {(uint64_t)key.name << 32 | key.file, key.line};
  size_t mask = 2 * e->function_capacity - 1, at = lupe_hash_words(words, 2) & mask;
  for (; e->function_slots[at]; at = (at + 1) & mask) {
    const function_key *other = &e->functions[e->function_slots[at] - 1];
    if (other->name == key.name && other->file == key.file && other->line == key.line)
      return e->function_slots[at];
  }
  e->functions[e->function_count] = key;
  return e->function_slots[at] = (uint32_t)++e->function_count;
}

static void add_line(encoder *e, Lupe__Pprof__Location *l, uint64_t function, uint32_t line) {
  Lupe__Pprof__Line *m = take(e, sizeof *m);
  lupe__pprof__line__init(m);
  m->function_id = function;
  m->line = line;
  l->line[l->n_line++] = m;
}

static Lupe__Pprof__Location *add_location(encoder *e, uint64_t id, size_t lines) {
  if (lines > DEPTH_MAX) fail(e, LUPE_ECORRUPT);
  if (!make_room(e, sizeof(Lupe__Pprof__Location) + lines * LINE_BYTES)) return NULL;
  Lupe__Pprof__Location *l = take(e, sizeof *l);
  lupe__pprof__location__init(l);
  l->id = id;
  l->line = take(e, lines * sizeof(Lupe__Pprof__Line *));
  e->locations[e->batch.n_location++] = l;
  return l;
}

static void add_locations(encoder *e) {
  const lupe_columns *c = &e->c;
  for (uint32_t i = 0; i < c->frame_count; i++) {
    if (!e->used[i]) continue;
    const lupe_snapshot_frame *f = &c->frames[i];
    const lupe_snapshot_function *function = &c->functions[f->function];
    Lupe__Pprof__Location *l = add_location(e, (uint64_t)i + 1, (size_t)f->inline_count + 1);
    if (!l) return;
    if (e->mappings[f->module].used) {
      l->mapping_id = (uint64_t)f->module + 1;
      l->address = lupe_profile_frame_address(c, i);
    }
    for (uint32_t k = 0; k < f->inline_count; k++) {
      const lupe_snapshot_inline *in = &c->inlines[f->inline_first + k];
      add_line(e, l, function_id(e, c->strings + in->name, c->strings + in->file, 0), in->line);
    }
    uint32_t file = f->file ? f->file : function->file;
    add_line(e, l, function_id(e, c->strings + function->name, c->strings + file, function->line), f->line);
  }
  Lupe__Pprof__Location *l = e->running ? add_location(e, running_location(e), 1) : NULL;
  if (l) add_line(e, l, function_id(e, "[running]", "", 0), 0);
}

static void add_functions(encoder *e) {
  for (size_t i = 0; i < e->function_count; i++) {
    if (!make_room(e, sizeof(Lupe__Pprof__Function))) return;
    Lupe__Pprof__Function *f = take(e, sizeof *f);
    lupe__pprof__function__init(f);
    f->id = i + 1;
    f->name = f->system_name = e->functions[i].name;
    f->filename = e->functions[i].file;
    f->start_line = e->functions[i].line;
    e->batch_functions[e->batch.n_function++] = f;
  }
}

static void add_mapping(encoder *e, uint32_t module) {
  const lupe_profile_mapping *from = &e->mappings[module];
  if (!from->used || !make_room(e, sizeof(Lupe__Pprof__Mapping))) return;
  Lupe__Pprof__Mapping *m = take(e, sizeof *m);
  lupe__pprof__mapping__init(m);
  m->id = (uint64_t)module + 1;
  m->memory_start = from->start;
  m->memory_limit = from->limit;
  m->file_offset = from->file_offset;
  m->filename = string(e, e->c.strings + e->c.modules[module].path);
  m->build_id = string(e, e->c.strings + e->c.modules[module].build_id);
  m->has_functions = from->functions;
  m->has_filenames = from->filenames;
  m->has_line_numbers = from->lines;
  m->has_inline_frames = from->inlines;
  e->batch_mappings[e->batch.n_mapping++] = m;
}

static void add_mappings(encoder *e) {
  lupe_status status = lupe_profile_mappings(&e->c, e->used, &e->mappings);
  if (status != LUPE_OK) {
    fail(e, status);
    return;
  }
  uint32_t program = lupe_profile_program(&e->c, e->used, e->mappings);
  if (program < e->c.module_count) add_mapping(e, program);
  for (uint32_t i = 0; i < e->c.module_count; i++) {
    if (i != program) add_mapping(e, i);
  }
}

/* -- the whole -------------------------------------------------------------------------------- */

static void encode(encoder *e) {
  write_head(e);
  if (is_heap(e))
    add_heap_samples(e);
  else
    add_time_samples(e);
  if (e->status == LUPE_OK) add_mappings(e);
  if (e->status == LUPE_OK) add_locations(e);
  add_functions(e);
  e->batch.string_table = (char **)e->strings.texts; /* packing only reads them */
  e->batch.n_string_table = e->strings.count;
  write_batch(e);
}

lupe_status lupe_pprof_encode(const lupe_snapshot *s, lupe_pprof_type type, uint8_t **out,
                              size_t *out_bytes) {
  if (type > LUPE_PPROF_WALL) return LUPE_EINVAL;
  encoder *e = calloc(1, sizeof *e);
  if (!e) return LUPE_ENOMEM;
  lupe_status status = LUPE_ENOMEM;
  e->c = lupe_columns_of(s);
  e->type = type;
  e->buffer.append = append;
  e->used = calloc(e->c.frame_count + 1, 1);
  e->room = malloc(ROOM_BYTES);
  begin_batch(e);
  if (!e->used || !e->room || lupe_string_table_init(&e->strings) != LUPE_OK) goto no_memory;
  status = lupe_gzip_create(&e->gzip);
  if (status != LUPE_OK) goto no_memory;
  encode(e);
  status = e->status;
  if (status == LUPE_OK) status = lupe_gzip_finish(e->gzip, out, out_bytes);
  lupe_gzip_free(e->gzip);
no_memory:
  lupe_string_table_clear(&e->strings);
  free(e->function_slots);
  free(e->functions);
  free(e->mappings);
  free(e->room);
  free(e->used);
  free(e);
  return status;
}

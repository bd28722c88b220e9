#include "core/export/gperftools.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/export/address_space.h"
#include "core/export/columns.h"
#include "core/export/sample_rows.h"
#include "core/export/text_buffer.h"

/* -- what both kinds share -------------------------------------------------------------------- */

typedef struct writer {
  lupe_columns c;
  uint8_t *used;        /* by frame: it is in the profile */
  uint64_t *address_of; /* by frame */
  lupe_text_buffer text;
} writer;

static lupe_status begin(writer *w, const lupe_snapshot *s) {
  *w = (writer){.c = lupe_columns_of(s)};
  w->used = calloc(w->c.frame_count + 1, 1);
  w->address_of = calloc(w->c.frame_count + 1, sizeof(uint64_t));
  return w->used && w->address_of ? LUPE_OK : LUPE_ENOMEM;
}

static void use_frames(writer *w, uint32_t first, uint32_t behind) {
  for (uint32_t i = first; i < behind; i++) w->used[w->c.stack_frames[i]] = 1;
}

static void choose_addresses(writer *w) {
  const lupe_columns *c = &w->c;
  size_t count = 0;
  for (uint32_t i = 0; i < c->frame_count; i++) count += w->used[i];
  for (uint32_t i = 0; i < c->frame_count; i++) {
    w->address_of[i] = count > LUPE_GPERFTOOLS_ADDRESSES
                           ? lupe_profile_function_address(c, c->frames[i].function)
                           : lupe_profile_frame_address(c, i);
  }
}

/* Lines as in /proc/PID/maps. */
static lupe_status add_maps(writer *w) {
  const lupe_columns *c = &w->c;
  lupe_profile_mapping *mappings;
  lupe_status status = lupe_profile_mappings(c, w->used, &mappings);
  if (status != LUPE_OK) return status;
  for (uint32_t i = 0; i < c->module_count; i++) {
    const lupe_profile_mapping *m = &mappings[i];
    if (!m->used) continue;
    lupe_text_format(&w->text, "%" PRIx64 "-%" PRIx64 " r-xp %08" PRIx64 " 00:00 0 ", m->start, m->limit,
                     m->file_offset);
    lupe_text_add_string(&w->text, c->strings + c->modules[i].path);
    lupe_text_add_string(&w->text, "\n");
  }
  free(mappings);
  return LUPE_OK;
}

static lupe_status end(writer *w, lupe_status status, char **out, size_t *out_bytes) {
  free(w->used);
  free(w->address_of);
  if (status == LUPE_OK) return lupe_text_finish(&w->text, out, out_bytes);
  free(w->text.bytes);
  return status;
}

/* -- heap profiles ---------------------------------------------------------------------------- */

typedef struct heap_values {
  int64_t inuse_objects, inuse_space, alloc_objects, alloc_space;
} heap_values;

static bool values_of(const lupe_columns *c, uint32_t stack, heap_values *out) {
  *out = (heap_values){llround(c->inuse_objects[stack]), llround(c->inuse_space[stack]),
                       llround(c->alloc_objects[stack]), llround(c->alloc_space[stack])};
  return out->inuse_objects || out->inuse_space || out->alloc_objects || out->alloc_space;
}

static void add_values(writer *w, const heap_values *v) {
  lupe_text_format(&w->text, "%6" PRId64 ": %8" PRId64 " [%6" PRId64 ": %8" PRId64 "] @", v->inuse_objects,
                   v->inuse_space, v->alloc_objects, v->alloc_space);
}

lupe_status lupe_gperftools_heap(const lupe_snapshot *s, char **out, size_t *out_bytes) {
  writer w;
  lupe_status status = begin(&w, s);
  if (status != LUPE_OK) return end(&w, status, out, out_bytes);
  const lupe_columns *c = &w.c;
  heap_values sum = {0}, v;
  for (uint32_t i = 0; i < c->stack_count; i++) {
    if (!values_of(c, i, &v)) continue;
    use_frames(&w, lupe_heap_stack_first(c, i), lupe_stack_tags(c, i));
    sum.inuse_objects += v.inuse_objects;
    sum.inuse_space += v.inuse_space;
    sum.alloc_objects += v.alloc_objects;
    sum.alloc_space += v.alloc_space;
  }
  choose_addresses(&w);
  lupe_text_add_string(&w.text, "heap profile: ");
  add_values(&w, &sum);
  lupe_text_add_string(&w.text,
                       " heapprofile\n"); /* the kind whose figures are not scaled: ours are already */
  for (uint32_t i = 0; i < c->stack_count; i++) {
    if (!values_of(c, i, &v)) continue;
    add_values(&w, &v);
    uint32_t first = lupe_heap_stack_first(c, i), behind = lupe_stack_tags(c, i);
    for (uint32_t k = first; k < behind; k++)
      lupe_text_format(&w.text, " 0x%" PRIx64, w.address_of[c->stack_frames[k]] + (k > first));
    lupe_text_add_string(&w.text, "\n");
  }
  lupe_text_add_string(&w.text, "\nMAPPED_LIBRARIES:\n");
  return end(&w, add_maps(&w), out, out_bytes);
}

/* -- CPU profiles ----------------------------------------------------------------------------- */

static void add_word(writer *w, uint64_t word) {
  lupe_text_add(&w->text, &word, sizeof word);
}

static bool is_sample(const lupe_columns *c, size_t row) {
  return lupe_row_is_cpu(c, row) && c->sample_stack[row] != LUPE_NO_STACK && c->sample_count[row] > 0 &&
         c->sample_ns[row] > 0;
}

/* All samples of a file are of one period, whatever rates they were taken at: the finest one, so that none of
 * the others comes to nothing. */
static double finest_period_us(const lupe_columns *c) {
  double finest = INFINITY;
  for (size_t i = 0; i < c->row_count; i++) {
    if (is_sample(c, i)) finest = fmin(finest, c->sample_ns[i] / c->sample_count[i] / 1000);
  }
  if (isfinite(finest) && finest >= 1) return finest;
  return c->header->cpu_hz ? 1e6 / c->header->cpu_hz : 0;
}

lupe_status lupe_gperftools_cpu(const lupe_snapshot *s, char **out, size_t *out_bytes) {
  writer w;
  lupe_status status = begin(&w, s);
  if (status != LUPE_OK) return end(&w, status, out, out_bytes);
  const lupe_columns *c = &w.c;
  for (size_t i = 0; i < c->row_count; i++) {
    uint32_t stack = c->sample_stack[i];
    if (is_sample(c, i)) use_frames(&w, c->stack_first[stack], lupe_stack_tags(c, stack));
  }
  choose_addresses(&w);
  double period_us = finest_period_us(c);
  const uint64_t head[] = {0, 3 /* words of this that follow */, 0 /* version */,
                           (uint64_t)llround(period_us), 0};
  const uint64_t tail[] = {0, 1, 0};
  lupe_text_add(&w.text, head, sizeof head);
  for (size_t i = 0; i < c->row_count; i++) {
    int64_t count = is_sample(c, i) && period_us > 0 ? llround(c->sample_ns[i] / 1000 / period_us) : 0;
    if (count <= 0) continue;
    uint32_t first = c->stack_first[c->sample_stack[i]], behind = lupe_stack_tags(c, c->sample_stack[i]);
    add_word(&w, (uint64_t)count);
    add_word(&w, behind - first);
    for (uint32_t k = first; k < behind; k++) add_word(&w, w.address_of[c->stack_frames[k]] + (k > first));
  }
  lupe_text_add(&w.text, tail, sizeof tail);
  return end(&w, add_maps(&w), out, out_bytes);
}

/* -- symbols ---------------------------------------------------------------------------------- */

typedef struct place {
  uint64_t address;
  uint32_t function, frame; /* frame NONE: the function's beginning */
} place;

enum { NONE = UINT32_MAX };

/* Of one address a frame comes before a function. */
static int by_address(const void *a, const void *b) {
  const place *x = a, *y = b;
  if (x->address != y->address) return x->address < y->address ? -1 : 1;
  return (x->frame > y->frame) - (x->frame < y->frame);
}

static place *places_of(const lupe_columns *c, size_t *out_count) {
  size_t count = 0;
  place *places = malloc((c->frame_count + c->function_count + 1) * sizeof *places);
  if (!places) return NULL;
  for (uint32_t i = 0; i < c->frame_count; i++)
    places[count++] = (place){lupe_profile_frame_address(c, i), c->frames[i].function, i};
  for (uint32_t i = 0; i < c->function_count; i++)
    places[count++] = (place){lupe_profile_function_address(c, i), i, NONE};
  qsort(places, count, sizeof *places, by_address);
  *out_count = count;
  return places;
}

static const place *find(const place *places, size_t count, uint64_t address) {
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (places[middle].address < address)
      low = middle + 1;
    else
      high = middle;
  }
  return low < count && places[low].address == address ? &places[low] : NULL;
}

/* "--" stands between names, so there is none in one. */
static void add_name(lupe_text_buffer *text, const char *name) {
  for (const char *p = name; *p; p++) {
    lupe_text_add(text, p, 1);
    if (p[0] == '-' && p[1] == '-') lupe_text_add(text, " ", 1);
  }
}

static void add_symbol(lupe_text_buffer *text, const lupe_columns *c, const place *p) {
  lupe_text_format(text, "0x%" PRIx64 "\t", p->address);
  add_name(text, c->strings + c->functions[p->function].name);
  const lupe_snapshot_frame *f = p->frame == NONE ? NULL : &c->frames[p->frame];
  for (uint32_t i = f ? f->inline_count : 0; i-- > 0;) {
    lupe_text_add_string(text, "--");
    add_name(text, c->strings + c->inlines[f->inline_first + i].name);
  }
  lupe_text_add_string(text, "\n");
}

static int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

lupe_status lupe_gperftools_symbols(const lupe_snapshot *s, const char *addresses, size_t bytes, char **out,
                                    size_t *out_bytes) {
  lupe_columns c = lupe_columns_of(s);
  lupe_text_buffer text = {0};
  size_t count;
  place *places = places_of(&c, &count);
  if (!places) return LUPE_ENOMEM;
  for (size_t i = 0; i < bytes;) {
    if (addresses[i] == '0' && i + 1 < bytes && (addresses[i + 1] | ' ') == 'x') i += 2;
    uint64_t address = 0;
    size_t first = i;
    for (; i < bytes && digit_of(addresses[i]) >= 0; i++)
      address = address << 4 | (uint64_t)digit_of(addresses[i]);
    const place *found = i > first ? find(places, count, address) : NULL;
    if (found) add_symbol(&text, &c, found);
    if (i == first) i++;
  }
  free(places);
  return lupe_text_finish(&text, out, out_bytes);
}

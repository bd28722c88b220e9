#include "core/store/line_batch.h"

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/store/source_lines.h"
#include "core/unwanted.h"

enum {
  FIRST_ROOM = 16,
  TEXT_BYTES = 16 << 20,
};

lupe_status lupe_line_batch_create(lupe_line_batch **out, const char *debug_root) {
  lupe_line_batch *b = calloc(1, sizeof *b);
  if (!b) return LUPE_ENOMEM;
  b->debug_root = debug_root;
  *out = b;
  return LUPE_OK;
}

void lupe_line_batch_free(lupe_line_batch *b) {
  if (!b) return;
  for (size_t i = 0; i < b->module_count; i++) {
    free(b->modules[i].path);
    free(b->modules[i].alternative);
    free(b->modules[i].build_id);
  }
  free(b->modules);
  free(b->answers);
  free(b->inlines);
  lupe_text_store_clear(&b->texts);
  free(b);
}

/* Makes room for `more` further elements; false where there is no memory. */
static bool grow(void **array, size_t *capacity, size_t count, size_t more, size_t element_bytes) {
  if (*capacity - count >= more) return true;
  size_t wanted = *capacity ? 2 * *capacity : FIRST_ROOM;
  if (wanted - count < more) wanted = count + more;
  void *grown = realloc(*array, wanted * element_bytes);
  if (!grown) return false;
  *array = grown;
  *capacity = wanted;
  return true;
}

lupe_status lupe_line_batch_add_module(lupe_line_batch *b, uint16_t module, const char *path,
                                       const char *alternative, const char *build_id) {
  if (!grow((void **)&b->modules, &b->module_capacity, b->module_count, 1, sizeof *b->modules))
    return LUPE_ENOMEM;
  lupe_line_module *m = &b->modules[b->module_count++];
  *m = (lupe_line_module){.module = module, .first = b->answer_count, .status = LUPE_EAGAIN};
  m->path = strdup(path);
  m->alternative = alternative ? strdup(alternative) : NULL;
  m->build_id = build_id ? strdup(build_id) : NULL;
  return m->path && (!alternative || m->alternative) && (!build_id || m->build_id) ? LUPE_OK : LUPE_ENOMEM;
}

lupe_status lupe_line_batch_add(lupe_line_batch *b, uint32_t frame, uint64_t address) {
  if (!grow((void **)&b->answers, &b->answer_capacity, b->answer_count, 1, sizeof *b->answers))
    return LUPE_ENOMEM;
  b->answers[b->answer_count++] = (lupe_line_answer){.frame = frame, .address = address};
  b->modules[b->module_count - 1].count++;
  return LUPE_OK;
}

typedef struct target {
  lupe_line_batch *batch;
  size_t first;
} target;

static uint32_t put(lupe_line_batch *b, const char *text) {
  return lupe_text_store_put(&b->texts, text, TEXT_BYTES);
}

static void on_found(void *arg, size_t index, const lupe_source_place *place) {
  const target *t = arg;
  lupe_line_batch *b = t->batch;
  lupe_line_answer *answer = &b->answers[t->first + index];
  answer->file = put(b, place->file);
  answer->line = place->line;
  answer->definition_file = put(b, place->definition_file);
  answer->definition_line = place->definition_line;
  if (!grow((void **)&b->inlines, &b->inline_capacity, b->inline_count, place->inline_count,
            sizeof *b->inlines))
    return;
  answer->inline_first = (uint32_t)b->inline_count;
  answer->inline_count = (uint32_t)place->inline_count;
  for (size_t i = 0; i < place->inline_count; i++) {
    const lupe_source_call *call = &place->inlines[i];
    b->inlines[b->inline_count++] = (lupe_line_inline){put(b, call->name), put(b, call->file), call->line};
  }
}

static lupe_status resolve_module(lupe_line_batch *b, const lupe_line_module *m, int64_t deadline_ns,
                                  int64_t file_ns) {
  lupe_source_file file = {m->path, m->alternative, m->build_id, b->debug_root, 0};
  lupe_source_lines *lines;
  lupe_status status = lupe_source_lines_open(&lines, &file);
  if (status != LUPE_OK) return status;
  uint64_t *addresses = malloc((m->count + 1) * sizeof *addresses);
  status = LUPE_ENOMEM;
  if (addresses) {
    target t = {b, m->first};
    int64_t file_deadline_ns = lupe_clock_ns(CLOCK_MONOTONIC) + file_ns;
    if (file_deadline_ns < deadline_ns) deadline_ns = file_deadline_ns;
    for (size_t i = 0; i < m->count; i++) addresses[i] = b->answers[m->first + i].address;
    status = lupe_source_lines_resolve(lines, addresses, m->count, deadline_ns, on_found, &t);
  }
  free(addresses);
  lupe_source_lines_close(lines);
  return status;
}

void lupe_line_batch_resolve(lupe_line_batch *b, int64_t deadline_ns, int64_t file_ns) {
  for (size_t i = 0; i < b->module_count; i++) {
    if (lupe_clock_ns(CLOCK_MONOTONIC) >= deadline_ns || lupe_unwanted()) return;
    b->modules[i].started = true;
    b->modules[i].status = resolve_module(b, &b->modules[i], deadline_ns, file_ns);
  }
}

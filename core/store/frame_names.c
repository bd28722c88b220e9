#include "core/store/frame_names.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/store/hash.h"
#include "core/store/program_file.h"
#include "core/store/symbolizer.h"
#include "core/unwanted.h"
#include "core/wire/message.h"

enum {
  FIRST_FUNCTIONS = 256,
  WRAPPERS_MAX = 4096,
  WRAPPER_BYTES_MAX = 255,
  LINE_TRIES_MAX = 3,
  NO_LINES = UINT8_MAX,
};

#define OFFSET_MASK ((UINT64_C(1) << 48) - 1) /* of a frame */

struct lupe_frame_names {
  lupe_stack_table *stacks;
  lupe_module_table *modules;
  lupe_symbolizer *symbolizer;
  lupe_image **images; /* by module id; NULL: not asked for yet */
  uint8_t *line_tries; /* by module id: how often there was no time for its lines; NO_LINES: there are none */
  uint32_t image_count;
  lupe_named_frame *frames;
  uint32_t frame_count, frame_capacity;
  lupe_function *functions;
  uint32_t *slots; /* function + 1; twice as many as functions */
  uint32_t function_count, function_capacity;
  lupe_wrapper *wrappers; /* with the text of each behind them */
  size_t wrapper_count;
  lupe_frame_lines lines;
  lupe_line_figures figures;
  uint16_t tag_module; /* LUPE_MODULE_UNKNOWN: there are no tags */
  const lupe_text_store *tag_names;
};

lupe_status lupe_frame_names_create(lupe_frame_names **out, lupe_stack_table *stacks,
                                    lupe_module_table *modules) {
  lupe_frame_names *n = calloc(1, sizeof *n);
  if (!n) return LUPE_ENOMEM;
  n->stacks = stacks;
  n->modules = modules;
  lupe_status status = lupe_symbolizer_create(&n->symbolizer, NULL);
  if (status != LUPE_OK) {
    free(n);
    return status;
  }
  *out = n;
  return LUPE_OK;
}

void lupe_frame_names_free(lupe_frame_names *n) {
  if (!n) return;
  lupe_symbolizer_free(n->symbolizer);
  free(n->images);
  free(n->line_tries);
  lupe_frame_lines_clear(&n->lines);
  free(n->frames);
  free(n->functions);
  free(n->slots);
  free(n->wrappers);
  free(n);
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

void lupe_frame_names_set_tags(lupe_frame_names *n, uint16_t module, const lupe_text_store *names) {
  n->tag_module = module;
  n->tag_names = names;
}

static bool is_wrapper(const lupe_frame_names *n, const lupe_function *f) {
  if (f->tag) return false;
  const char *module = base_name(lupe_module_table_path(n->modules, f->module));
  for (size_t i = 0; i < n->wrapper_count; i++) {
    const char *text = n->wrappers[i].text;
    switch (n->wrappers[i].kind) {
      case LUPE_WRAPPER_NAME:
        if (strcmp(f->name, text) == 0) return true;
        break;
      case LUPE_WRAPPER_PREFIX:
        if (strncmp(f->name, text, strlen(text)) == 0) return true;
        break;
      default:
        if (strncmp(module, text, strlen(text)) == 0) return true;
    }
  }
  return false;
}

lupe_status lupe_frame_names_set_wrappers(lupe_frame_names *n, const lupe_wrapper *wrappers, size_t count) {
  if (count > WRAPPERS_MAX) return LUPE_EINVAL;
  size_t bytes = 0;
  for (size_t i = 0; i < count; i++) {
    size_t length = wrappers[i].text ? strlen(wrappers[i].text) : 0;
    if (wrappers[i].kind > LUPE_WRAPPER_MODULE || length == 0 || length > WRAPPER_BYTES_MAX)
      return LUPE_EINVAL;
    bytes += length + 1;
  }
  lupe_wrapper *copy = malloc(count * sizeof *copy + bytes + 1);
  if (!copy) return LUPE_ENOMEM;
  char *text = (char *)(copy + count);
  for (size_t i = 0; i < count; i++) {
    size_t length = strlen(wrappers[i].text) + 1;
    memcpy(text, wrappers[i].text, length);
    copy[i] = (lupe_wrapper){.kind = wrappers[i].kind, .text = text};
    text += length;
  }
  free(n->wrappers);
  n->wrappers = copy;
  n->wrapper_count = count;
  for (uint32_t i = 0; i < n->function_count; i++) n->functions[i].wrapper = is_wrapper(n, &n->functions[i]);
  return LUPE_OK;
}

/* Where else a module's file may be read, in the eyes of a process that maps it: its exe link, which leads to
 * its program even when that is deleted or another lies at its path; for other files, its own file system. */
static const char *alternative_path(char *buffer, size_t bytes, const char *path, int32_t pid) {
  size_t plain = lupe_program_path_bytes(path);
  bool deleted = path[plain] != '\0';
  char target[PATH_MAX];
  if (pid <= 0 || path[0] != '/') return NULL;
  snprintf(buffer, bytes, "/proc/%d/exe", (int)pid);
  ssize_t length = readlink(buffer, target, sizeof target - 1);
  target[length > 0 ? length : 0] = '\0';
  size_t compared = deleted ? strlen(target) : lupe_program_path_bytes(target);
  if (compared == strlen(path) && memcmp(target, path, compared) == 0) return buffer;
  if (deleted) return NULL;
  int n = snprintf(buffer, bytes, "/proc/%d/root%s", (int)pid, path);
  return n > 0 && (size_t)n < bytes ? buffer : NULL;
}

static lupe_status image_of(lupe_frame_names *n, uint16_t module, lupe_image **out) {
  *out = NULL;
  if (module == LUPE_MODULE_UNKNOWN) return LUPE_OK;
  if (module >= n->image_count) {
    uint32_t count = lupe_module_table_count(n->modules);
    lupe_image **images = realloc(n->images, count * sizeof(lupe_image *));
    if (!images) return LUPE_ENOMEM;
    n->images = images;
    uint8_t *tries = realloc(n->line_tries, count);
    if (!tries) return LUPE_ENOMEM;
    n->line_tries = tries;
    memset(images + n->image_count, 0, (count - n->image_count) * sizeof(lupe_image *));
    memset(tries + n->image_count, 0, count - n->image_count);
    n->image_count = count;
  }
  if (!n->images[module]) {
    const char *path = lupe_module_table_path(n->modules, module);
    char buffer[PATH_MAX + 64];
    const char *alternative =
        alternative_path(buffer, sizeof buffer, path, lupe_module_table_pid(n->modules, module));
    lupe_file_version version = lupe_module_table_version(n->modules, module);
    lupe_image *image;
    lupe_status status = lupe_symbolizer_open(n->symbolizer, path, alternative, NULL, &version, &image);
    if (status != LUPE_OK) return LUPE_OK; /* past its bound: the module's functions are [unknown] */
    n->images[module] = image;
  }
  *out = n->images[module];
  return LUPE_OK;
}

static bool grow_functions(lupe_frame_names *n) {
  uint32_t capacity = n->function_capacity ? 2 * n->function_capacity : FIRST_FUNCTIONS;
  uint32_t *slots = calloc(2 * (size_t)capacity, sizeof *slots);
  lupe_function *functions = slots ? realloc(n->functions, capacity * sizeof *functions) : NULL;
  if (!functions) {
    free(slots);
    return false;
  }
  free(n->slots);
  n->functions = functions;
  n->slots = slots;
  n->function_capacity = capacity;
  for (uint32_t i = 0; i < n->function_count; i++) {
    const uint64_t key[2] = {functions[i].module, functions[i].start};
    uint32_t at = (uint32_t)lupe_hash_words(key, 2) & (2 * capacity - 1);
    while (slots[at]) at = (at + 1) & (2 * capacity - 1);
    slots[at] = i + 1;
  }
  return true;
}

/* Number of the function, new or old. */
static lupe_status number_of(lupe_frame_names *n, lupe_function function, uint32_t *out) {
  if (n->function_count == n->function_capacity && !grow_functions(n)) return LUPE_ENOMEM;
  const uint64_t key[2] = {function.module, function.start};
  uint32_t mask = 2 * n->function_capacity - 1;
  uint32_t at = (uint32_t)lupe_hash_words(key, 2) & mask;
  for (; n->slots[at]; at = (at + 1) & mask) {
    const lupe_function *other = &n->functions[n->slots[at] - 1];
    if (other->module == function.module && other->start == function.start) {
      *out = n->slots[at] - 1;
      return LUPE_OK;
    }
  }
  function.wrapper = is_wrapper(n, &function);
  n->functions[n->function_count] = function;
  n->slots[at] = n->function_count + 1;
  *out = n->function_count++;
  return LUPE_OK;
}

lupe_status lupe_frame_names_name_memory(lupe_frame_names *n, lupe_frame frame, uint32_t index) {
  static const char *const names[] = {LUPE_MEMORY_FUNCTION_NAMES};
  uint16_t module = (uint16_t)(frame >> 48);
  lupe_image *image;
  lupe_symbol symbol;
  uint32_t number;
  if (index >= sizeof names / sizeof *names || frame == LUPE_FRAME_OVERFLOW) return LUPE_EINVAL;
  if (module == LUPE_MODULE_UNKNOWN) return LUPE_OK;
  lupe_status status = image_of(n, module, &image);
  if (status != LUPE_OK) return status;
  lupe_symbolizer_resolve(n->symbolizer, image, frame & OFFSET_MASK, &symbol);
  lupe_function function = {
      .module = module, .start = symbol.start, .name = symbol.name, .named = symbol.named};
  status = number_of(n, function, &number);
  if (status != LUPE_OK || n->functions[number].named) return status;
  n->functions[number].name = names[index];
  n->functions[number].named = true;
  n->functions[number].wrapper = is_wrapper(n, &n->functions[number]);
  return LUPE_OK;
}

static lupe_status name_frame(lupe_frame_names *n, lupe_frame frame, lupe_named_frame *out) {
  uint16_t module = (uint16_t)(frame >> 48);
  lupe_function function = {.module = module};
  if (frame == LUPE_FRAME_OVERFLOW) {
    function.name = "[stack table full]";
    function.start = frame;
    out->address = 0;
  } else if (module != LUPE_MODULE_UNKNOWN && module == n->tag_module &&
             (frame & OFFSET_MASK) <= n->tag_names->count) {
    function.start = out->address = frame & OFFSET_MASK;
    function.name = lupe_text_store_at(n->tag_names, (uint32_t)function.start);
    function.named = function.tag = true;
  } else {
    lupe_image *image;
    lupe_symbol symbol;
    lupe_status status = image_of(n, module, &image);
    if (status != LUPE_OK) return status;
    lupe_symbolizer_resolve(n->symbolizer, image, frame & OFFSET_MASK, &symbol);
    function.name = symbol.name;
    function.start = symbol.start;
    function.named = symbol.named;
    out->address = symbol.address;
  }
  out->module = module;
  return number_of(n, function, &out->function);
}

lupe_status lupe_frame_names_function(lupe_frame_names *n, lupe_frame frame, uint32_t *out) {
  lupe_named_frame named;
  if (frame == LUPE_FRAME_UNKNOWN || frame == LUPE_FRAME_OVERFLOW) return LUPE_ENOENT;
  lupe_status status = name_frame(n, frame, &named);
  if (status == LUPE_OK) *out = named.function;
  return status;
}

lupe_status lupe_frame_names_update(lupe_frame_names *n) {
  uint32_t count = lupe_stack_table_frames(n->stacks);
  if (count > n->frame_capacity) {
    uint32_t capacity = count + count / 4;
    lupe_named_frame *frames = realloc(n->frames, capacity * sizeof *frames);
    if (!frames) return LUPE_ENOMEM;
    n->frames = frames;
    n->frame_capacity = capacity;
  }
  if (lupe_frame_lines_grow(&n->lines, count) != LUPE_OK) return LUPE_ENOMEM;
  for (; n->frame_count < count; n->frame_count++) {
    if (lupe_unwanted()) return LUPE_EAGAIN;
    lupe_frame frame = lupe_stack_table_frame(n->stacks, n->frame_count);
    lupe_status status = name_frame(n, frame, &n->frames[n->frame_count]);
    if (status != LUPE_OK) return status;
  }
  return LUPE_OK;
}

const lupe_named_frame *lupe_frame_names_frames(const lupe_frame_names *n, uint32_t *out_count) {
  *out_count = n->frame_count;
  return n->frames;
}

const lupe_function *lupe_frame_names_functions(const lupe_frame_names *n, uint32_t *out_count) {
  *out_count = n->function_count;
  return n->functions;
}

const char *lupe_frame_names_build_id(lupe_frame_names *n, uint16_t module) {
  if (module >= n->image_count || !n->images[module]) return "";
  return lupe_symbolizer_build_id(n->symbolizer, n->images[module]);
}

/* -- lines ------------------------------------------------------------------------------------ */

const lupe_frame_lines *lupe_frame_names_lines(const lupe_frame_names *n) {
  return &n->lines;
}

void lupe_frame_names_line_figures(const lupe_frame_names *n, lupe_line_figures *out) {
  *out = n->figures;
  out->open = n->lines.open;
}

void lupe_frame_names_want_lines(lupe_frame_names *n, const uint32_t *frames, size_t count) {
  lupe_frame_lines_want(&n->lines, frames, count);
}

/* A frame that has no lines because its module has none. */
static bool is_hopeless(const lupe_frame_names *n, uint32_t frame) {
  uint16_t module = n->frames[frame].module;
  return module == LUPE_MODULE_UNKNOWN || module >= n->image_count || !n->images[module] ||
         n->line_tries[module] == NO_LINES;
}

/* Picks frames of this state. */
static size_t pick(lupe_frame_names *n, lupe_line_state state, uint32_t *frames, size_t count, size_t most) {
  for (uint32_t i = 0; i < n->frame_count && count < most; i++) {
    if (n->lines.rows[i].state != state) continue;
    if (is_hopeless(n, i)) {
      lupe_frame_lines_set_state(&n->lines, i, LUPE_LINE_KNOWN);
    } else {
      frames[count++] = i;
    }
  }
  return count;
}

static int by_place(const void *a, const void *b, void *arg) {
  const lupe_named_frame *frames = arg;
  const lupe_named_frame *x = &frames[*(const uint32_t *)a], *y = &frames[*(const uint32_t *)b];
  if (x->module != y->module) return x->module < y->module ? -1 : 1;
  return x->address < y->address ? -1 : x->address > y->address;
}

static lupe_status fill_batch(lupe_frame_names *n, lupe_line_batch *b, const uint32_t *frames, size_t count) {
  lupe_status status = LUPE_OK;
  for (size_t i = 0; i < count && status == LUPE_OK; i++) {
    uint16_t module = n->frames[frames[i]].module;
    if (n->line_tries[module] == NO_LINES) continue;
    if (b->module_count == 0 || b->modules[b->module_count - 1].module != module) {
      const char *build_id, *path = lupe_symbolizer_file(n->symbolizer, n->images[module], &build_id);
      if (!path) {
        n->line_tries[module] = NO_LINES;
        continue;
      }
      status = lupe_line_batch_add_module(b, module, lupe_module_table_path(n->modules, module), path,
                                          build_id[0] ? build_id : NULL);
    }
    if (status == LUPE_OK) status = lupe_line_batch_add(b, frames[i], n->frames[frames[i]].address);
  }
  return status;
}

lupe_status lupe_frame_names_unlocated(lupe_frame_names *n, bool wanted, size_t most, lupe_line_batch **out) {
  *out = NULL;
  if ((wanted ? n->lines.wanted : n->lines.open) == 0) return LUPE_OK;
  lupe_line_batch *batch;
  uint32_t *frames = malloc(most * sizeof *frames);
  if (!frames) return LUPE_ENOMEM;
  size_t count = pick(n, LUPE_LINE_WANTED, frames, 0, most);
  if (count > 0 || !wanted) count = pick(n, LUPE_LINE_UNASKED, frames, count, most);
  qsort_r(frames, count, sizeof *frames, by_place, n->frames);
  lupe_status status = lupe_line_batch_create(&batch, lupe_symbolizer_debug_root(n->symbolizer));
  if (status != LUPE_OK) goto done;
  status = fill_batch(n, batch, frames, count);
  if (status != LUPE_OK || batch->answer_count == 0) {
    lupe_line_batch_free(batch);
    goto done;
  }
  for (size_t i = 0; i < batch->answer_count; i++)
    lupe_frame_lines_set_state(&n->lines, batch->answers[i].frame, LUPE_LINE_ASKED);
  *out = batch;
done:
  free(frames);
  return status;
}

static bool is_found(const lupe_line_answer *answer) {
  return answer->line > 0 || answer->definition_line > 0 || answer->inline_count > 0;
}

/* What the answer of one file says of its further frames. `progress`: some of its frames were found. */
static void judge(lupe_frame_names *n, const lupe_line_module *m, bool progress) {
  uint8_t *tries = &n->line_tries[m->module];
  if (!m->started || m->status == LUPE_OK || m->status == LUPE_ENOMEM) return;
  if (m->status == LUPE_EAGAIN) {
    *tries = progress ? 0 : *tries + 1;
    if (*tries < LINE_TRIES_MAX) return;
    n->figures.too_slow++;
  } else if (m->status == LUPE_EFULL) {
    n->figures.too_large++;
  } else if (m->status != LUPE_ENOENT) {
    n->figures.damaged++;
  }
  *tries = NO_LINES;
}

void lupe_frame_names_locate(lupe_frame_names *n, lupe_line_batch *batch) {
  for (size_t i = 0; i < batch->module_count; i++) {
    const lupe_line_module *m = &batch->modules[i];
    bool progress = false;
    for (size_t k = m->first; k < m->first + m->count; k++) progress |= is_found(&batch->answers[k]);
    judge(n, m, progress);
    bool again = m->status == LUPE_EAGAIN && n->line_tries[m->module] != NO_LINES;
    for (size_t k = m->first; k < m->first + m->count; k++) {
      const lupe_line_answer *answer = &batch->answers[k];
      if (!is_found(answer)) {
        lupe_frame_lines_set_state(&n->lines, answer->frame, again ? LUPE_LINE_UNASKED : LUPE_LINE_KNOWN);
        continue;
      }
      lupe_frame_lines_take(&n->lines, batch, answer);
      n->figures.located += answer->line > 0;
      lupe_function *function = &n->functions[n->frames[answer->frame].function];
      if (function->line > 0 || answer->definition_line == 0) continue;
      function->line = answer->definition_line;
      function->file = lupe_text_store_put(
          &n->lines.texts, lupe_text_store_at(&batch->texts, answer->definition_file), LUPE_LINE_TEXT_BYTES);
    }
  }
  lupe_line_batch_free(batch);
}

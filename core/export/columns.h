/* columns.h -- a snapshot's columns as typed arrays, for what writes them in other formats.
 * Borrowed from the snapshot: valid as long as that is. Only what the store built, or lupe_snapshot_map has
 * validated, may be read this way. */
#ifndef LUPE_EXPORT_COLUMNS_H
#define LUPE_EXPORT_COLUMNS_H

#include <stdbool.h>
#include <string.h>

#include "core/store/snapshot.h"

enum { LUPE_NO_STACK = UINT32_MAX };

typedef struct lupe_columns {
  const lupe_snapshot_header *header;
  const char *strings;
  const lupe_snapshot_target *targets;
  const lupe_snapshot_module *modules;
  const lupe_snapshot_function *functions;
  const lupe_snapshot_frame *frames;
  const lupe_snapshot_inline *inlines;
  const lupe_snapshot_thread *threads;
  const uint32_t *stack_first, *stack_frames;
  const double *inuse_space, *inuse_objects, *alloc_space, *alloc_objects; /* by stack */
  const uint32_t *sample_stack, *sample_thread, *sample_state;
  const double *sample_count, *sample_ns;
  size_t target_count, module_count, function_count, frame_count, stack_count,
      row_count; /* rows: of samples */
} lupe_columns;

static inline lupe_columns lupe_columns_of(const lupe_snapshot *s) {
  const lupe_snapshot_header *h = lupe_snapshot_block(s);
  const char *bytes = (const char *)h;
#define AT(field) ((const void *)(bytes + h->field.offset))
  lupe_columns c = {
      .header = h,
      .strings = AT(strings),
      .targets = AT(targets),
      .modules = AT(modules),
      .functions = AT(functions),
      .frames = AT(frames),
      .inlines = AT(inlines),
      .threads = AT(threads),
      .stack_first = AT(stack_first),
      .stack_frames = AT(stack_frames),
      .inuse_space = AT(stack_inuse_space),
      .inuse_objects = AT(stack_inuse_objects),
      .alloc_space = AT(stack_alloc_space),
      .alloc_objects = AT(stack_alloc_objects),
      .sample_stack = AT(sample_stack),
      .sample_thread = AT(sample_thread),
      .sample_state = AT(sample_state),
      .sample_count = AT(sample_count),
      .sample_ns = AT(sample_ns),
      .target_count = h->targets.count,
      .module_count = h->modules.count,
      .function_count = h->functions.count,
      .frame_count = h->frames.count,
      .stack_count = h->stack_site.count,
      .row_count = h->sample_thread.count,
  };
#undef AT
  return c;
}

#define LUPE_TAG_MODULE "[tag]" /* whose functions are tags: what a program says its work is for */

static inline bool lupe_frame_is_tag(const lupe_columns *c, uint32_t frame) {
  const lupe_snapshot_function *f = &c->functions[c->frames[frame].function];
  return strcmp(c->strings + c->modules[f->module].path, LUPE_TAG_MODULE) == 0;
}

/* Tags are the outermost frames of a stack, the innermost tag first: where in stack_frames they begin (its
 * end: it has none). A stack of nothing but tags keeps the first one as a frame. */
static inline uint32_t lupe_stack_tags(const lupe_columns *c, uint32_t stack) {
  uint32_t first = c->stack_first[stack], at = c->stack_first[stack + 1];
  while (at > first + 1 && lupe_frame_is_tag(c, c->stack_frames[at - 1])) at--;
  return at;
}

/* Where in stack_frames the frames of a heap profile's stack begin: allocators and their wrappers, which tell
 * nothing that is not true of all stacks, are left out. They end where its tags begin. */
static inline uint32_t lupe_heap_stack_first(const lupe_columns *c, uint32_t stack) {
  uint32_t first = c->stack_first[stack], behind = lupe_stack_tags(c, stack);
  for (uint32_t i = first; i < behind; i++) {
    if (!c->functions[c->frames[c->stack_frames[i]].function].wrapper) return i;
  }
  return behind > first ? behind - 1 : first;
}

#endif

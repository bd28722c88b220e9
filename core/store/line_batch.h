/* line_batch.h -- frames whose lines are to be looked for, taken out of the store, and what was found.
 * Made and taken back by frame_names.c under the aggregator's `work`; between these it belongs to the job
 * that resolves it, on any thread, without a lock: that takes long, and reads files. */
#ifndef LUPE_STORE_LINE_BATCH_H
#define LUPE_STORE_LINE_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/text_store.h"

/* A frame, and what was found of it: nothing where all of that is 0. */
typedef struct lupe_line_answer {
  uint64_t address;                                      /* in the file's own address space */
  uint32_t frame;                                        /* index in the stack table */
  uint32_t file, line, definition_file, definition_line; /* text numbers of the batch */
  uint32_t inline_first, inline_count;                   /* of its inlines, innermost first */
} lupe_line_answer;

typedef struct lupe_line_module {
  uint16_t module;
  char *path, *alternative, *build_id; /* as lupe_symbolizer_open has them; own copies */
  size_t first, count;                 /* of its answers, by address ascending */
  /* LUPE_OK: all were looked for. LUPE_EAGAIN: there was no time for all of them; what was found holds. Else
   * there are no lines to be had of this file, as lupe_source_lines_open says. */
  lupe_status status;
  bool started; /* false: there was no time for it at all */
} lupe_line_module;

typedef struct lupe_line_inline {
  uint32_t name, file, line; /* text numbers */
} lupe_line_inline;

typedef struct lupe_line_batch {
  lupe_line_module *modules;
  size_t module_count, module_capacity;
  lupe_line_answer *answers;
  size_t answer_count, answer_capacity;
  lupe_line_inline *inlines;
  size_t inline_count, inline_capacity;
  lupe_text_store texts;
  const char *debug_root; /* borrowed */
} lupe_line_batch;

lupe_status lupe_line_batch_create(lupe_line_batch **out, const char *debug_root);
void lupe_line_batch_free(lupe_line_batch *b); /* NULL is a no-op */

/* The frames added next are of this module. Strings are copied; `alternative` and `build_id` may be NULL. */
lupe_status lupe_line_batch_add_module(lupe_line_batch *b, uint16_t module, const char *path,
                                       const char *alternative, const char *build_id);
/* By address ascending, within a module. */
lupe_status lupe_line_batch_add(lupe_line_batch *b, uint32_t frame, uint64_t address);

/* Looks for all of them, at most until `deadline_ns` of CLOCK_MONOTONIC, and in one file, once it was read,
 * no longer than `file_ns`. */
void lupe_line_batch_resolve(lupe_line_batch *b, int64_t deadline_ns, int64_t file_ns);

#endif

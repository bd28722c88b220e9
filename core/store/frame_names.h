/* frame_names.h -- the function of every frame in a stack table, its file, line and inlined calls, and which
 * functions are wrappers.
 * Owner: the aggregator. Thread: one at a time (its `work`): reads programs' files through the symbolizer.
 * Functions are found by (module, start) and numbered as they come; numbers are never reused.
 * Names are there at once. Lines are found by batches that are taken out, resolved without `work`, and taken
 * back; a frame is a place in a file, so what many processes share is looked for once. */
#ifndef LUPE_STORE_FRAME_NAMES_H
#define LUPE_STORE_FRAME_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/aggregator.h"
#include "core/store/frame_lines.h"
#include "core/store/line_batch.h"
#include "core/store/module_table.h"
#include "core/store/stack_table.h"
#include "core/store/text_store.h"

typedef struct lupe_frame_names lupe_frame_names;

typedef struct lupe_function {
  const char *name; /* the symbolizer's, or static */
  uint64_t start;
  uint16_t module;
  bool named, wrapper, tag;
  uint32_t file, line; /* where it is defined: text number of the lines; 0 unknown, or not looked for yet */
} lupe_function;

typedef struct lupe_named_frame {
  uint64_t address; /* in the file's own address space */
  uint32_t function;
  uint16_t module;
} lupe_named_frame;

/* Both tables are borrowed and must outlive it. */
lupe_status lupe_frame_names_create(lupe_frame_names **out, lupe_stack_table *stacks,
                                    lupe_module_table *modules);
void lupe_frame_names_free(lupe_frame_names *n); /* NULL is a no-op */

/* See lupe_aggregator_set_wrappers. */
lupe_status lupe_frame_names_set_wrappers(lupe_frame_names *n, const lupe_wrapper *wrappers, size_t count);

/* Names the frames that the stack table got since the last call. LUPE_ENOMEM: some are still to do. */
lupe_status lupe_frame_names_update(lupe_frame_names *n);

/* Valid until the next update; by frame index of the stack table, and by function number. */
const lupe_named_frame *lupe_frame_names_frames(const lupe_frame_names *n, uint32_t *out_count);
const lupe_function *lupe_frame_names_functions(const lupe_frame_names *n, uint32_t *out_count);
/* Frames of this module are tags: their offset is the number of their name in `names` (borrowed), and their
 * function has that name. They are never wrappers. */
void lupe_frame_names_set_tags(lupe_frame_names *n, uint16_t module, const lupe_text_store *names);
/* The number of the function around `frame`, in no stack perhaps. LUPE_ENOENT for LUPE_FRAME_UNKNOWN. */
lupe_status lupe_frame_names_function(lupe_frame_names *n, lupe_frame frame, uint32_t *out);
/* Names the function around `frame` as LUPE_MEMORY_FUNCTION_NAMES of message.h has it, unless it has a symbol
 * or was named so before. */
lupe_status lupe_frame_names_name_memory(lupe_frame_names *n, lupe_frame frame, uint32_t index);

/* -- lines ------------------------------------------------------------------------------------ */

/* These frames' lines are the first to be looked for. */
void lupe_frame_names_want_lines(lupe_frame_names *n, const uint32_t *frames, size_t count);
/* Takes out at most `most` frames whose lines were not looked for; *out is NULL where there are none, or,
 * with `wanted`, none of those that come first. Give it back, resolved or not. LUPE_ENOMEM. */
lupe_status lupe_frame_names_unlocated(lupe_frame_names *n, bool wanted, size_t most, lupe_line_batch **out);
/* Takes over what the batch found, and frees it. */
void lupe_frame_names_locate(lupe_frame_names *n, lupe_line_batch *batch);
/* By frame index, for as many frames as it has; valid until the next update or locate. */
const lupe_frame_lines *lupe_frame_names_lines(const lupe_frame_names *n);

void lupe_frame_names_line_figures(const lupe_frame_names *n, lupe_line_figures *out);

/* The module's build id as hex; "" where it has none. Reads the file on first use. */
const char *lupe_frame_names_build_id(lupe_frame_names *n, uint16_t module);

#endif

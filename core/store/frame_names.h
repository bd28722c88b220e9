/* frame_names.h -- the function of every frame in a stack table, and which functions are wrappers.
 * Owner: the aggregator. Thread: one at a time (its `work`): reads programs' files through the symbolizer.
 * Functions are found by (module, start) and numbered as they come; numbers are never reused. */
#ifndef LUPE_STORE_FRAME_NAMES_H
#define LUPE_STORE_FRAME_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/aggregator.h"
#include "core/store/module_table.h"
#include "core/store/stack_table.h"

typedef struct lupe_frame_names lupe_frame_names;

typedef struct lupe_function {
  const char *name; /* the symbolizer's, or static */
  uint64_t start;
  uint16_t module;
  bool named, wrapper;
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
/* The module's build id as hex; "" where it has none. Reads the file on first use. */
const char *lupe_frame_names_build_id(lupe_frame_names *n, uint16_t module);

#endif

/* stack_table.h -- interns call stacks, so that later stages carry a 32-bit id.
 * A store frame is a uint64_t: module id << 48 | offset in the module's file, of an address inside the
 * calling instruction (address_map.h makes them). A stack is kept as 32-bit indexes into a table of
 * distinct frames, since most stacks share most of their frames.
 * Threads: any; the table's own mutex is held for one call. Frame indexes are never reused. Ids are valid
 * until lupe_stack_table_keep: in a run, under the aggregator's `work` until the next sweep (sweep.c).
 * Bounded by `memory_limit_bytes`: past it every new stack becomes LUPE_STACK_OVERFLOW and is counted. */
#ifndef LUPE_STORE_STACK_TABLE_H
#define LUPE_STORE_STACK_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

typedef uint64_t lupe_frame;

enum {
  LUPE_STACK_OVERFLOW = 0, /* the stack that stands for all that found no room: one LUPE_FRAME_OVERFLOW */
};
#define LUPE_FRAME_UNKNOWN UINT64_C(0)  /* code that belongs to no file: JIT, or unmapped since */
#define LUPE_FRAME_OVERFLOW UINT64_C(1) /* the only frame of LUPE_STACK_OVERFLOW */

typedef struct lupe_stack_table lupe_stack_table;

/* LUPE_ENOMEM where there is no memory, LUPE_EINVAL for a limit below 64 KiB. */
lupe_status lupe_stack_table_create(lupe_stack_table **out, size_t memory_limit_bytes);
void lupe_stack_table_free(lupe_stack_table *t); /* NULL is a no-op */

/* Interns `frames` (leaf first, copied); the id goes to *out_id: LUPE_STACK_OVERFLOW when the table is
 * full. Returns LUPE_OK, or LUPE_EINVAL for a depth of 0 or above LUPE_MAX_FRAMES. */
lupe_status lupe_stack_table_intern(lupe_stack_table *t, const lupe_frame *frames, size_t depth,
                                    uint32_t *out_id);

/* The same for a stack of a CPU or wall sample: new ones find room up to 13/16 of the limit only, so that
 * they never leave none for the heap's. */
lupe_status lupe_stack_table_intern_sample(lupe_stack_table *t, const lupe_frame *frames, size_t depth,
                                           uint32_t *out_id);

/* Removes all stacks but LUPE_STACK_OVERFLOW and those for which ids[id] is not 0 (one for each id below
 * lupe_stack_table_stacks), whose new ids are written there, in the same order. Frames stay. Takes as long as
 * the whole table is large: 3 ms for 150,000 stacks; nobody else may use an id meanwhile. */
void lupe_stack_table_keep(lupe_stack_table *t, uint32_t *ids);

/* The frame indexes of a stack, leaf first; they stay valid until lupe_stack_table_keep.
 * LUPE_ENOENT for an id that was never given out. */
lupe_status lupe_stack_table_get(lupe_stack_table *t, uint32_t id, const uint32_t **out_frames,
                                 size_t *out_depth);

/* The frame of an index; LUPE_FRAME_UNKNOWN for an index that was never given out. */
lupe_frame lupe_stack_table_frame(lupe_stack_table *t, uint32_t index);

uint32_t lupe_stack_table_stacks(lupe_stack_table *t);    /* with LUPE_STACK_OVERFLOW: at least 1 */
uint32_t lupe_stack_table_frames(lupe_stack_table *t);    /* distinct frames: at least 1 */
uint64_t lupe_stack_table_overflows(lupe_stack_table *t); /* never waits */
size_t lupe_stack_table_bytes(lupe_stack_table *t);
size_t lupe_stack_table_limit(const lupe_stack_table *t); /* the least that a table takes, at least */

#endif

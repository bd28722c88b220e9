/* sample_rows.h -- which of a snapshot's CPU and wall samples belong to which profile. */
#ifndef LUPE_EXPORT_SAMPLE_ROWS_H
#define LUPE_EXPORT_SAMPLE_ROWS_H

#include <stdbool.h>

#include "core/export/columns.h"
#include "core/wire/record.h"

static inline uint32_t lupe_row_state(const lupe_columns *c, size_t row) {
  return c->sample_state[row] & 0xff;
}

static inline bool lupe_row_is_cpu(const lupe_columns *c, size_t row) {
  return lupe_row_state(c, row) == LUPE_THREAD_USER || lupe_row_state(c, row) == LUPE_THREAD_KERNEL;
}

/* Of a wall profile: CPU samples say where time on a core went; without them, that a thread was on one. */
static inline bool lupe_row_is_wall(const lupe_columns *c, size_t row) {
  return lupe_row_is_cpu(c, row) || lupe_row_state(c, row) == LUPE_THREAD_WAITING ||
         (c->header->cpu_hz == 0 && lupe_row_state(c, row) == LUPE_THREAD_RUNNING);
}

#endif

/* series.h -- a ring of memory figures: the newest rows, oldest first. Grows as rows come, up to its
 * capacity; then the oldest row goes. Owner: the aggregator, which locks around it. */
#ifndef LUPE_STORE_SERIES_H
#define LUPE_STORE_SERIES_H

#include <stdbool.h>
#include <stddef.h>

#include "core/lupe.h"
#include "core/store/snapshot_layout.h"

typedef struct lupe_series lupe_series;

/* LUPE_EINVAL for a capacity of 0. */
lupe_status lupe_series_create(lupe_series **out, size_t capacity);
void lupe_series_free(lupe_series *s); /* NULL is a no-op */

/* Adds a copy. With `may_grow` false, or without memory to grow, it takes the oldest row's place;
 * where there is none yet it is lost: false. */
bool lupe_series_append(lupe_series *s, const lupe_memory_figures *row, bool may_grow);

size_t lupe_series_count(const lupe_series *s);
size_t lupe_series_room(const lupe_series *s); /* rows that memory is held for */
/* Copies the newest rows, at most `capacity`, oldest of them first; returns how many. */
size_t lupe_series_copy(const lupe_series *s, lupe_memory_figures *rows, size_t capacity);

#endif

/* heap_dump.h -- reads one process's heap_v2 dump from a descriptor into interned stacks.
 * The mappings stand at the end of a dump and are needed for its first stack: they are looked for from
 * the end and read first. Thread: the pool; reads by pread, so it may share the descriptor. */
#ifndef LUPE_STORE_HEAP_DUMP_H
#define LUPE_STORE_HEAP_DUMP_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/address_map.h"
#include "core/store/heap_profile.h"
#include "core/store/stack_table.h"

typedef struct lupe_heap_dump {
  lupe_heap_entry *entries; /* owned; free with lupe_heap_dump_clear */
  size_t count, capacity;
  uint64_t period_bytes;
  double sampling_bytes; /* see lupe_memory_figures: what the samples occupy beyond their sizes */
} lupe_heap_dump;

/* Reads the dump; `map` has its mappings afterwards, even where the stacks turn out to be malformed.
 * Returns LUPE_OK, LUPE_ENOMEM, LUPE_EIO (errno), LUPE_EAGAIN (it is unwanted), or LUPE_ECORRUPT, with what
 * was wrong in `why` (always terminated). *out is written on LUPE_OK only. */
lupe_status lupe_heap_dump_read(int fd, lupe_address_map *map, lupe_stack_table *stacks, lupe_heap_dump *out,
                                char *why, size_t why_bytes);
void lupe_heap_dump_clear(lupe_heap_dump *d);

/* Translates and interns one stack of return addresses, 1 .. LUPE_MAX_FRAMES of them. */
uint32_t lupe_heap_dump_intern(const lupe_address_map *map, lupe_stack_table *stacks,
                               const uint64_t *addresses, size_t depth);

#endif

/* proof.h -- reads the block of one leak proof (core/wire/proof.h) and sums it by stack. It comes from
 * another process and is believed in nothing: whatever breaks its form refuses it as a whole, before any of
 * it is used. Thread: the pool, one at a time (the aggregator's `work`). */
#ifndef LUPE_STORE_PROOF_H
#define LUPE_STORE_PROOF_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/address_map.h"
#include "core/store/stack_table.h"
#include "core/wire/proof.h"

enum {
  LUPE_PROOF_BYTES_MAX = 256 << 20, /* of a block: some six million objects. While it is summed, as many bytes
                                       again at most */
};

/* What a proof says of the objects that one stack allocated. Counts are of sampled objects; objects and bytes
 * are scaled from those. */
typedef struct lupe_proof_row {
  uint32_t stack;        /* id in the stack table */
  uint32_t holder_stack; /* likewise, or LUPE_PROOF_NONE; see lupe_snapshot_proof_row. That stack has a row
                            too, as holders and heads are sampled objects */
  uint32_t head_stack;   /* likewise */
  uint32_t held, groups, largest_behind;
  uint32_t counts[LUPE_PROOF_STATES];
  double objects, bytes;
  double unreachable_objects, unreachable_bytes;
  double objects_variance, bytes_variance; /* of the two: an object that is seen with probability p adds
                                              (1 - p) / p^2, times its size squared for the bytes */
} lupe_proof_row;

typedef struct lupe_proof {
  lupe_proof_head head;
  lupe_proof_row *rows; /* by stack id ascending; owned, lupe_proof_clear frees them */
  size_t count;
} lupe_proof;

/* Reads the block in `fd` (borrowed; a memfd that is sealed against writing and shrinking). Stacks are
 * translated by `map` and interned in `stacks`; two that become the same share a row. *out is written on
 * LUPE_OK only. LUPE_ECORRUPT, with what was wrong in `why` (always terminated); LUPE_ENOMEM; LUPE_EIO. */
lupe_status lupe_proof_read(int fd, const lupe_address_map *map, lupe_stack_table *stacks, lupe_proof *out,
                            char *why, size_t why_bytes);
/* The same of a block in memory, aligned to 8 bytes, that does not change meanwhile. */
lupe_status lupe_proof_sum(const void *block, size_t bytes, const lupe_address_map *map,
                           lupe_stack_table *stacks, lupe_proof *out, char *why, size_t why_bytes);
/* Afterwards it has no rows. */
void lupe_proof_clear(lupe_proof *p);

/* Stack `id` is known as ids[id] from now on, in the same order. */
void lupe_proof_renumber(lupe_proof *p, const uint32_t *ids);

#endif

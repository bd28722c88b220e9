/* proof_mappings.h -- a process's mappings, as /proc tells of them, one at a time.
 * Thread: any; allocates nothing, keeps nothing. */
#ifndef LUPE_AGENT_PROOF_MAPPINGS_H
#define LUPE_AGENT_PROOF_MAPPINGS_H

#include <stdbool.h>
#include <stdint.h>

/* Addresses from `lo` up to, not including, `hi`. */
typedef struct lupe_proof_span {
  uint64_t lo, hi;
} lupe_proof_span;

enum { LUPE_PROOF_PATH_BYTES = 192 };

typedef struct lupe_proof_mapping {
  lupe_proof_span span;
  bool readable, writable, executable, shared;
  bool anonymous;                    /* no file behind it */
  bool filled, swapped;              /* some of it is in memory or swapped out; of smaps, false of maps */
  char path[LUPE_PROOF_PATH_BYTES];  /* cut to its end; "" where there is none; "[stack]" and the like */
  char flags[LUPE_PROOF_PATH_BYTES]; /* " rd wr mr ... ", of smaps; "" of maps */
} lupe_proof_mapping;

/* Reads maps or smaps by its path and calls `take` for each mapping, addresses ascending. False: it cannot be
 * read, or not to its end. */
bool lupe_proof_mappings_read(const char *path, void (*take)(void *arg, const lupe_proof_mapping *m),
                              void *arg);

/* Whether a flag of smaps ("dc") is set. */
bool lupe_proof_mapping_has(const lupe_proof_mapping *m, const char *flag);

#endif

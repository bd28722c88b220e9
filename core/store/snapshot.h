/* snapshot.h -- an immutable block of columns (snapshot_layout.h) in a sealed memfd.
 * Owner: whoever holds a reference. Nothing in it ever changes, so any thread may read without a lock;
 * retain and release are atomic. The descriptor may be passed to another process, which maps it by
 * lupe_snapshot_map. */
#ifndef LUPE_STORE_SNAPSHOT_H
#define LUPE_STORE_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/lupe.h"
#include "core/store/snapshot_layout.h"

#define LUPE_SNAPSHOT_MAGIC UINT64_C(0x31504e534550554c) /* "LUPESNP1" */
enum {
  LUPE_SNAPSHOT_VERSION = 6,
  LUPE_SNAPSHOT_TICKS_MAX = 60,
};

typedef struct lupe_snapshot lupe_snapshot;

/* Maps a snapshot from a descriptor that came from elsewhere (borrowed, duplicated with CLOEXEC) and
 * validates it. LUPE_ECORRUPT where it is not a snapshot, is not sealed against writing and shrinking
 * and `sealed_only` is true, or breaks a bound; LUPE_EVERSION; LUPE_EIO (errno). */
lupe_status lupe_snapshot_map(int fd, bool sealed_only, lupe_snapshot **out);

lupe_snapshot *lupe_snapshot_retain(lupe_snapshot *s); /* returns s; NULL is a no-op */
void lupe_snapshot_release(lupe_snapshot *s);          /* NULL is a no-op */

const lupe_snapshot_header *lupe_snapshot_block(const lupe_snapshot *s); /* the columns start here */
size_t lupe_snapshot_bytes(const lupe_snapshot *s);
int lupe_snapshot_fd(const lupe_snapshot *s); /* borrowed */

/* True that every offset, count, index and string of the block is safe to follow and that no figure
 * is NaN or infinite: LUPE_OK. Otherwise LUPE_ECORRUPT or LUPE_EVERSION, and *why (may be NULL) names
 * the first thing that is wrong, in static text. The block must not change meanwhile. */
lupe_status lupe_snapshot_validate(const void *bytes, size_t size, const char **why);

/* For the builder. A writable block of `bytes` zeroes; seal it before any other call here. */
lupe_status lupe__snapshot_create(size_t bytes, lupe_snapshot **out, void **out_block);
/* Takes the write access away for good; the block pointer of create is invalid from then on. */
lupe_status lupe__snapshot_seal(lupe_snapshot *s);

#endif

/* ring.h -- the shared segment at work: its creation and mapping, the ring of records in it, and the
 * seqlock around the allocator's figures. The layout is record.h's.
 *
 * The agent creates the segment and pushes (many threads); one reader in the runtime pops. Neither side
 * ever waits for the other: a full ring drops and counts, an empty one says LUPE_EAGAIN.
 *
 * The agent's side works with the constants of record.h. The reader keeps its own copy of every offset
 * and of the tail, and believes nothing in the segment: whatever the agent's process writes there, a
 * read stays inside the mapping, and a record comes out whole and within bounds, or not at all. */
#ifndef LUPE_WIRE_RING_H
#define LUPE_WIRE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/wire/record.h"

enum {
  LUPE_RING_OFFSET = (sizeof(lupe_segment) + 63) & ~63,
  LUPE_SEGMENT_BYTES = (LUPE_RING_OFFSET + LUPE_RING_BYTES + 4095) & ~4095,
};

/* One record, copied out of the ring. `frames` holds `depth` return addresses, leaf first. */
typedef struct lupe_record_copy {
  uint8_t kind; /* lupe_record_kind, never LUPE_RECORD_PADDING */
  uint8_t flags;
  uint16_t depth; /* 0..LUPE_MAX_FRAMES */
  uint32_t tid;
  uint32_t weight, state;
  union {
    uint32_t switches, period_ns;
  };
  uint64_t time_ns;
  uint64_t frames[LUPE_MAX_FRAMES];
} lupe_record_copy;

/* Makes a new, empty segment: a memfd (CLOEXEC) whose size is sealed and whose pages are all there
 * already, so that a push never waits for memory. The caller closes *out_fd and unmaps *out.
 * LUPE_ENOMEM or LUPE_EIO (errno tells). Thread: any. */
lupe_status lupe_segment_create(int *out_fd, lupe_segment **out);

/* NULL is a no-op. No thread may push or read any more. */
void lupe_segment_unmap(lupe_segment *s);

/* Puts one record (the fields of `fields`, then its `depth` frames) into the ring. A depth above
 * LUPE_MAX_FRAMES is cut and flagged. Returns false and counts a drop when the ring is full.
 * Thread: any, also inside malloc and in signal handlers: no lock, no allocation, no system call. */
bool lupe_ring_push(lupe_segment *s, const lupe_record *fields, const uint64_t *frames);

/* Publishes a new reading (all but `sequence` is copied). Thread: one writer, the agent's. */
void lupe_segment_publish_figures(lupe_segment *s, const lupe_allocator_figures *figures);

/* The runtime's end. Thread: all functions below from one thread at a time (the loop). */
typedef struct lupe_ring_reader lupe_ring_reader;

/* Maps the segment behind `segment_fd`, which stays the caller's and may be closed afterwards.
 * LUPE_ECORRUPT: not a sealed segment of the right form; LUPE_EVERSION: of another version of the wire;
 * LUPE_ENOMEM, LUPE_EIO. */
lupe_status lupe_ring_reader_create(lupe_ring_reader **out, int segment_fd);
void lupe_ring_reader_free(lupe_ring_reader *r); /* NULL is a no-op */

/* Takes the oldest record out. LUPE_OK; LUPE_EAGAIN: nothing there; LUPE_ECORRUPT: what is there breaks
 * the format, all of it was thrown away and counted, and reading goes on behind it. A process can make
 * every call answer LUPE_ECORRUPT: bound the calls per round. */
lupe_status lupe_ring_reader_pop(lupe_ring_reader *r, lupe_record_copy *out);

/* How often LUPE_ECORRUPT was answered, a record left unfinished for good (its thread was killed while
 * it wrote) included. */
uint64_t lupe_ring_reader_corruptions(const lupe_ring_reader *r);

/* The agent's counters: live, shared memory; load each with atomic_load. Valid until the reader is freed. */
const lupe_counters *lupe_ring_reader_counters(const lupe_ring_reader *r);

/* Copies the newest figures. LUPE_EAGAIN: none yet, or the agent kept writing (or died writing);
 * LUPE_ECORRUPT: more size classes than there can be. */
lupe_status lupe_ring_reader_figures(const lupe_ring_reader *r, lupe_allocator_figures *out);

#endif

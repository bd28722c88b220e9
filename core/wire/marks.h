/* marks.h -- the second shared segment between an agent and the runtime: the names that a program marks its
 * work with, and what its spans sum up to. Owner: the agent creates it as a sealed memfd (no shrinking), one
 * for each runtime that it speaks with, and passes it with LUPE_MARKS, right after its HELLO; an agent that
 * has not the memory for it says nothing. Pages that nothing was written to take no memory. Everything the
 * runtime reads here is untrusted.
 *
 * A name's number is its index in `names`, and never means another one in the process's life. Its text may
 * come a moment after its first use. A tag is a frame of a stack, behind the thread's first function:
 * LUPE_TAG_FRAME | number, innermost first. No code has such an address.
 *
 * A block is written by one thread at a time, by plain loads and stores, and only ever counts up: what the
 * runtime sees is the sum of all blocks of a name, and the difference to what it saw before. A block whose
 * thread has ended goes on with the next thread that spans under its name. */
#ifndef LUPE_WIRE_MARKS_H
#define LUPE_WIRE_MARKS_H

#include <stdatomic.h>
#include <stdint.h>

enum {
  LUPE_MARKS_VERSION = 1,
  LUPE_MARK_NAMES_MAX = 1024, /* the last one is "(others)", shared by all that came too late */
  LUPE_MARK_NAME_BYTES = 96,  /* with the NUL; cut to size */
  LUPE_SPAN_BLOCKS_MAX = 8192,
  LUPE_SPAN_BUCKETS = 160, /* of durations, as lupe_snapshot_span has them */
};
#define LUPE_MARKS_MAGIC UINT64_C(0x314b52414d50554c) /* "LUPMARK1" */
#define LUPE_TAG_FRAME UINT64_C(0xffffff7a60000000)   /* | number; the lower 20 bits are the number's */
#define LUPE_TAG_FRAME_MASK UINT64_C(0xfffffffffff00000)

typedef struct lupe_mark_name {
  _Atomic uint32_t state; /* 0 free, or still to come; 2 is there and does not change any more */
  uint32_t unused;
  _Atomic uint64_t place; /* a return address inside the function that began its first span; 0: none did */
  char text[LUPE_MARK_NAME_BYTES];
} lupe_mark_name;

typedef struct lupe_span_block {
  _Atomic uint32_t name;  /* its number + 1; 0: unused. Never changes once set */
  _Atomic uint32_t epoch; /* the segment's, when `longest_ns` was begun anew */
  _Atomic uint64_t count, total_ns;
  _Atomic uint64_t longest_ns; /* in that epoch */
  _Atomic uint64_t buckets[LUPE_SPAN_BUCKETS];
} lupe_span_block;

typedef struct lupe_marks {
  uint64_t magic;
  uint32_t version, bytes;      /* the whole, in pages of 4 KiB */
  _Atomic uint32_t name_count;  /* names below this may be there */
  _Atomic uint32_t block_count; /* blocks below this may be in use */
  _Atomic uint32_t epoch;       /* the runtime counts it up whenever it has read; the agent only reads it */
  uint32_t unused;
  _Atomic uint64_t names_lost; /* looked up when there was no number left for them */
  _Atomic uint64_t spans_lost; /* that found no block */
  _Alignas(64) lupe_mark_name names[LUPE_MARK_NAMES_MAX];
  _Alignas(64) lupe_span_block blocks[LUPE_SPAN_BLOCKS_MAX];
} lupe_marks;

enum { LUPE_MARKS_BYTES = (sizeof(lupe_marks) + 4095) & -4096 }; /* of a segment: whole pages */

#endif

/* unwind_cfi.h -- reads a module's call frame information (.eh_frame_hdr, .eh_frame) and turns it into a row.
 * All bytes come through a reader that the caller gives, and all are untrusted: lengths, pointers and
 * programs may be anything. Owns nothing, allocates nothing, at most about 1.5 KiB of stack. Thread: any,
 * also signal handlers. */
#ifndef LUPE_AGENT_UNWIND_CFI_H
#define LUPE_AGENT_UNWIND_CFI_H

#include <stddef.h>
#include <stdint.h>

#include "core/agent/unwind_x86_64.h"

/* Copies up to `bytes` from `address` to `to`; returns how many could be read (0 for none). */
typedef size_t (*lupe_cfi_reader)(void *context, uint64_t address, void *to, size_t bytes);

typedef struct lupe_cfi_image {
  uint64_t start, end; /* the module's mapped range; nothing outside is ever asked for */
  uint64_t header;     /* .eh_frame_hdr */
  lupe_cfi_reader read;
  void *context;
} lupe_cfi_image;

/* The row for the instruction at `at` (for a return address: one byte before it). Returns LUPE_ROW_UNCOVERED
 * where the module says nothing about that address, LUPE_ROW_UNKNOWN where what it says is malformed or does
 * not fit a row, LUPE_ROW_EMPTY where bytes of it could not be read (so that a later try may succeed). */
lupe_row lupe_cfi_row(const lupe_cfi_image *image, uint64_t at);

#endif

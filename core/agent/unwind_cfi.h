/* unwind_cfi.h -- reads a module's call frame information (.eh_frame_hdr, .eh_frame) and turns it into a row.
 * All bytes come through a reader that the caller gives, and all are untrusted: lengths, pointers and
 * programs may be anything. Owns nothing, allocates nothing, at most about 1.5 KiB of stack. Thread: any,
 * also signal handlers. */
#ifndef LUPE_AGENT_UNWIND_CFI_H
#define LUPE_AGENT_UNWIND_CFI_H

#include "core/agent/unwind_cursor.h"
#include "core/agent/unwind_x86_64.h"

/* The row for the instruction at `at` (for a return address: one byte before it). Returns LUPE_ROW_UNCOVERED
 * where the module says nothing about that address, LUPE_ROW_UNKNOWN where what it says is malformed or does
 * not fit a row, LUPE_ROW_EMPTY where bytes of it could not be read (so that a later try may succeed). */
lupe_row lupe_cfi_row(const lupe_cfi_image *image, uint64_t at);

#endif

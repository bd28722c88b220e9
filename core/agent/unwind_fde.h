/* unwind_fde.h -- finds the entry of .eh_frame that covers an address, by the table in .eh_frame_hdr.
 * Thread: any, also signal handlers. */
#ifndef LUPE_AGENT_UNWIND_FDE_H
#define LUPE_AGENT_UNWIND_FDE_H

#include "core/agent/unwind_cursor.h"

/* What several functions have in common. */
typedef struct lupe_cie {
  uint64_t code_align;
  int64_t data_align;
  uint64_t program, program_end;
  uint8_t pointer_encoding;
  bool augmented; /* 'z': its FDEs have an augmentation length */
  bool signal;    /* 'S': a signal frame */
} lupe_cie;

/* One function. */
typedef struct lupe_fde {
  lupe_cie common;
  uint64_t location; /* its first address */
  uint64_t program, program_end;
} lupe_fde;

/* False when there is none; the cursor's `failed` then tells why. */
bool lupe_fde_find(lupe_cursor *c, uint64_t at, lupe_fde *out);

#endif

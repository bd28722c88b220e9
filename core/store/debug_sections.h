/* debug_sections.h -- the debug information of one ELF file, copied into memory of our own.
 * libdw reads what it is given without a lock against change, and maps files where it opens them itself. So
 * the few sections that lines are made of are read by pread, unpacked, and laid out as a small ELF file: what
 * is truncated or rewritten meanwhile costs lines, and a reader that runs off the end of a section meets
 * zeroes. Thread: one at a time per copy. */
#ifndef LUPE_STORE_DEBUG_SECTIONS_H
#define LUPE_STORE_DEBUG_SECTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/elf_file.h"

enum { LUPE_DEBUG_ID_BYTES = 64 };

/* Embedded in its owner. All zero is no copy. */
typedef struct lupe_debug_sections {
  char *image; /* an ELF file; mapped, not malloced */
  size_t image_bytes;
  /* The file with what several debug files share (.gnu_debugaltlink, by dwz); "" none. */
  char shared_path[4096];
  char shared_build_id[2 * LUPE_DEBUG_ID_BYTES + 1]; /* hex */
} lupe_debug_sections;

/* Copies the debug sections of `f`. `shared`: it is a file of the kind that shared_path names. LUPE_ENOENT:
 * it has no .debug_info (a shared one need not); LUPE_EFULL: they are more than `limit_bytes`;
 * LUPE_EUNSUPPORTED: packed in a way that is not known; LUPE_ECORRUPT; LUPE_EIO; LUPE_ENOMEM.
 */
lupe_status lupe_debug_sections_read(lupe_debug_sections *out, lupe_elf_file *f, bool shared,
                                     size_t limit_bytes);
void lupe_debug_sections_clear(lupe_debug_sections *d);

#endif

/* source_lines.h -- file, line and inlined calls of the addresses of one program file, by libdw.
 * What is read is a private copy of the debug information (debug_sections.h): of the file itself, of its
 * separate debug file (DEBUG_ROOT/.build-id/xx/rest.debug, same build id), and of the file that several debug
 * files share (dwz). DWARF 2 to 5; units whose debug information lies elsewhere (split DWARF) have no lines.
 * Damage in it costs lines, never an error; so does what takes too long.
 * Thread: one at a time per opened file, and many files at once. Reads files, so never on the loop.
 * Memory: the copy, and what libdw makes of the line tables that were asked for; all of it until close. */
#ifndef LUPE_STORE_SOURCE_LINES_H
#define LUPE_STORE_SOURCE_LINES_H

#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

enum {
  LUPE_SOURCE_LINES_BYTES = 512 << 20, /* of debug information that is read for one file */
  LUPE_SOURCE_INLINES_MAX = 64,        /* of one address; outer ones beyond that are left out */
};

typedef struct lupe_source_lines lupe_source_lines;

typedef struct lupe_source_file {
  const char *path, *alternative, *build_id; /* as lupe_symbolizer_open has them */
  const char *debug_root;                    /* NULL: /usr/lib/debug */
  size_t limit_bytes;                        /* 0: LUPE_SOURCE_LINES_BYTES */
} lupe_source_file;

typedef struct lupe_source_call {
  const char *name; /* demangled; "" unknown */
  const char *file; /* "" unknown */
  uint32_t line;    /* 0 unknown */
} lupe_source_call;

/* What is known of one address. Texts are valid UTF-8 without control characters, and end with the file. */
typedef struct lupe_source_place {
  const char *file; /* of the function's own code: where it calls what is inlined; "" unknown */
  uint32_t line;
  const char *definition_file; /* of that function; "" unknown */
  uint32_t definition_line;
  const lupe_source_call *inlines; /* innermost first; the callback's only */
  size_t inline_count;
} lupe_source_place;

/* `index` is the address's in the list. Not called for an address of which nothing is known. */
typedef void (*lupe_source_lines_cb)(void *arg, size_t index, const lupe_source_place *place);

/* LUPE_ENOENT: no file is there, or none has debug information; LUPE_EFULL: it has more than the limit;
 * LUPE_EUNSUPPORTED: of a form that is not known; LUPE_ECORRUPT; LUPE_EIO; LUPE_ENOMEM. */
lupe_status lupe_source_lines_open(lupe_source_lines **out, const lupe_source_file *file);

/* Finds the places of `addresses` (of the file's own address space, inside an instruction; ascending). Calls
 * `found` for them, in any order. LUPE_EAGAIN: `deadline_ns` (of CLOCK_MONOTONIC) passed before all were
 * looked for; LUPE_ENOMEM. */
lupe_status lupe_source_lines_resolve(lupe_source_lines *s, const uint64_t *addresses, size_t count,
                                      int64_t deadline_ns, lupe_source_lines_cb found, void *arg);

void lupe_source_lines_close(lupe_source_lines *s); /* NULL is a no-op; gives all memory back */

#endif

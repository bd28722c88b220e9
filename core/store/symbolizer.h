/* symbolizer.h -- turns an offset in a program's file into the name of the function it lies in.
 *
 * Names: from the first of these tables that holds a function: the file's .symtab, the .symtab of its
 * separate debug file (DEBUG_ROOT/.build-id/xx/rest.debug, same build id), the file's .dynsym. C++ and
 * Rust names are demangled. Where no symbol covers an address the name is `module+0xSTART`, with the
 * module's base name and the function's start from .eh_frame_hdr, else the address itself: the same
 * from run to run. All code without a file ([anon], [heap], [stack], JIT) is one function per such module.
 * Of several symbols at one address: a function before an untyped label, an exported one (global or weak)
 * before a local one, fewer leading underscores, the shorter, the first by strcmp.
 *
 * Files are read by pread, never mapped: one that is truncated or rewritten under us cannot fault. A file
 * that is missing, not a 64-bit little-endian ELF, damaged, or not the one that the process runs costs names,
 * never an error: its functions are `module+0xOFFSET`.
 *
 * Owner: the aggregator. Thread: one at a time, any. Reads files, so never on the loop.
 * Memory: 16 bytes per symbol and 4 per function of each image that was asked for, and the names
 * that were handed out. Bounded: see the limits below. */
#ifndef LUPE_STORE_SYMBOLIZER_H
#define LUPE_STORE_SYMBOLIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/module_table.h"

enum {
  LUPE_SYMBOLIZER_MAX_IMAGES = 4096,
  LUPE_SYMBOLIZER_TABLE_BYTES = 64 << 20, /* of all symbol tables; past it images have no symbols */
  LUPE_SYMBOLIZER_NAME_BYTES = 32 << 20,  /* of all names; past it a function bears its module's name */
  LUPE_SYMBOLIZER_NAME_MAX = 1024,        /* bytes of one name with its NUL; longer ones are cut */
};

typedef struct lupe_symbolizer lupe_symbolizer;
typedef struct lupe_image lupe_image; /* one program file; lives as long as its symbolizer */

typedef struct lupe_symbol {
  const char *name; /* demangled, valid UTF-8 without control characters; never NULL; the symbolizer's */
  uint64_t start;   /* the function's first address, in the file's own address space */
  uint64_t address; /* the address asked for, in the file's own address space */
  bool named;       /* from a symbol table; false: `module+0xSTART` or the like */
} lupe_symbol;

/* What a long-lived symbolizer holds, for lupe's own report. */
typedef struct lupe_symbolizer_figures {
  uint64_t images, table_bytes, name_bytes;
  uint64_t refused; /* tables and names left out because a limit was reached */
} lupe_symbolizer_figures;

/* `debug_root`: where separate debug files are looked for; NULL is /usr/lib/debug. Copied. */
lupe_status lupe_symbolizer_create(lupe_symbolizer **out, const char *debug_root);
void lupe_symbolizer_free(lupe_symbolizer *s); /* NULL is a no-op; names and images end here */

/* The image of a module, made on first use and found again by (path, build_id, version). Opens nothing yet:
 * the tables are built by the first resolve.
 *   path         as /proc/PID/maps has it, " (deleted)" included; names the module. "" is anonymous code.
 *   alternative  another path to the same file, tried first, or NULL: /proc/PID/root/PATH for a program in
 *                another mount namespace, /proc/PID/exe for a deleted one.
 *   build_id     lower-case hex that the file must carry to be believed, or NULL where it is unknown. A file
 *                marked "(deleted)" is read from its alternative, or by its path if this id matches.
 *   version      NULL or all 0: not known. A file of another size or time of change is not believed.
 * Strings are copied. Returns LUPE_OK, LUPE_EINVAL (path NULL) or LUPE_ENOMEM (out of memory or of images).
 */
lupe_status lupe_symbolizer_open(lupe_symbolizer *s, const char *path, const char *alternative,
                                 const char *build_id, const lupe_file_version *version, lupe_image **out);

/* Names the function around `file_offset`, which lies inside an instruction of it (a return address
 * less one). `image` NULL is code of unknown origin, named [unknown]. Always fills *out: whatever a file
 * holds, and also when memory is short (then the name is the module's). */
void lupe_symbolizer_resolve(lupe_symbolizer *s, lupe_image *image, uint64_t file_offset, lupe_symbol *out);

/* The build id of the image's file as lower-case hex; "" where it has none or cannot be read.
 * Never NULL; the symbolizer's. Reads the file on first use. */
const char *lupe_symbolizer_build_id(lupe_symbolizer *s, lupe_image *image);

/* Where debug information of the image is to be looked for: the path that its file is to be opened by, and
 * its build id ("" none). NULL: there is no file, or it is another one by now. The symbolizer's; good until
 * the image is used again. */
const char *lupe_symbolizer_file(lupe_symbolizer *s, lupe_image *image, const char **out_build_id);
const char *lupe_symbolizer_debug_root(const lupe_symbolizer *s);

void lupe_symbolizer_figures_read(const lupe_symbolizer *s, lupe_symbolizer_figures *out);

#endif

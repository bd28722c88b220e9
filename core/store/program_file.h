/* program_file.h -- where the file of a module is read, and the separate debug file that belongs to it.
 * Thread: any. Opens and reads files, so never on the loop. */
#ifndef LUPE_STORE_PROGRAM_FILE_H
#define LUPE_STORE_PROGRAM_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/lupe.h"
#include "core/store/elf_file.h"

/* Bytes of a path of /proc/PID/maps without the kernel's remark " (deleted)". */
size_t lupe_program_path_bytes(const char *path);
/* Mappings that are no files: [heap] and its kind, nothing, shared and anonymous memory by its kernel names.
 * The vdso counts as a file. */
bool lupe_program_path_is_anonymous(const char *path);

/* Opens the file of a module: `path`, `alternative` and `build_id` as lupe_symbolizer_open has them.
 * LUPE_ENOENT: no file is there that may be believed. */
lupe_status lupe_program_file_open(const char *path, const char *alternative, const char *build_id,
                                   lupe_elf_file *out);

/* Opens the separate debug file of this very build, below `debug_root`; LUPE_ENOENT. */
lupe_status lupe_debug_file_open(const char *debug_root, const char *build_id, lupe_elf_file *out);

#endif

/* program_file.h -- where the file of a module is read, and the separate debug file that belongs to it.
 * Thread: any. Opens and reads files, so never on the loop. */
#ifndef LUPE_STORE_PROGRAM_FILE_H
#define LUPE_STORE_PROGRAM_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/lupe.h"
#include "core/store/elf_file.h"
#include "core/store/module_table.h"

/* Bytes of a path of /proc/PID/maps without the kernel's remark " (deleted)". */
size_t lupe_program_path_bytes(const char *path);
/* Whether a path there (`bytes` long) is `known`, or that with the remark. */
bool lupe_program_path_is_still(const char *path, size_t bytes, const char *known);
/* Mappings that are no files: [heap] and its kind, nothing, shared and anonymous memory by its kernel names.
 * The vdso counts as a file. */
bool lupe_program_path_is_anonymous(const char *path);

/* Adds to a version of which device and inode are known (0: it is no file) what the file at `path` (`bytes`
 * of it, as /proc/PID/maps has it) is like now, as the process sees it; nothing where it is not to be seen,
 * or has no path any more. Code that is no file has no versions: each process's memory would be one. */
void lupe_program_file_look(const char *path, size_t bytes, int32_t pid, lupe_file_version *version);

/* Opens the file of a module: `path`, `alternative`, `build_id` and `version` as lupe_symbolizer_open has
 * them. LUPE_ENOENT: no file is there that may be believed. */
lupe_status lupe_program_file_open(const char *path, const char *alternative, const char *build_id,
                                   const lupe_file_version *version, lupe_elf_file *out);

/* Opens the separate debug file of this very build, below `debug_root`; LUPE_ENOENT. */
lupe_status lupe_debug_file_open(const char *debug_root, const char *build_id, lupe_elf_file *out);

#endif

/* module_table.h -- the files that code was mapped from, as 16-bit ids shared by all targets of a run.
 * Id 0 is code of unknown origin. Ids are never reused; paths stay valid as long as the table. A path whose
 * file was replaced is another module for those that map it from then on.
 * Threads: any; a mutex is held for one call. Bounded: 65,535 modules and 16 MiB of paths; what comes
 * after that is module 0, and counted. */
#ifndef LUPE_STORE_MODULE_TABLE_H
#define LUPE_STORE_MODULE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

enum {
  LUPE_MODULE_UNKNOWN = 0,
  LUPE_MODULES_MAX = 65536, /* with LUPE_MODULE_UNKNOWN */
};

typedef struct lupe_module_table lupe_module_table;

/* Which of the files that lay at a path one after the other. All 0: not known, or it is no file. */
typedef struct lupe_file_version {
  uint64_t device, inode; /* as /proc/PID/maps has them */
  uint64_t bytes;         /* with mtime_ns: as they were when the file was first seen to be mapped; */
  int64_t mtime_ns;       /* 0: it was not to be seen at its path */
} lupe_file_version;

static inline bool lupe_file_version_is(const lupe_file_version *a, const lupe_file_version *b) {
  return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes && a->mtime_ns == b->mtime_ns;
}

lupe_status lupe_module_table_create(lupe_module_table **out);
void lupe_module_table_free(lupe_module_table *t); /* NULL is a no-op */

/* The id of this version (NULL: not known) of a path as /proc/PID/maps has it (`bytes` long; both copied);
 * LUPE_MODULE_UNKNOWN where the table is full or out of memory (counted), or the path is empty. `pid` is a
 * process that maps it: through its /proc folder the file may be read where it is not at that path for us. */
uint16_t lupe_module_table_intern(lupe_module_table *t, const char *path, size_t bytes,
                                  const lupe_file_version *version, int32_t pid);

uint32_t lupe_module_table_count(lupe_module_table *t); /* with LUPE_MODULE_UNKNOWN: at least 1 */
/* "" for an id that was never given out. */
const char *lupe_module_table_path(lupe_module_table *t, uint16_t id);
int32_t lupe_module_table_pid(lupe_module_table *t, uint16_t id); /* that first mapped it; 0 unknown */
lupe_file_version lupe_module_table_version(lupe_module_table *t, uint16_t id);
uint64_t lupe_module_table_overflows(lupe_module_table *t);

#endif

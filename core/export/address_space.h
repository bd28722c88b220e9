/* address_space.h -- one address space for all modules of a run, as profile formats want it.
 * A snapshot's addresses are each in the file's own address space, and several processes map a file at
 * several places. Here module number N has the range that begins at (N + 1) << LUPE_MODULE_ADDRESS_BITS, and
 * an address of it is that beginning plus the address in the file. Numbers of modules and functions never
 * change in a run, so an address means the same in every profile of it. All addresses fit into 53 bits: tools
 * that count in floating point read them exactly. Thread: any. */
#ifndef LUPE_EXPORT_ADDRESS_SPACE_H
#define LUPE_EXPORT_ADDRESS_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/export/columns.h"
#include "core/lupe.h"

enum { LUPE_MODULE_ADDRESS_BITS = 36 };

/* Of an address in the file of `module`; higher bits than the range has are left out. */
static inline uint64_t lupe_profile_address(uint32_t module, uint64_t address) {
  return ((uint64_t)module + 1) << LUPE_MODULE_ADDRESS_BITS |
         (address & ((UINT64_C(1) << LUPE_MODULE_ADDRESS_BITS) - 1));
}

/* Code of unknown origin has no addresses: there a function's number stands for one. */
static inline uint64_t lupe_profile_frame_address(const lupe_columns *c, uint32_t frame) {
  const lupe_snapshot_frame *f = &c->frames[frame];
  bool known = c->strings[c->modules[f->module].path] != '\0';
  return lupe_profile_address(f->module, known ? f->address : 16 * ((uint64_t)f->function + 1));
}

static inline uint64_t lupe_profile_function_address(const lupe_columns *c, uint32_t function) {
  const lupe_snapshot_function *f = &c->functions[function];
  bool known = c->strings[c->modules[f->module].path] != '\0';
  return lupe_profile_address(f->module, known ? f->start : 16 * ((uint64_t)function + 1));
}

/* What of a module is mapped in a profile: whole pages, with all frames that were asked for. */
typedef struct lupe_profile_mapping {
  bool used;
  uint64_t start, limit;                     /* addresses of this space */
  uint64_t file_offset;                      /* of `start` */
  bool functions, filenames, lines, inlines; /* what is known of some of its frames */
} lupe_profile_mapping;

/* `used` has one byte per frame of the snapshot: not 0 where it is in the profile. Writes one mapping per
 * module (malloc'd, by module number). Opens the modules' files, to see which offset their code has; where
 * that cannot be, or it is another file by now, offset and address are the same, as in what linkers usually
 * make. LUPE_ENOMEM. Blocks on the file system: not for the loop. */
lupe_status lupe_profile_mappings(const lupe_columns *c, const uint8_t *used, lupe_profile_mapping **out);

/* The module that tools take for the program: the one with `main`, else the one named like the first target,
 * else the first that is mapped. `module_count` where none is. */
uint32_t lupe_profile_program(const lupe_columns *c, const uint8_t *used,
                              const lupe_profile_mapping *mappings);

#endif

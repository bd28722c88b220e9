/* address_map.h -- which file each address of one process belongs to, from lines of /proc/PID/maps.
 * Translates return addresses to store frames (stack_table.h): the module's id << 48 | the offset in its
 * file, of an address inside the calling instruction (one less than the return address).
 * Only executable mappings are kept. Mappings that are gone stay known until something else is mapped
 * there: samples of a library that was unloaded since still find it. One that stays is of the module that it
 * was of, though its file may have been replaced meanwhile, and be called "(deleted)" by now.
 * Owner: one target. Thread: one at a time; looks at files, so never the loop's. Bounded: LUPE_MAPPINGS_MAX;
 * further ones are left out and counted. */
#ifndef LUPE_STORE_ADDRESS_MAP_H
#define LUPE_STORE_ADDRESS_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"
#include "core/store/module_table.h"
#include "core/store/stack_table.h"
#include "core/wire/marks.h"

enum { LUPE_MAPPINGS_MAX = 65536 };

typedef struct lupe_address_map lupe_address_map;

/* `modules` is borrowed and must outlive the map; `pid` is whose addresses they are. */
lupe_status lupe_address_map_create(lupe_address_map **out, lupe_module_table *modules, int32_t pid);
void lupe_address_map_free(lupe_address_map *m); /* NULL is a no-op */

/* A new reading: begin, one call per line (with or without its newline), commit. Until then the old one
 * answers. An abandoned reading is forgotten by the next begin.
 * line: LUPE_ECORRUPT where it is not of the kernel's form (`START-END PERMS OFFSET DEV INODE PATH`),
 * LUPE_ENOMEM. commit: LUPE_ENOMEM, and the old reading stays. */
void lupe_address_map_begin(lupe_address_map *m);
lupe_status lupe_address_map_line(lupe_address_map *m, const char *line, size_t bytes);
lupe_status lupe_address_map_commit(lupe_address_map *m);

/* A tag, which stands in a stack like an address; it is no return address, but its own number. */
static inline bool lupe_address_is_tag(uint64_t address) {
  return (address & LUPE_TAG_FRAME_MASK) == LUPE_TAG_FRAME;
}
/* Who knows the frames of tags, by their numbers in the process. Without it they are LUPE_FRAME_UNKNOWN. */
typedef lupe_frame (*lupe_tag_frame_fn)(void *arg, uint32_t number);
void lupe_address_map_set_tags(lupe_address_map *m, lupe_tag_frame_fn frame_of, void *arg);

/* The frame of a return address, or of a tag; LUPE_FRAME_UNKNOWN where no file is mapped. */
lupe_frame lupe_address_map_frame(const lupe_address_map *m, uint64_t return_address);

/* Whether anything at all is known to be mapped there, code of no file included; always so for a tag. */
bool lupe_address_map_covers(const lupe_address_map *m, uint64_t return_address);

size_t lupe_address_map_count(const lupe_address_map *m);
uint64_t lupe_address_map_left_out(const lupe_address_map *m);

#endif

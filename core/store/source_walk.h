/* source_walk.h -- which function each address of one compilation unit lies in, and which calls were inlined
 * around it: one pass over the unit's tree. Inside of source_lines.c. Thread: one at a time. */
#ifndef LUPE_STORE_SOURCE_WALK_H
#define LUPE_STORE_SOURCE_WALK_H

#include <elfutils/libdw.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

enum { LUPE__WALK_NONE = UINT32_MAX };

/* An inlined call that some address lies in, or the function around. */
typedef struct lupe_walk_node {
  Dwarf_Die die;
  uint32_t outer; /* node of what it was inlined into; LUPE__WALK_NONE: this is the function itself */
} lupe_walk_node;

typedef struct lupe_walk_address {
  uint64_t address;
  uint32_t innermost; /* node; LUPE__WALK_NONE: in no function */
  uint32_t unit;      /* number of the unit that covers it; 0 none yet */
} lupe_walk_address;

typedef struct lupe_walk {
  lupe_walk_address *addresses; /* ascending; all of them, or the part in which the unit's are */
  size_t address_count;
  uint32_t unit;
  lupe_walk_node *nodes;
  uint32_t node_count, node_capacity;
  int64_t deadline_ns;
  uint32_t looks; /* at parts of the tree, since the clock was last asked */
  lupe_status status;
} lupe_walk;

/* Calls `visit` for every address that `die` covers. */
typedef void (*lupe_walk_visit)(lupe_walk *w, lupe_walk_address *address, void *arg);
/* Returns whether there was one. */
bool lupe_walk_covered(lupe_walk *w, Dwarf_Die *die, lupe_walk_visit visit, void *arg);

/* Fills `innermost` of the addresses of w->unit, and drops the nodes of the unit before it. LUPE_EAGAIN: the
 * deadline passed; LUPE_ENOMEM. */
lupe_status lupe_walk_unit(lupe_walk *w, Dwarf_Die *unit);

/* Whether there is time left; else w->status says LUPE_EAGAIN. Cheap. */
bool lupe_walk_goes_on(lupe_walk *w);
void lupe_walk_ask_clock(lupe_walk *w); /* the next time, for certain */

#endif

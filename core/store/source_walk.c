#include "core/store/source_walk.h"

#include <dwarf.h>
#include <stdlib.h>

#include "core/clock.h"
#include "core/unwanted.h"

enum {
  DEPTH_MAX = 200,       /* of the tree; compilers make some tens */
  RANGES_MAX = 1 << 16,  /* of one part of it */
  LOOKS_PER_CLOCK = 256, /* a look takes some 100 ns */
  FIRST_NODES = 64,
};

bool lupe_walk_goes_on(lupe_walk *w) {
  if (w->status == LUPE_OK && ++w->looks >= LOOKS_PER_CLOCK) {
    w->looks = 0;
    if (lupe_clock_ns(CLOCK_MONOTONIC) > w->deadline_ns || lupe_unwanted()) w->status = LUPE_EAGAIN;
  }
  return w->status == LUPE_OK;
}

void lupe_walk_ask_clock(lupe_walk *w) {
  w->looks = LOOKS_PER_CLOCK;
}

/* The first address that is not below `from`. */
static size_t lower_bound(const lupe_walk *w, uint64_t from) {
  size_t low = 0, high = w->address_count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (w->addresses[middle].address < from) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

bool lupe_walk_covered(lupe_walk *w, Dwarf_Die *die, lupe_walk_visit visit, void *arg) {
  Dwarf_Addr base, from, to;
  ptrdiff_t at = 0;
  bool found = false;
  for (size_t n = 0; n < RANGES_MAX && lupe_walk_goes_on(w); n++) {
    at = dwarf_ranges(die, at, &base, &from, &to);
    if (at <= 0) break;
    for (size_t i = lower_bound(w, from); i < w->address_count && w->addresses[i].address < to; i++) {
      found = true;
      visit(w, &w->addresses[i], arg);
    }
  }
  return found;
}

/* A part of the tree that covers addresses gets a node when the first is found. */
typedef struct part {
  Dwarf_Die *die;
  uint32_t outer, node;
} part;

static uint32_t new_node(lupe_walk *w, const Dwarf_Die *die, uint32_t outer) {
  if (w->node_count == w->node_capacity) {
    uint32_t capacity = w->node_capacity ? 2 * w->node_capacity : FIRST_NODES;
    lupe_walk_node *nodes = realloc(w->nodes, capacity * sizeof *nodes);
    if (!nodes) {
      w->status = LUPE_ENOMEM;
      return LUPE__WALK_NONE;
    }
    w->nodes = nodes;
    w->node_capacity = capacity;
  }
  w->nodes[w->node_count] = (lupe_walk_node){*die, outer};
  return w->node_count++;
}

static void enter(lupe_walk *w, lupe_walk_address *address, void *arg) {
  part *p = arg;
  if (address->unit != w->unit) return;
  if (p->node == LUPE__WALK_NONE) p->node = new_node(w, p->die, p->outer);
  if (p->node != LUPE__WALK_NONE) address->innermost = p->node;
}

typedef enum way {
  WAY_NONE,     /* nothing of ours is below */
  WAY_SCOPE,    /* belongs to what is around it */
  WAY_TYPE,     /* seldom holds code */
  WAY_FUNCTION, /* a function or an inlined call */
  WAY_INLINED,
} way;

static way way_of(int tag) {
  switch (tag) {
    case DW_TAG_subprogram:
      return WAY_FUNCTION;
    case DW_TAG_inlined_subroutine:
      return WAY_INLINED;
    case DW_TAG_lexical_block:
    case DW_TAG_try_block:
    case DW_TAG_catch_block:
    case DW_TAG_with_stmt:
    case DW_TAG_namespace:
    case DW_TAG_module:
      return WAY_SCOPE;
    case DW_TAG_structure_type:
    case DW_TAG_class_type:
    case DW_TAG_union_type:
    case DW_TAG_enumeration_type:
    case DW_TAG_interface_type:
      return WAY_TYPE;
    default:
      return WAY_NONE;
  }
}

/* Walks what is below `die`, which lies in the call or function `node`. Unless `all`, it goes past types, and
 * past functions that none of the addresses lies in. */
// NOLINTNEXTLINE(misc-no-recursion): DEPTH_MAX deep
static void walk(lupe_walk *w, Dwarf_Die *die, uint32_t node, bool all, size_t depth) {
  Dwarf_Die child;
  if (depth == DEPTH_MAX || dwarf_child(die, &child) != 0) return;
  do {
    if (!lupe_walk_goes_on(w)) return;
    way how = way_of(dwarf_tag(&child));
    if (how == WAY_FUNCTION || how == WAY_INLINED) {
      part p = {&child, how == WAY_INLINED ? node : LUPE__WALK_NONE, LUPE__WALK_NONE};
      if (how == WAY_INLINED && node == LUPE__WALK_NONE) continue; /* into no function */
      bool found = lupe_walk_covered(w, &child, enter, &p);
      if (found || (all && how == WAY_FUNCTION)) walk(w, &child, p.node, all, depth + 1);
    } else if (how == WAY_SCOPE || (how == WAY_TYPE && all)) {
      walk(w, &child, node, all, depth + 1);
    }
  } while (dwarf_siblingof(&child, &child) == 0);
}

lupe_status lupe_walk_unit(lupe_walk *w, Dwarf_Die *unit) {
  w->node_count = 0;
  walk(w, unit, LUPE__WALK_NONE, false, 0);
  /* Functions within functions, and within types: few languages have them. */
  bool missing = false;
  for (size_t i = 0; i < w->address_count; i++)
    missing |= w->addresses[i].unit == w->unit && w->addresses[i].innermost == LUPE__WALK_NONE;
  if (missing && w->status == LUPE_OK) walk(w, unit, LUPE__WALK_NONE, true, 0);
  return w->status;
}

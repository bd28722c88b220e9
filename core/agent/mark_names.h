/* mark_names.h -- the names of marks: each has a number, the same one for the life of the process, whether
 * lupe runs or not, and in its forked children.
 * No lock, no allocation, no system call: a name is known by 64 bits of its text, and whoever puts those into
 * a free place has made its number; the text follows. Who is interrupted in between holds nobody up. */
#ifndef LUPE_AGENT_MARK_NAMES_H
#define LUPE_AGENT_MARK_NAMES_H

#include <stdint.h>

#include "core/lupe.h"
#include "core/wire/marks.h"

/* The number of a mark's name, kept in its `id`. Thread: any, also inside malloc and in signal handlers. */
uint32_t lupe_mark_number(lupe_mark *mark);

/* A span begins under the number, at the return address `place`: the first one that is told so counts.
 * Thread: any. */
void lupe_mark_begun(uint32_t number, uint64_t place);

/* Writes all names into the segment, which new ones go into already. Thread: the agent's. */
void lupe_mark_names_tell(lupe_marks *segment);

#endif

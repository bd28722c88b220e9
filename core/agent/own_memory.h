/* own_memory.h -- the memory of lupe's threads: a jemalloc arena of their own, so that the program's figures
 * and profiles are the program's. Made when the first thread comes, and kept for the life of the process, its
 * forked children included. Nothing happens where malloc is not jemalloc's. Thread: any but inside malloc. */
#ifndef LUPE_AGENT_OWN_MEMORY_H
#define LUPE_AGENT_OWN_MEMORY_H

#include "core/wire/record.h"

enum { LUPE_NO_ARENA = -1 };

/* What the calling thread allocates comes from there from now on, is not sampled, and what it frees is not
 * kept in a cache. */
void lupe_own_memory_enter(void);
/* As it was before. What the thread has allocated stays where it is. */
void lupe_own_memory_leave(void);

/* Gives back all pages that hold nothing. */
void lupe_own_memory_purge(void);

/* The arena's number, or LUPE_NO_ARENA. */
int lupe_own_memory_arena(void);

/* Moves what is the arena's from the figures of the whole process, as jemalloc tells them for the same epoch,
 * to the fields own_*. Its size classes are not touched. */
void lupe_own_memory_subtract(lupe_allocator_figures *f);

#endif

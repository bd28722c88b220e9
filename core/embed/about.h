/* about.h -- what cannot be seen of this program, in words. Thread: any. */
#ifndef LUPE_EMBED_ABOUT_H
#define LUPE_EMBED_ABOUT_H

#include "core/agent/heap.h"

/* Why the heap is not profiled, and what to do about it. "": it is. Static. */
const char *lupe__heap_missing(const lupe_heap_info *heap);

#endif

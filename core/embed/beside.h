/* beside.h -- finds other parts of the installation, from where liblupe.so is. Thread: any. */
#ifndef LUPE_EMBED_BESIDE_H
#define LUPE_EMBED_BESIDE_H

#include <limits.h>

#include "core/lupe.h"

/* Writes the first of `candidates` (NULL-terminated; relative ones count from liblupe.so's folder) that is
 * there. LUPE_ENOENT: none is. */
lupe_status lupe__beside(char out[PATH_MAX], const char *const *candidates);

#endif

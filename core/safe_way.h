/* safe_way.h -- whether others could put something of theirs in the place of what a path leads to.
 * Thread: any. */
#ifndef LUPE_SAFE_WAY_H
#define LUPE_SAFE_WAY_H

#include <stddef.h>

#include "core/lupe.h"

/* Looks at each folder that the way to `folder` (absolute) leads through, that included, and through which
 * links. Each must be ours or root's (or whose the root folder is); one that others may write to must be
 * sticky, so that what is ours in it stays where it is. LUPE_EPERM: somebody could; LUPE_EIO: there is no
 * such folder; explained in `error`. */
lupe_status lupe_safe_way_check(const char *folder, char *error, size_t error_bytes);

#endif

/* kernel_text.h -- small files in which the kernel tells things (/proc, /sys), read whole, without
 * allocation. Thread: any. */
#ifndef LUPE_AGENT_KERNEL_TEXT_H
#define LUPE_AGENT_KERNEL_TEXT_H

#include <stddef.h>
#include <sys/types.h>

/* What a file holds, cut to what fits, and terminated. `path` may begin in `folder`, as openat's. Returns its
 * length, or -1: it cannot be read. */
ssize_t lupe_kernel_text_read(int folder, const char *path, char *text, size_t capacity);

#endif

/* error.h -- what lupe_error says: one sentence per thread. Thread: any. */
#ifndef LUPE_EMBED_ERROR_H
#define LUPE_EMBED_ERROR_H

#include "core/lupe.h"

/* Keeps the sentence for this thread, and returns `status`. */
lupe_status lupe__fail(lupe_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif

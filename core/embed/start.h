/* start.h -- what the rest of the front asks of start.c. Thread: any. */
#ifndef LUPE_EMBED_START_H
#define LUPE_EMBED_START_H

#include "core/lupe.h"

/* Whether there is a runtime that may be asked. LUPE_ENOENT: none runs; LUPE_EUNSUPPORTED: it is a daemon's;
 * explained. */
lupe_status lupe__may_call(void);

/* While lupe runs: "in-process", "helper" or "daemon"; the agents' socket. */
const char *lupe__mode_name(void);
const char *lupe__socket(void);

#endif

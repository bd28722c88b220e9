/* adds.h -- rules, routes and modules of the host's: kept here for this start and later ones. Thread: any. */
#ifndef LUPE_EMBED_ADDS_H
#define LUPE_EMBED_ADDS_H

#include "core/lupe.h"

/* Gives a runtime that has just started all that was added so far. LUPE_ESCRIPT: one does not load;
 * explained. Thread: that of lupe_start. */
lupe_status lupe__adds_send(void);
/* There is no runtime any more: what is added now is only kept. Thread: that of lupe_stop. */
void lupe__adds_end(void);

/* In a forked child: nobody is amid an addition. */
void lupe__adds_forget(void);

#endif

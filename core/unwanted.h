/* unwanted.h -- whether somebody still waits for what the calling thread is at, for work that takes long to
 * ask now and then. Thread: any. */
#ifndef LUPE_UNWANTED_H
#define LUPE_UNWANTED_H

#include <stdbool.h>

/* True: it may be given up, in any way that leaves things whole; its result will be thrown away. Costs a
 * load. */
bool lupe_unwanted(void);

/* From now on the answer on this thread is `flag`; NULL, and at first: nothing is unwanted. */
void lupe_unwanted_by(const _Atomic bool *flag);

#endif

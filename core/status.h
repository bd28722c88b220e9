/* status.h -- what the system's error numbers are among ours. Thread: any. */
#ifndef LUPE_STATUS_H
#define LUPE_STATUS_H

#include "core/lupe.h"

/* Of a file or a process that was to be opened or read: LUPE_ENOENT, LUPE_EPERM, LUPE_ENOMEM, else LUPE_EIO.
 */
lupe_status lupe__status_of_errno(int error);

#endif

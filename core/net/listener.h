/* listener.h -- a listening TCP socket on a numeric address. Thread: any. */
#ifndef LUPE_NET_LISTENER_H
#define LUPE_NET_LISTENER_H
#include <stdint.h>

#include "core/lupe.h"

/* `host`: IPv4 or IPv6 (then only that), numeric, without brackets. `port` 0: any free one; *out_port is the
 * real one. The socket is non-blocking and CLOEXEC; the caller closes it. Returns LUPE_OK, LUPE_EINVAL (not
 * such an address), LUPE_EINUSE, LUPE_EPERM, or LUPE_EIO with errno set. */
lupe_status lupe__listen(const char *host, uint16_t port, int *out_fd, uint16_t *out_port);
#endif

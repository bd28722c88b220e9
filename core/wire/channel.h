/* channel.h -- the control socket between agent and runtime: unix SOCK_SEQPACKET, one datagram per
 * message of message.h, descriptors beside it.
 * Every socket made here is non-blocking and close-on-exec. No function waits, none raises SIGPIPE,
 * none allocates. Thread: any; one message is sent or received whole. */
#ifndef LUPE_WIRE_CHANNEL_H
#define LUPE_WIRE_CHANNEL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/lupe.h"
#include "core/wire/message.h"

enum { LUPE_CHANNEL_BODY_MAX = 512 };

/* Binds and listens; the file gets mode 0600 and is the caller's to unlink. LUPE_EINVAL: the path is empty
 * or longer than a socket address holds; LUPE_EINUSE: the path exists; LUPE_EIO (errno tells). */
lupe_status lupe_channel_listen(const char *path, int *out_fd);

/* Takes one waiting connection. LUPE_EAGAIN: none; LUPE_EIO (errno tells, EMFILE for example). */
lupe_status lupe_channel_accept(int listen_fd, int *out_fd);

/* LUPE_EAGAIN: the listener's queue is full now; LUPE_ENOENT: nobody listens there; LUPE_EPERM: not
 * allowed; LUPE_EINVAL as above; LUPE_EIO. */
lupe_status lupe_channel_connect(const char *path, int *out_fd);

/* Who is at the other end, as it was when the connection was made. LUPE_EIO. */
lupe_status lupe_channel_peer(int fd, pid_t *out_pid, uid_t *out_uid);

/* Sends one message; `pass_fd` goes along unless it is -1, and stays the caller's.
 * LUPE_EAGAIN: the peer does not read; LUPE_ENOENT: it is gone; LUPE_EINVAL: a body above
 * LUPE_CHANNEL_BODY_MAX; LUPE_EIO. */
lupe_status lupe_channel_send(int fd, uint32_t type, const void *body, size_t bytes, int pass_fd);

/* Receives one message: its head to *out, its body to `body`. *out_fd is the descriptor that came with it,
 * now the caller's, or -1; any further ones are closed, all of them where out_fd is NULL or the call fails.
 * LUPE_EAGAIN: nothing there; LUPE_ENOENT: the peer is gone; LUPE_ECORRUPT: longer than `capacity`, or
 * not the length that its head says; LUPE_EIO. */
lupe_status lupe_channel_receive(int fd, lupe_message *out, void *body, size_t capacity, int *out_fd);

#endif

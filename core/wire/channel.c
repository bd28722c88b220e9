#include "core/wire/channel.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/wire/descriptor.h"

enum { BACKLOG = 4096 /* a storm of forks connects at once; the kernel cuts it to somaxconn */ };

static lupe_status address_of(const char *path, struct sockaddr_un *address) {
  size_t length = strlen(path);
  if (length == 0 || length >= sizeof address->sun_path) return LUPE_EINVAL;
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  memcpy(address->sun_path, path, length + 1);
  return LUPE_OK;
}

static lupe_status close_and(int fd, lupe_status status) {
  int error = errno;
  close(fd);
  errno = error;
  return status;
}

static int open_socket(void) {
  return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

lupe_status lupe_channel_listen(const char *path, int *out_fd) {
  struct sockaddr_un address;
  lupe_status status = address_of(path, &address);
  if (status != LUPE_OK) return status;
  int fd = open_socket();
  if (fd < 0) return LUPE_EIO;
  /* On Linux bind takes the file's mode from the socket's own, so there is no moment of a wider one. */
  if (fchmod(fd, 0600) != 0) return close_and(fd, LUPE_EIO);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
    return close_and(fd, errno == EADDRINUSE ? LUPE_EINUSE : LUPE_EIO);
  }
  if (listen(fd, BACKLOG) != 0) {
    unlink(path);
    return close_and(fd, LUPE_EIO);
  }
  *out_fd = fd;
  return LUPE_OK;
}

lupe_status lupe_channel_accept(int listen_fd, int *out_fd) {
  int fd;
  do {
    fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
  if (fd < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? LUPE_EAGAIN : LUPE_EIO;
  *out_fd = fd;
  return LUPE_OK;
}

lupe_status lupe_channel_connect(const char *path, int *out_fd) {
  struct sockaddr_un address;
  lupe_status status = address_of(path, &address);
  if (status != LUPE_OK) return status;
  int fd = open_socket();
  if (fd < 0) return LUPE_EIO;
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
    *out_fd = fd;
    return LUPE_OK;
  }
  switch (errno) {
    case EAGAIN:
      return close_and(fd, LUPE_EAGAIN);
    case ENOENT:
    case ENOTDIR:
    case ECONNREFUSED:
      return close_and(fd, LUPE_ENOENT);
    case EACCES:
    case EPERM:
      return close_and(fd, LUPE_EPERM);
    default:
      return close_and(fd, LUPE_EIO);
  }
}

lupe_status lupe_channel_peer(int fd, pid_t *out_pid, uid_t *out_uid) {
  struct ucred peer;
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || length != sizeof peer) return LUPE_EIO;
  *out_pid = peer.pid;
  *out_uid = peer.uid;
  return LUPE_OK;
}

static lupe_status status_of_errno(void) {
  switch (errno) {
    case EAGAIN:
      return LUPE_EAGAIN;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
      return LUPE_ENOENT;
    default:
      return LUPE_EIO;
  }
}

lupe_status lupe_channel_send(int fd, uint32_t type, const void *body, size_t bytes, int pass_fd) {
  if (bytes > LUPE_CHANNEL_BODY_MAX) return LUPE_EINVAL;
  lupe_message head = {.type = type, .body_bytes = (uint32_t)bytes};
  struct iovec parts[2] = {{&head, sizeof head}, {(void *)(uintptr_t)body, bytes}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = bytes > 0 ? 2 : 1};
  lupe__descriptor_room room;
  if (pass_fd >= 0) lupe__descriptor_put(&message, &room, pass_fd);
  ssize_t sent;
  do {
    sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? status_of_errno() : LUPE_OK;
}

lupe_status lupe_channel_receive(int fd, lupe_message *out, void *body, size_t capacity, int *out_fd) {
  lupe_message head;
  struct iovec parts[2] = {{&head, sizeof head}, {body, capacity}};
  lupe__descriptor_room room;
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  lupe__descriptor_expect(&message, &room);
  /* ECONNRESET is told once, before what the peer had sent: it left without reading all of ours. */
  ssize_t got;
  bool reset = false, again;
  do {
    got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    again = got < 0 && (errno == EINTR || (errno == ECONNRESET && !reset));
    reset = reset || (got < 0 && errno == ECONNRESET);
  } while (again);
  if (got < 0) return status_of_errno();

  lupe_status status = LUPE_OK;
  int passed = lupe__descriptor_take(&message);
  if (got == 0) {
    status = LUPE_ENOENT;
  } else if ((message.msg_flags & MSG_CTRUNC) && passed < 0) {
    errno = EMFILE; /* a descriptor came, and there was no number left for it */
    status = LUPE_EIO;
  } else if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || (size_t)got < sizeof head ||
             head.body_bytes != (size_t)got - sizeof head) {
    status = LUPE_ECORRUPT;
  }
  if (passed >= 0 && (status != LUPE_OK || !out_fd)) {
    close(passed);
    passed = -1;
  }
  if (status != LUPE_OK) return status;
  *out = head;
  if (out_fd) *out_fd = passed;
  return LUPE_OK;
}

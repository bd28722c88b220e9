#include "core/wire/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER = sizeof(uint32_t) };

typedef union control {
  struct cmsghdr header;
  char bytes[CMSG_SPACE(sizeof(int))];
} control;

/* Keeps the first descriptor; a control buffer for one makes the kernel drop any more. */
static void take_descriptor(lupe__frame *f, struct msghdr *message) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    int fd;
    memcpy(&fd, CMSG_DATA(c), sizeof fd);
    if (f->fd >= 0) {
      close(fd);
    } else {
      f->fd = fd;
    }
  }
}

static lupe_status read_some(lupe__frame *f, int socket, bool wait) {
  bool in_header = f->received < HEADER;
  struct iovec part;
  if (in_header) {
    part = (struct iovec){f->length + f->received, HEADER - f->received};
  } else {
    part = (struct iovec){f->body + (f->received - HEADER), HEADER + f->bytes - f->received};
  }
  control c;
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = c.bytes, .msg_controllen = sizeof c.bytes};
  ssize_t n;
  do {
    n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
  } while (n < 0 && errno == EINTR);
  if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? LUPE_EAGAIN : LUPE_ENOENT;
  take_descriptor(f, &message);
  if (n == 0) return LUPE_ENOENT;
  f->received += (size_t)n;
  return LUPE_OK;
}

lupe_status lupe__frame_read(lupe__frame *f, int socket, bool wait) {
  while (f->received < HEADER || f->received < HEADER + f->bytes) {
    lupe_status status = read_some(f, socket, wait);
    if (status != LUPE_OK) return status;
    if (f->received != HEADER) continue;
    memcpy(&f->bytes, f->length, sizeof f->bytes);
    if (f->bytes > LUPE_FRAME_MAX_BYTES) {
      f->bytes = 0;
      return LUPE_ECORRUPT;
    }
    if (f->bytes == 0) break;
    f->body = malloc((size_t)f->bytes + 1);
    if (!f->body) return LUPE_ENOMEM;
    f->body[f->bytes] = '\0';
  }
  return LUPE_OK;
}

void lupe__frame_clear(lupe__frame *f) {
  free(f->body);
  if (f->fd >= 0) close(f->fd);
  *f = (lupe__frame){.fd = -1};
}

lupe_status lupe__frame_write(int socket, const void *body, uint32_t bytes, int fd, size_t *sent, bool wait) {
  while (*sent < HEADER + (size_t)bytes) {
    struct iovec parts[2];
    struct msghdr message = {.msg_iov = parts};
    if (*sent < HEADER) parts[message.msg_iovlen++] = (struct iovec){(char *)&bytes + *sent, HEADER - *sent};
    size_t done = *sent > HEADER ? *sent - HEADER : 0;
    if (bytes > done) parts[message.msg_iovlen++] = (struct iovec){(char *)body + done, bytes - done};
    control c;
    if (*sent == 0 && fd >= 0) {
      memset(&c, 0, sizeof c);
      message.msg_control = c.bytes;
      message.msg_controllen = sizeof c.bytes;
      struct cmsghdr *header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof fd);
      memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    ssize_t n = sendmsg(socket, &message, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? LUPE_EAGAIN : LUPE_ENOENT;
    *sent += (size_t)n;
  }
  return LUPE_OK;
}

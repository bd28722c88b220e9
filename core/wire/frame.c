#include "core/wire/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/wire/descriptor.h"

enum { HEADER = sizeof(uint32_t) };

static lupe_status read_some(lupe__frame *f, int socket, bool wait) {
  bool in_header = f->received < HEADER;
  struct iovec part;
  if (in_header) {
    part = (struct iovec){f->length + f->received, HEADER - f->received};
  } else {
    part = (struct iovec){f->body + (f->received - HEADER), HEADER + f->bytes - f->received};
  }
  lupe__descriptor_room room;
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  lupe__descriptor_expect(&message, &room);
  ssize_t n;
  do {
    n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
  } while (n < 0 && errno == EINTR);
  if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? LUPE_EAGAIN : LUPE_ENOENT;
  int fd = lupe__descriptor_take(&message);
  if (f->fd < 0)
    f->fd = fd;
  else if (fd >= 0)
    close(fd); /* a frame has one */
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
    lupe__descriptor_room room;
    if (*sent == 0 && fd >= 0) lupe__descriptor_put(&message, &room, fd);
    ssize_t n = sendmsg(socket, &message, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? LUPE_EAGAIN : LUPE_ENOENT;
    *sent += (size_t)n;
  }
  return LUPE_OK;
}

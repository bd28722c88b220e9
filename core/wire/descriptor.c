#include "core/wire/descriptor.h"

#include <string.h>
#include <unistd.h>

void lupe__descriptor_put(struct msghdr *message, lupe__descriptor_room *room, int fd) {
  memset(room, 0, sizeof *room);
  message->msg_control = room->bytes;
  message->msg_controllen = CMSG_SPACE(sizeof fd);
  struct cmsghdr *header = CMSG_FIRSTHDR(message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
}

void lupe__descriptor_expect(struct msghdr *message, lupe__descriptor_room *room) {
  message->msg_control = room->bytes;
  message->msg_controllen = sizeof room->bytes;
}

int lupe__descriptor_take(struct msghdr *message) {
  int taken = -1;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      if (taken < 0) {
        taken = fd;
      } else {
        close(fd);
      }
    }
  }
  return taken;
}

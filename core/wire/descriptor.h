/* descriptor.h -- the one descriptor that a message over a unix socket may carry. Thread: any. */
#ifndef LUPE_WIRE_DESCRIPTOR_H
#define LUPE_WIRE_DESCRIPTOR_H

#include <sys/socket.h>

enum { LUPE_DESCRIPTORS_TAKEN = 4 /* more than is ever sent, so that surplus ones arrive and are closed */ };

typedef union lupe__descriptor_room {
  struct cmsghdr header;
  char bytes[CMSG_SPACE(LUPE_DESCRIPTORS_TAKEN * sizeof(int))];
} lupe__descriptor_room;

/* Has `message` carry `fd`, in `room`, which must stay until it is sent. */
void lupe__descriptor_put(struct msghdr *message, lupe__descriptor_room *room, int fd);

/* To be called before `message` is received, and after: gives the first descriptor that came, and closes all
 * others; -1: none came. */
void lupe__descriptor_expect(struct msghdr *message, lupe__descriptor_room *room);
int lupe__descriptor_take(struct msghdr *message);

#endif

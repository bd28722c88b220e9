#include "core/net/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 4096 }; /* the kernel caps it by net.core.somaxconn */

lupe_status lupe__listen(const char *host, uint16_t port, int *out_fd, uint16_t *out_port) {
  union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
  } address;
  socklen_t bytes;
  memset(&address, 0, sizeof address);
  if (inet_pton(AF_INET, host, &address.v4.sin_addr) == 1) {
    address.v4.sin_family = AF_INET;
    address.v4.sin_port = htons(port);
    bytes = sizeof address.v4;
  } else if (inet_pton(AF_INET6, host, &address.v6.sin6_addr) == 1) {
    address.v6.sin6_family = AF_INET6;
    address.v6.sin6_port = htons(port);
    bytes = sizeof address.v6;
  } else {
    return LUPE_EINVAL;
  }
  int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return LUPE_EIO;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on,
             sizeof on); /* Linux: past TIME_WAIT only, never over a listener */
  if (address.any.sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (bind(fd, &address.any, bytes) != 0 || listen(fd, BACKLOG) != 0 ||
      getsockname(fd, &address.any, &bytes) != 0) {
    int error = errno;
    close(fd);
    errno = error;
    return error == EADDRINUSE ? LUPE_EINUSE : error == EACCES ? LUPE_EPERM : LUPE_EIO;
  }
  *out_fd = fd;
  *out_port = ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
  return LUPE_OK;
}

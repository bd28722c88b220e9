// flags: -O2
/* http_load.c -- clients of one HTTP route, each asking again as soon as it has its answer.
 * usage: http_load PORT PATH CLIENTS SECONDS
 * Connections are kept alive. Prints the latencies, and how many answers were not a 200. */
#include "bench/load.h"

#include <stdbool.h>
#include <sys/epoll.h>

enum { CLIENTS_MAX = 256, HEAD_BYTES_MAX = 8192 };

typedef struct client {
  int fd;
  bool counted; /* its first answer came: the connection is warm */
  uint64_t sent_ns;
  size_t head_bytes; /* received so far, while the head is not whole */
  long body_left;    /* -1: the head is not whole */
  char head[HEAD_BYTES_MAX];
} client;

static client clients[CLIENTS_MAX];
static char request[1024];
static unsigned long others; /* answers other than 200 */

static void ask(client *c) {
  c->head_bytes = 0;
  c->body_left = -1;
  c->sent_ns = load_now_ns();
  load_send(c->fd, request, strlen(request));
}

/* Looks for the head's end; then knows how much body is still to come. */
static void read_head(client *c) {
  c->head[c->head_bytes] = '\0';
  const char *end = strstr(c->head, "\r\n\r\n");
  if (end == NULL) {
    if (c->head_bytes == HEAD_BYTES_MAX - 1) load_fail("a head that never ends");
    return;
  }
  const char *length = strcasestr(c->head, "\r\nContent-Length:");
  if (length == NULL || length > end) {
    fprintf(stderr, "http_load: no Content-Length in the answer to %.60s\n", request);
    exit(1);
  }
  if (strncmp(c->head, "HTTP/1.1 200", 12) != 0) others++;
  size_t body = c->head_bytes - (size_t)(end + 4 - c->head);
  c->body_left = strtol(length + 17, NULL, 10) - (long)body;
}

static void receive(client *c, load_samples *samples) {
  static char body[1 << 16];
  bool in_head = c->body_left < 0;
  ssize_t n = in_head ? recv(c->fd, c->head + c->head_bytes, HEAD_BYTES_MAX - 1 - c->head_bytes, MSG_DONTWAIT)
                      : recv(c->fd, body, sizeof body, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n == 0) {
    fprintf(stderr, "http_load: the server closed the connection of %.60s\n", request);
    exit(1);
  }
  if (n < 0) load_fail("recv");
  if (in_head) {
    c->head_bytes += (size_t)n;
    read_head(c);
  } else {
    c->body_left -= n;
  }
  if (c->body_left == 0) {
    if (c->counted) load_add(samples, load_now_ns() - c->sent_ns);
    c->counted = true;
    ask(c);
  }
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fputs("usage: http_load PORT PATH CLIENTS SECONDS\n", stderr);
    return 2;
  }
  int port = (int)strtol(argv[1], NULL, 10), count = (int)strtol(argv[3], NULL, 10);
  double seconds = strtod(argv[4], NULL);
  if (count < 1 || count > CLIENTS_MAX) return 2;
  snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", argv[2], port);
  load_samples samples = {0};
  int queue = epoll_create1(EPOLL_CLOEXEC);
  for (int i = 0; i < count; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
    clients[i].fd = load_connect(port);
    if (epoll_ctl(queue, EPOLL_CTL_ADD, clients[i].fd, &event) != 0) load_fail("epoll_ctl");
    ask(&clients[i]);
  }
  uint64_t start_ns = load_now_ns(), end_ns = start_ns + (uint64_t)(seconds * 1e9);
  while (load_now_ns() < end_ns) {
    struct epoll_event events[CLIENTS_MAX];
    int ready = epoll_wait(queue, events, CLIENTS_MAX, 100);
    if (ready < 0 && errno != EINTR) load_fail("epoll_wait");
    for (int i = 0; i < ready; i++) receive(events[i].data.ptr, &samples);
  }
  printf("{\"requests_per_second\":%.1f,\"not_200\":%lu,", (double)samples.count / seconds, others);
  load_print(&samples);
  puts("}");
  free(samples.values);
  return 0;
}

// flags: -O2
/* redis_load.c -- clients of redis at a fixed pace, and the latency that they see.
 * usage: redis_load PORT CLIENTS REQUESTS_PER_SECOND SECONDS (0 requests per second: as fast as it goes)
 * Each client has its own schedule and one request under way: SET, GET and LPUSH in turn. A latency counts
 * from the sending; where the client was still waiting when its next request was due, from that moment on. */
#include "bench/load.h"

#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

enum { CLIENTS_MAX = 64, VALUE_BYTES = 512, KEYS = 100000, REPLY_BYTES_MAX = 4096 };

typedef struct client {
  int fd;
  bool waiting;
  bool was_due; /* while the request before was still under way */
  unsigned turn;
  uint64_t due_ns, sent_ns;
  size_t reply_bytes;
  char reply[REPLY_BYTES_MAX];
} client;

static client clients[CLIENTS_MAX];
static uint64_t random_state = UINT64_C(88172645463325252);

static unsigned random_key(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (unsigned)(random_state % KEYS);
}

static void send_request(client *c, uint64_t now_ns) {
  char request[VALUE_BYTES + 128], key[32], value[VALUE_BYTES + 1];
  int bytes, key_bytes;
  memset(value, 'v', VALUE_BYTES);
  value[VALUE_BYTES] = '\0';
  switch (c->turn++ % 3) {
    case 0:
      key_bytes = snprintf(key, sizeof key, "key:%u", random_key());
      bytes = snprintf(request, sizeof request, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", key_bytes,
                       key, VALUE_BYTES, value);
      break;
    case 1:
      key_bytes = snprintf(key, sizeof key, "key:%u", random_key());
      bytes = snprintf(request, sizeof request, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", key_bytes, key);
      break;
    default:
      key_bytes = snprintf(key, sizeof key, "list:%u", random_key() % 1000);
      bytes = snprintf(request, sizeof request, "*3\r\n$5\r\nLPUSH\r\n$%d\r\n%s\r\n$5\r\nvalue\r\n",
                       key_bytes, key);
      break;
  }
  c->sent_ns = c->was_due ? c->due_ns : now_ns;
  c->was_due = false;
  c->reply_bytes = 0;
  c->waiting = true;
  load_send(c->fd, request, (size_t)bytes);
}

/* One whole reply: a status, an integer, or a bulk string. */
static bool reply_is_whole(const client *c) {
  const char *end = memmem(c->reply, c->reply_bytes, "\r\n", 2);
  if (end == NULL) return false;
  if (c->reply[0] == '-') {
    fprintf(stderr, "redis_load: redis says %.*s\n", (int)(end - c->reply), c->reply);
    exit(1);
  }
  if (c->reply[0] != '$') return true;
  long length = strtol(c->reply + 1, NULL, 10);
  return length < 0 || c->reply_bytes >= (size_t)(end - c->reply) + 4 + (size_t)length;
}

static bool receive(client *c) {
  ssize_t n = recv(c->fd, c->reply + c->reply_bytes, sizeof c->reply - c->reply_bytes, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (n <= 0) load_fail("recv");
  c->reply_bytes += (size_t)n;
  return reply_is_whole(c);
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fputs("usage: redis_load PORT CLIENTS REQUESTS_PER_SECOND SECONDS\n", stderr);
    return 2;
  }
  int port = (int)strtol(argv[1], NULL, 10), count = (int)strtol(argv[2], NULL, 10);
  double rate = strtod(argv[3], NULL), seconds = strtod(argv[4], NULL);
  if (count < 1 || count > CLIENTS_MAX) return 2;
  uint64_t pause_ns = rate > 0 ? (uint64_t)(1e9 * count / rate) : 0;
  load_samples samples = {0};
  int queue = epoll_create1(EPOLL_CLOEXEC);
  prctl(PR_SET_TIMERSLACK, 1000UL); /* ns: wake up when a request is due */
  uint64_t start_ns = load_now_ns(), end_ns = start_ns + (uint64_t)(seconds * 1e9);
  for (int i = 0; i < count; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
    clients[i].fd = load_connect(port);
    clients[i].turn = (unsigned)i;
    clients[i].due_ns = start_ns + pause_ns * (uint64_t)i / (uint64_t)count;
    if (epoll_ctl(queue, EPOLL_CTL_ADD, clients[i].fd, &event) != 0) load_fail("epoll_ctl");
  }
  uint64_t now_ns = start_ns;
  while (now_ns < end_ns) {
    uint64_t next_ns = end_ns;
    for (int i = 0; i < count; i++) {
      client *c = &clients[i];
      if (c->due_ns <= now_ns) {
        if (c->waiting) {
          c->was_due = pause_ns > 0;
          continue;
        }
        send_request(c, now_ns);
        c->due_ns += pause_ns;
      }
      if (!c->waiting && c->due_ns < next_ns) next_ns = c->due_ns;
    }
    struct epoll_event events[CLIENTS_MAX];
    uint64_t wait_ns = next_ns > now_ns ? next_ns - now_ns : 0;
    struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000),
                            .tv_nsec = (long)(wait_ns % 1000000000)};
    int ready = epoll_pwait2(queue, events, CLIENTS_MAX, &wait, NULL);
    if (ready < 0 && errno != EINTR) load_fail("epoll_pwait2");
    now_ns = load_now_ns();
    for (int i = 0; i < ready; i++) {
      client *c = events[i].data.ptr;
      if (c->waiting && receive(c)) {
        c->waiting = false;
        load_add(&samples, now_ns - c->sent_ns);
      }
    }
  }
  double elapsed = (double)(now_ns - start_ns) / 1e9;
  printf("{\"requests_per_second\":%.1f,", (double)samples.count / elapsed);
  load_print(&samples);
  puts("}");
  free(samples.values);
  return 0;
}

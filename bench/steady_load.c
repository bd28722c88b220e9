// flags: -O2
/* steady_load.c -- steady load for redis, memcached or nginx: a bounded number of keys, connections that come
 * and go. usage: steady_load redis|memcached|nginx PORT REQUESTS_PER_SECOND SECONDS One request at a time,
 * each over a connection by chance, of which one in 50 requests is closed and opened anew. Nothing that it
 * asks for makes a sound server grow without end: values expire or replace each other, lists are trimmed.
 * Prints {"requests":N}. */
#include "bench/load.h"

#include <stdbool.h>

enum { CONNECTIONS = 24, KEYS = 20000, LISTS = 50, VALUE_BYTES_MAX = 4000, PIECE_BYTES = 1 << 16 };

static uint64_t random_state = UINT64_C(88172645463325252);

static unsigned below(unsigned limit) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (unsigned)(random_state >> 11) % limit;
}

static char value[VALUE_BYTES_MAX + 1];

static unsigned value_bytes(unsigned most) {
  return 50 + below(most - 50);
}

static int redis_request(char *text, size_t room) {
  unsigned key = below(KEYS), list = below(LISTS);
  switch (below(10)) {
    case 0:
    case 1:
      return snprintf(text, room, "SET key:%u %.*s EX %u\r\n", key, (int)value_bytes(1000), value,
                      5 + below(25));
    case 2:
      return snprintf(text, room, "SET plain:%u %.*s\r\n", key % 1000, (int)value_bytes(500), value);
    case 3:
      return snprintf(text, room, "LPUSH list:%u %.*s\r\n", list, (int)value_bytes(200), value);
    case 4:
      return snprintf(text, room, "LTRIM list:%u 0 20\r\n", list);
    case 5:
      return snprintf(text, room, "HSET hash:%u field:%u %.*s\r\n", list, below(20), (int)value_bytes(200),
                      value);
    case 6:
      return snprintf(text, room, "DEL key:%u\r\n", key);
    case 7:
      return snprintf(text, room, "INCR counter:%u\r\n", list);
    default:
      return snprintf(text, room, "GET key:%u\r\n", key);
  }
}

static int memcached_request(char *text, size_t room) {
  unsigned key = below(KEYS), bytes = value_bytes(VALUE_BYTES_MAX);
  switch (below(4)) {
    case 0:
    case 1:
      return snprintf(text, room, "set key:%u 0 %u %u\r\n%.*s\r\n", key, below(2) * (5 + below(25)), bytes,
                      (int)bytes, value);
    case 2:
      return snprintf(text, room, "delete key:%u\r\n", key);
    default:
      return snprintf(text, room, "get key:%u\r\n", key);
  }
}

static int nginx_request(char *text, size_t room) {
  static const char *const paths[] = {"/small", "/middle", "/large", "/missing"};
  return snprintf(text, room, "GET %s?%u HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: session=%.*s\r\n\r\n",
                  paths[below(4)], below(100000), (int)value_bytes(800), value);
}

/* How many more bytes a reply has of which the first line is here, `line` bytes long; -1: cannot be told yet.
 */
static long redis_rest(const char *text, size_t line, size_t bytes) {
  (void)bytes;
  if (text[0] == '-') {
    fprintf(stderr, "steady_load: redis says %.*s\n", (int)line, text);
    exit(1);
  }
  long length = text[0] == '$' ? strtol(text + 1, NULL, 10) : -1;
  return length < 0 ? 0 : length + 2;
}

static long memcached_rest(const char *text, size_t line, size_t bytes) {
  unsigned length;
  (void)bytes;
  if (sscanf(text, "VALUE %*s %*u %u", &length) == 1) return (long)length + 2 + (long)strlen("END\r\n");
  if (strstr(text, "ERROR") != NULL && strstr(text, "ERROR") < text + line) {
    fprintf(stderr, "steady_load: memcached says %.*s\n", (int)line, text);
    exit(1);
  }
  return 0;
}

static long nginx_rest(const char *text, size_t line, size_t bytes) {
  const char *end = memmem(text, bytes, "\r\n\r\n", 4), *length = strstr(text, "Content-Length:");
  if (end == NULL) return -1;
  if (length == NULL || length > end) {
    fprintf(stderr, "steady_load: nginx says %.*s\n", (int)line, text);
    exit(1);
  }
  return (long)(end + 4 - text - (long)line) + strtol(length + 15, NULL, 10);
}

static const struct server {
  const char *name;
  int (*request)(char *text, size_t room);
  long (*rest)(const char *text, size_t line, size_t bytes);
} servers[] = {{"redis", redis_request, redis_rest},
               {"memcached", memcached_request, memcached_rest},
               {"nginx", nginx_request, nginx_rest}};

/* Reads one whole reply and forgets it. */
static void read_reply(const struct server *server, int fd) {
  static char text[PIECE_BYTES + 1];
  size_t bytes = 0;
  long whole = -1; /* bytes of the reply, once that is known */
  while (whole < 0 || bytes < (size_t)whole) {
    size_t room = whole < 0 ? PIECE_BYTES - bytes : PIECE_BYTES;
    ssize_t n = recv(fd, whole < 0 ? text + bytes : text, room, 0);
    if (n <= 0) load_fail("recv");
    bytes += (size_t)n;
    if (whole >= 0) continue;
    text[bytes] = '\0';
    const char *line = memmem(text, bytes, "\r\n", 2);
    if (line == NULL) continue;
    size_t line_bytes = (size_t)(line + 2 - text);
    long rest = server->rest(text, line_bytes, bytes);
    if (rest >= 0) whole = (long)line_bytes + rest;
  }
}

int main(int argc, char **argv) {
  const struct server *server = NULL;
  for (size_t i = 0; argc == 5 && i < sizeof servers / sizeof servers[0]; i++) {
    if (strcmp(argv[1], servers[i].name) == 0) server = &servers[i];
  }
  if (server == NULL) {
    fputs("usage: steady_load redis|memcached|nginx PORT REQUESTS_PER_SECOND SECONDS\n", stderr);
    return 2;
  }
  int port = (int)strtol(argv[2], NULL, 10), connections[CONNECTIONS];
  double rate = strtod(argv[3], NULL), seconds = strtod(argv[4], NULL);
  unsigned long requests = 0;
  memset(value, 'v', VALUE_BYTES_MAX);
  for (int i = 0; i < CONNECTIONS; i++) connections[i] = load_connect(port);
  uint64_t start_ns = load_now_ns(), end_ns = start_ns + (uint64_t)(seconds * 1e9);
  for (uint64_t due_ns = start_ns; due_ns < end_ns; due_ns += (uint64_t)(1e9 / rate)) {
    struct timespec due = {.tv_sec = (time_t)(due_ns / 1000000000), .tv_nsec = (long)(due_ns % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR) {
    }
    char text[VALUE_BYTES_MAX + 256];
    int *fd = &connections[below(CONNECTIONS)];
    if (below(50) == 0) {
      close(*fd);
      *fd = load_connect(port);
    }
    load_send(*fd, text, (size_t)server->request(text, sizeof text));
    read_reply(server, *fd);
    requests++;
  }
  printf("{\"requests\":%lu}\n", requests);
  return 0;
}

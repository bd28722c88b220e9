/* load.h -- what the two load generators share: the clock, one loopback connection, percentiles.
 * For one thread. Everything fails loudly: a generator that stumbles measures nothing. */
#ifndef LUPE_BENCH_LOAD_H
#define LUPE_BENCH_LOAD_H
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline void load_fail(const char *what) {
  perror(what);
  exit(1);
}

static inline uint64_t load_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static inline int load_connect(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) load_fail("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

static inline void load_send(int fd, const char *bytes, size_t count) {
  if (send(fd, bytes, count, MSG_NOSIGNAL) != (ssize_t)count) load_fail("send");
}

/* Latencies in ns; grows, sorted once at the end. */
typedef struct load_samples {
  uint64_t *values;
  size_t count, capacity;
} load_samples;

static inline void load_add(load_samples *s, uint64_t value_ns) {
  if (s->count == s->capacity) {
    s->capacity = s->capacity == 0 ? 65536 : s->capacity * 2;
    s->values = realloc(s->values, s->capacity * sizeof *s->values);
    if (s->values == NULL) load_fail("realloc");
  }
  s->values[s->count++] = value_ns;
}

static inline int load_compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* Prints `"count":..,"p50_us":.. ...` without braces. */
static inline void load_print(load_samples *s) {
  static const struct {
    const char *name;
    double share;
  } wanted[] = {{"p50", 0.50}, {"p95", 0.95}, {"p99", 0.99}, {"max", 1.0}};
  if (s->count == 0) load_fail("not one answer");
  qsort(s->values, s->count, sizeof *s->values, load_compare);
  printf("\"count\":%zu", s->count);
  for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
    size_t at = (size_t)(wanted[i].share * (double)s->count);
    if (at >= s->count) at = s->count - 1;
    printf(",\"%s_us\":%.2f", wanted[i].name, (double)s->values[at] / 1e3);
  }
}

#endif

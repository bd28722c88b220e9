// link: pthread
// flags: -O2 -g
/* bound.c -- a program that is bound by one thing: usage: bound cpu|io|lock|memory. Runs until it is killed.
 *   cpu     two threads compute
 *   io      four threads read from pipes that a child fills now and then, and one writes files through to
 * disk lock    eight threads want one mutex, and compute while they hold it memory  two threads copy, fill
 * and compare blocks far larger than any cache, and allocate and free */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile uint64_t sink;
static pthread_mutex_t contended = PTHREAD_MUTEX_INITIALIZER;

__attribute__((noinline)) static uint64_t compute(uint64_t x, long count) {
  for (long i = 0; i < count; i++) {
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
  }
  return x;
}

static void *be_cpu_bound(void *unused) {
  for (uint64_t x = 1;; sink = x) x = compute(x | 1, 1000000);
  return unused;
}

static void *read_answers(void *end) {
  char answer[64];
  while (read((int)(intptr_t)end, answer, sizeof answer) > 0) sink = compute((uint64_t)answer[0] | 1, 2000);
  return NULL;
}

static void *write_through(void *unused) {
  char path[] = "/tmp/bound-XXXXXX", block[4096] = {1};
  int fd = mkstemp(path);
  if (fd < 0) abort();
  unlink(path);
  while (pwrite(fd, block, sizeof block, 0) == sizeof block && fsync(fd) == 0) usleep(1000);
  return unused;
}

static void *want_the_lock(void *unused) {
  for (;;) {
    pthread_mutex_lock(&contended);
    sink = compute(sink | 1, 300000);
    pthread_mutex_unlock(&contended);
  }
  return unused;
}

static void *move_memory(void *unused) {
  enum { BYTES = 48 << 20 };
  char *from = malloc(BYTES), *to = malloc(BYTES);
  if (!from || !to) abort();
  memset(from, 1, BYTES);
  for (int i = 0;; i++) {
    memcpy(to, from, BYTES);
    memset(from, i, BYTES);
    sink += (uint64_t)memcmp(to, from, BYTES);
    for (int k = 0; k < 1000; k++) {
      void *volatile block = malloc((size_t)(64 + 8 * k));
      free(block);
    }
  }
  return unused;
}

static void start(void *(*body)(void *), void *arg) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, body, arg) != 0) abort();
}

static void be_io_bound(void) {
  int ends[4][2];
  for (int i = 0; i < 4; i++) {
    if (pipe(ends[i]) != 0) abort();
  }
  if (fork() == 0) {
    while (getppid() != 1) {
      for (int i = 0; i < 4; i++) {
        if (write(ends[i][1], "answer", 6) != 6) _exit(0);
      }
      usleep(3000);
    }
    _exit(0);
  }
  for (int i = 0; i < 4; i++) start(read_answers, (void *)(intptr_t)ends[i][0]);
  start(write_through, NULL);
}

int main(int argc, char **argv) {
  const char *kind = argc > 1 ? argv[1] : "";
  if (strcmp(kind, "cpu") == 0) {
    for (int i = 0; i < 2; i++) start(be_cpu_bound, NULL);
  } else if (strcmp(kind, "io") == 0) {
    be_io_bound();
  } else if (strcmp(kind, "lock") == 0) {
    for (int i = 0; i < 8; i++) start(want_the_lock, NULL);
  } else if (strcmp(kind, "memory") == 0) {
    for (int i = 0; i < 2; i++) start(move_memory, NULL);
  } else {
    fprintf(stderr, "usage: bound cpu|io|lock|memory\n");
    return 2;
  }
  for (;;) pause();
}

#include "core/embed/libuv_pipe.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
  PROBES = 4,       /* pipes: more than a loop takes, since other threads open files, too */
  PROBES_NEEDED = 2 /* libuv aborts the program where it gets no pipe */
};

/* One end of libuv's pipe. Written by lupe__libuv_settle, then by the handlers in a forked child alone. */
typedef struct end {
  int number;     /* -1: not known */
  struct stat is; /* what libuv has made there */
  int aside;      /* in a handler: the program's file that is on that number; or -1 */
  int aside_was;  /* its number */
  int flag;       /* of its number: O_CLOEXEC or 0 */
} end;

static end ends[2] = {{.number = -1, .aside = -1}, {.number = -1, .aside = -1}};
static bool has_before, has_pipe;
static atomic_bool has_after; /* before it, the first handler does nothing: nobody would put back */

static bool same_file(const struct stat *a, const struct stat *b) {
  return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* ---- in a forked child ----
 * Nothing but system calls; close() is one that a thread may be cancelled in. */

static void close_number(int fd) {
  syscall(SYS_close, fd);
}

/* Where no number is left the file is lost, as it is without us. */
static void set_aside(end *e, int above) {
  struct stat now;
  e->aside = -1;
  if (fstat(e->number, &now) != 0 || same_file(&now, &e->is)) return;
  int flags = fcntl(e->number, F_GETFD);
  e->flag = flags >= 0 && (flags & FD_CLOEXEC) ? O_CLOEXEC : 0;
  e->aside = fcntl(e->number, F_DUPFD_CLOEXEC, above + 1);
  e->aside_was = e->number;
}

/* libuv closes the two, and its next pipe gets the lowest numbers that are free then. Which these are is seen
 * by doing the same before it does. */
static void before_libuv(void) {
  int next[2];
  if (!atomic_load(&has_after) || ends[0].number < 0) return;
  int above = ends[0].number > ends[1].number ? ends[0].number : ends[1].number;
  for (int i = 0; i < 2; i++) set_aside(&ends[i], above);
  for (int i = 0; i < 2; i++) close_number(ends[i].number);
  bool known = pipe2(next, O_CLOEXEC) == 0;
  for (int i = 0; i < 2; i++) {
    if (known) close_number(next[i]);
    ends[i].number = known ? next[i] : -1;
  }
}

/* Where libuv had no other numbers than the program's, it loses them: so it is in the parent, too. */
static void after_libuv(void) {
  if (ends[0].number >= 0 &&
      (fstat(ends[0].number, &ends[0].is) != 0 || fstat(ends[1].number, &ends[1].is) != 0 ||
       !S_ISFIFO(ends[0].is.st_mode) || !same_file(&ends[0].is, &ends[1].is))) {
    ends[0].number = ends[1].number = -1;
  }
  for (int i = 0; i < 2; i++) {
    if (ends[i].aside < 0) continue;
    dup3(ends[i].aside, ends[i].aside_was, ends[i].flag);
    close_number(ends[i].aside);
    ends[i].aside = -1;
  }
}

/* ---- the first loop ---- */

/* Numbers that are free. */
static bool probe(int numbers[2 * PROBES], size_t *count) {
  size_t pipes = 0;
  while (pipes < PROBES && pipe2(&numbers[2 * pipes], O_CLOEXEC) == 0) pipes++;
  for (size_t i = 0; i < 2 * pipes; i++) close(numbers[i]);
  *count = 2 * pipes;
  return pipes >= PROBES_NEEDED;
}

/* One byte is in it: it is libuv's lock. */
static bool is_reading_end(int fd, struct stat *out) {
  int flags = fcntl(fd, F_GETFL), bytes = 0;
  return flags >= 0 && (flags & O_ACCMODE) == O_RDONLY && fstat(fd, out) == 0 && S_ISFIFO(out->st_mode) &&
         ioctl(fd, FIONREAD, &bytes) == 0 && bytes == 1;
}

static bool is_writing_end(int fd, const struct stat *reading, struct stat *out) {
  int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_ACCMODE) == O_WRONLY && fstat(fd, out) == 0 && same_file(out, reading);
}

/* The pipe on two of the numbers that were free a moment ago. None: libuv had its pipe before, and the
 * program knows of it. */
static void find_pipe(const int *numbers, size_t count) {
  struct stat reading, writing;
  for (size_t i = 0; i < count; i++) {
    if (!is_reading_end(numbers[i], &reading)) continue;
    for (size_t j = 0; j < count; j++) {
      if (!is_writing_end(numbers[j], &reading, &writing)) continue;
      ends[1] = (end){.number = numbers[j], .is = writing, .aside = -1};
      ends[0] = (end){.number = numbers[i], .is = reading, .aside = -1};
      return;
    }
  }
}

static lupe_status make_pipe(void *library) {
  int numbers[2 * PROBES];
  size_t count;
  if (!probe(numbers, &count)) return LUPE_EIO;
  int (*init)(void *) = (int (*)(void *))dlsym(library, "uv_loop_init");
  int (*close_loop)(void *) = (int (*)(void *))dlsym(library, "uv_loop_close");
  size_t (*size)(void) = (size_t(*)(void))dlsym(library, "uv_loop_size");
  _Alignas(16) char loop[4096];
  if (!init || !close_loop || !size || size() > sizeof loop) return LUPE_EIO;
  int failed = init(loop);
  if (!failed) close_loop(loop);
  if (ends[0].number < 0) find_pipe(numbers, count); /* it may be there where there is no loop */
  return failed ? LUPE_EIO : LUPE_OK;
}

/* In a child, handlers run in the order that they were registered in. */
lupe_status lupe__libuv_settle(void *library) {
  if (!has_before && pthread_atfork(NULL, NULL, before_libuv) != 0) return LUPE_ENOMEM;
  has_before = true;
  lupe_status status = has_pipe ? LUPE_OK : make_pipe(library);
  if (status != LUPE_OK) return status;
  has_pipe = true;
  if (!atomic_load(&has_after) && pthread_atfork(NULL, NULL, after_libuv) != 0) return LUPE_ENOMEM;
  atomic_store(&has_after, true);
  return LUPE_OK;
}

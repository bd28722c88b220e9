#include "core/agent/proof_facts.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/agent/kernel_text.h"
#include "core/agent/own_maps.h"
#include "core/agent/proof_lines.h"
#include "core/wire/proof.h"

enum {
  MAPPING_BYTES = 8 << 20, /* in the program's own address space; only what is used becomes memory */
  THREADS_MAX = 1 << 16,
  MAPPINGS_MAX = 1 << 17, /* twice what the kernel allows a process by default */
  POINTERS_MAX = (MAPPING_BYTES - THREADS_MAX * (int)sizeof(lupe_proof_thread) -
                  MAPPINGS_MAX * (int)sizeof(lupe_proof_span)) /
                 (int)sizeof(uint64_t),
  FOLDER_BYTES = 16 << 10,
  BLOCKED_LOOKS = 10,
  BLOCKED_PAUSE_MS = 2,
};

/* What getdents64 gives; libc has no name for it. */
typedef struct entry {
  uint64_t inode;
  int64_t offset;
  unsigned short bytes;
  unsigned char type;
  char name[];
} entry;

static void keep(lupe_proof_facts *f, uint64_t pointer, uint32_t hidden) {
  if (f->pointer_count < POINTERS_MAX)
    f->pointers[f->pointer_count++] = pointer;
  else
    f->hidden |= hidden;
}

/* Calls `look` for every entry of a folder that is a number. False: it cannot be read. */
static bool for_each_number(const char *path, void (*look)(void *arg, int folder, const char *name),
                            void *arg) {
  _Alignas(entry) char listed[FOLDER_BYTES];
  int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  long n = -1;
  if (folder < 0) return false;
  while ((n = syscall(SYS_getdents64, folder, listed, sizeof listed)) > 0) {
    for (long at = 0; at < n;) {
      const entry *e = (const entry *)(listed + at);
      if (e->name[0] >= '0' && e->name[0] <= '9') look(arg, folder, e->name);
      at += e->bytes;
    }
  }
  close(folder);
  return n == 0;
}

/* ---- threads ---- */

typedef struct search {
  lupe_proof_facts *facts;
  const pid_t *own;
  size_t own_count;
  size_t open_to_sigsys; /* threads */
  int folder;            /* of fdinfo */
} search;

/* Whether a system call is one after which the caller stands still until its child has gone on. What clone3
 * points to may be gone by now: the kernel reads it for us. */
static bool is_vfork(long number, const uint64_t *arguments) {
  if (number == SYS_vfork) return true;
  if (number == SYS_clone) return (arguments[0] & CLONE_VFORK) != 0;
  if (number != SYS_clone3) return false;
  uint64_t flags = 0;
  struct iovec to = {&flags, sizeof flags}, from = {(void *)(uintptr_t)arguments[0], sizeof flags};
  return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == (ssize_t)sizeof flags && (flags & CLONE_VFORK);
}

/* "SigBlk:\t0000000040000000" */
static bool blocks_sigsys(int folder, const char *name) {
  char path[64], text[4096];
  snprintf(path, sizeof path, "%s/status", name);
  if (lupe_kernel_text_read(folder, path, text, sizeof text) <= 0) return false;
  const char *blocked = strstr(text, "\nSigBlk:");
  return blocked && (strtoull(blocked + 8, NULL, 16) >> (SIGSYS - 1) & 1) != 0;
}

/* The line of `syscall` is "running", or "-1 SP PC", or "NUMBER six arguments SP PC". */
static void look_at_thread(void *arg, int folder, const char *name) {
  search *s = arg;
  lupe_proof_facts *f = s->facts;
  char path[64], line[256];
  pid_t tid = (pid_t)strtol(name, NULL, 10);
  for (size_t i = 0; i < s->own_count; i++) {
    if (s->own[i] == tid) return;
  }
  if (f->thread_count == THREADS_MAX) return;
  lupe_proof_thread *t = &f->threads[f->thread_count++];
  *t = (lupe_proof_thread){.tid = tid};
  if (!blocks_sigsys(folder, name)) s->open_to_sigsys++;
  snprintf(path, sizeof path, "%s/syscall", name);
  if (lupe_kernel_text_read(folder, path, line, sizeof line) <= 0) return;
  char *at;
  long number = strtol(line, &at, 10);
  if (at == line) return; /* it runs */
  uint64_t numbers[8] = {0};
  int wanted = number >= 0 ? 8 : 2;
  for (int i = 0; i < wanted; i++) numbers[i] = strtoull(at, &at, 16);
  t->sp = numbers[wanted - 2];
  keep(f, t->sp, 0); /* a stack may be an object, and nothing else point to it */
  if (number < 0) return;
  t->in_call = true;
  for (int i = 0; i < 6; i++) keep(f, numbers[i], 0);
  if (is_vfork(number, numbers)) f->vfork = true;
}

/* The C library blocks all signals for moments. */
static bool look_at_threads(search *s) {
  lupe_proof_facts *f = s->facts;
  for (int look = 0; look < BLOCKED_LOOKS; look++) {
    if (look > 0) poll(NULL, 0, BLOCKED_PAUSE_MS);
    f->thread_count = f->pointer_count = 0;
    s->open_to_sigsys = 0;
    if (!for_each_number("/proc/self/task", look_at_thread, s)) return false;
    f->sigsys_blocked = f->thread_count > 0 && s->open_to_sigsys == 0;
    if (!f->sigsys_blocked) break;
  }
  return true;
}

/* ---- what the kernel keeps ---- */

/* "tfd:       19 events: 80000019 data: 7f0012345678  pos:0 ino:..." */
static void take_epoll_line(void *arg, char *line) {
  const char *data = strstr(line, "data:");
  if (data) keep(arg, strtoull(data + 5, NULL, 16), LUPE_HIDDEN_EPOLL);
}

static void read_epoll(lupe_proof_facts *f, int fd) {
  if (!lupe_proof_lines_read(fd, take_epoll_line, f)) f->hidden |= LUPE_HIDDEN_EPOLL;
}

static void look_at_descriptor(void *arg, int folder, const char *name) {
  search *s = arg;
  char link[64];
  ssize_t n = readlinkat(folder, name, link, sizeof link - 1);
  if (n <= 0) return; /* closed meanwhile */
  link[n] = '\0';
  if (strcmp(link, "anon_inode:[io_uring]") == 0) s->facts->hidden |= LUPE_HIDDEN_IO_URING;
  if (strcmp(link, "anon_inode:[eventpoll]") != 0) return;
  int fd = s->folder < 0 ? -1 : openat(s->folder, name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    if (errno != ENOENT) s->facts->hidden |= LUPE_HIDDEN_EPOLL;
    return;
  }
  read_epoll(s->facts, fd);
  close(fd);
}

/* The agent's thread has descriptors of its own: the program's are those of any other thread that lives (the
 * first may have left by pthread_exit). */
static void look_at_descriptors(search *s) {
  bool read = s->facts->thread_count == 0;
  for (size_t i = 0; !read && i < s->facts->thread_count; i++) {
    char path[64];
    int tid = s->facts->threads[i].tid;
    snprintf(path, sizeof path, "/proc/self/task/%d/fdinfo", tid);
    s->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/task/%d/fd", tid);
    read = for_each_number(path, look_at_descriptor, s);
    if (s->folder >= 0) close(s->folder);
  }
  if (!read) s->facts->hidden |= LUPE_HIDDEN_EPOLL | LUPE_HIDDEN_IO_URING;
}

/* "signal: 60/00007fff86e452a8" */
static void take_timers_line(void *arg, char *line) {
  const char *value = strncmp(line, "signal:", 7) == 0 ? strchr(line, '/') : NULL;
  if (value) keep(arg, strtoull(value + 1, NULL, 16), LUPE_HIDDEN_TIMERS);
}

static void look_at_timers(lupe_proof_facts *f) {
  int fd = open("/proc/self/timers", O_RDONLY | O_CLOEXEC);
  if (fd < 0 || !lupe_proof_lines_read(fd, take_timers_line, f)) f->hidden |= LUPE_HIDDEN_TIMERS;
  if (fd >= 0) close(fd);
}

static void look_at_mapping(void *arg, const lupe_proof_mapping *m) {
  lupe_proof_facts *f = arg;
  if (!m->writable) return;
  if (f->mapping_count < MAPPINGS_MAX)
    f->mappings[f->mapping_count++] = m->span;
  else
    f->hidden |= LUPE_HIDDEN_NOT_FORKED;
}

static void look_at_mappings(lupe_proof_facts *f) {
  if (!lupe_proof_mappings_read(LUPE_OWN_MAPS, look_at_mapping, f)) f->hidden |= LUPE_HIDDEN_NOT_FORKED;
}

lupe_status lupe_proof_facts_gather(lupe_proof_facts *out, const pid_t *own, size_t own_count,
                                    const void *first_frame) {
  lupe_proof_facts f = {.mapping_bytes = MAPPING_BYTES,
                        .thread_storage_bytes = (uint64_t)pthread_self() - (uintptr_t)first_frame};
  f.mapping =
      mmap(NULL, MAPPING_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (f.mapping == MAP_FAILED) return LUPE_ENOMEM;
  f.threads = f.mapping;
  f.pointers = (uint64_t *)(f.threads + THREADS_MAX);
  search s = {.facts = &f, .own = own, .own_count = own_count, .folder = -1};
  if (!look_at_threads(&s)) {
    lupe_proof_facts_release(&f);
    return LUPE_ENOENT;
  }
  look_at_descriptors(&s);
  look_at_timers(&f);
  f.mappings = (lupe_proof_span *)(f.pointers + POINTERS_MAX);
  look_at_mappings(&f);
  *out = f;
  return LUPE_OK;
}

void lupe_proof_facts_release(lupe_proof_facts *f) {
  if (f->mapping) munmap(f->mapping, f->mapping_bytes);
  f->mapping = NULL;
}

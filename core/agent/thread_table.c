#include "core/agent/thread_table.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/agent/kernel_text.h"

enum {
  INDEX_SIZE = 2 * LUPE_THREADS_MAX, /* a power of two, never more than half full */
  ENTRIES_BYTES = 8192,              /* of the directory, read at once */
  STATUS_BYTES = 4096,
};

struct lupe_thread_table {
  int folder, loadavg; /* the latter -1 where there is none */
  uint64_t links;      /* of the folder, at the last scan: one for every thread, and some */
  long newest;         /* process or thread of this system, at the last scan; 0: not known */
  pid_t pid;
  uint32_t scan;
  size_t count, beyond;
  size_t unused_count;               /* places on top of `unused` */
  uint16_t unused[LUPE_THREADS_MAX]; /* places of no thread */
  uint16_t order[LUPE_THREADS_MAX];  /* places of the `count` threads */
  uint16_t index[INDEX_SIZE];        /* by tid: place + 1; 0: none */
  lupe_thread threads[LUPE_THREADS_MAX];
};

/* A forked child begins with its parent's. */
static lupe_thread_table *mapping;

lupe_status lupe_thread_table_open(lupe_thread_table **out) {
  if (mapping) {
    if (madvise(mapping, sizeof *mapping, MADV_DONTNEED) != 0) return LUPE_ENOMEM; /* zeros again */
  } else {
    void *fresh = mmap(NULL, sizeof *mapping, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fresh == MAP_FAILED) return LUPE_ENOMEM;
    madvise(fresh, sizeof *mapping, MADV_NOHUGEPAGE); /* a few threads are a few pages */
    mapping = fresh;
  }
  int folder = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return LUPE_ENOENT;
  mapping->folder = folder;
  mapping->loadavg = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
  mapping->pid = getpid();
  lupe_thread_table_forget(mapping);
  *out = mapping;
  return LUPE_OK;
}

int lupe_thread_table_folder(const lupe_thread_table *t) {
  return t->folder;
}

void lupe_thread_table_forget(lupe_thread_table *t) {
  t->count = t->beyond = 0;
  t->links = 0; /* as no folder has */
  memset(t->index, 0, sizeof t->index);
  t->unused_count = LUPE_THREADS_MAX;
  for (size_t i = 0; i < LUPE_THREADS_MAX; i++) t->unused[i] = (uint16_t)(LUPE_THREADS_MAX - 1 - i);
}

void lupe_thread_table_close(lupe_thread_table *t) {
  if (!t) return;
  close(t->folder);
  if (t->loadavg >= 0) close(t->loadavg);
  mapping = NULL; /* first: a child forked in between must not use what it has not got */
  munmap(t, sizeof *t);
}

/* Where the thread's place stands in the index, or where it would. */
static uint16_t *find(lupe_thread_table *t, pid_t tid) {
  size_t i = (uint32_t)tid * UINT32_C(2654435761) % INDEX_SIZE;
  while (t->index[i] != 0 && t->threads[t->index[i] - 1].tid != tid) i = (i + 1) % INDEX_SIZE;
  return &t->index[i];
}

static void see(lupe_thread_table *t, pid_t tid, lupe_thread_event *started, void *arg) {
  uint16_t *entry = find(t, tid);
  if (*entry != 0) {
    t->threads[*entry - 1].scan = t->scan;
    return;
  }
  if (t->unused_count == 0) {
    t->beyond++;
    return;
  }
  uint16_t place = t->unused[--t->unused_count];
  lupe_thread *fresh = &t->threads[place];
  memset(fresh, 0, sizeof *fresh);
  fresh->tid = tid;
  fresh->scan = t->scan;
  *entry = place + 1;
  t->order[t->count++] = place;
  started(arg, fresh);
}

static bool is_own(pid_t tid, const pid_t *own, size_t own_count) {
  for (size_t i = 0; i < own_count; i++) {
    if (own[i] == tid) return true;
  }
  return false;
}

/* A thread that ends while the directory is read may hide another one: whoever is missing is asked for. */
static bool has_ended(const lupe_thread_table *t, const lupe_thread *thread, const pid_t *own,
                      size_t own_count) {
  if (thread->scan == t->scan) return false;
  if (is_own(thread->tid, own, own_count)) return true;
  return syscall(SYS_tgkill, t->pid, thread->tid, 0) != 0 && errno == ESRCH;
}

static void drop_ended(lupe_thread_table *t, const pid_t *own, size_t own_count, lupe_thread_event *ended,
                       void *arg) {
  size_t kept = 0;
  for (size_t i = 0; i < t->count; i++) {
    uint16_t place = t->order[i];
    lupe_thread *thread = &t->threads[place];
    if (has_ended(t, thread, own, own_count)) {
      ended(arg, thread);
      thread->tid = 0;
      t->unused[t->unused_count++] = place;
    } else {
      t->order[kept++] = place;
    }
  }
  if (kept == t->count) return;
  t->count = kept;
  memset(t->index, 0, sizeof t->index);
  for (size_t i = 0; i < kept; i++) *find(t, t->threads[t->order[i]].tid) = t->order[i] + 1;
}

static uint64_t read_links(const lupe_thread_table *t) {
  struct stat folder;
  return fstat(t->folder, &folder) == 0 ? folder.st_nlink : 0;
}

/* The last number of loadavg: what was started last has it. */
static long read_newest(const lupe_thread_table *t) {
  char text[128];
  ssize_t n = t->loadavg >= 0 ? pread(t->loadavg, text, sizeof text - 1, 0) : -1;
  if (n <= 0) return 0;
  text[n] = '\0';
  const char *last = strrchr(text, ' ');
  return last ? strtol(last, NULL, 10) : 0;
}

lupe_thread_change lupe_thread_table_changed(const lupe_thread_table *t) {
  if (read_links(t) != t->links) return LUPE_THREADS_CHANGED;
  long newest = read_newest(t);
  return newest != 0 && newest == t->newest ? LUPE_THREADS_SAME : LUPE_THREADS_PERHAPS;
}

lupe_status lupe_thread_table_scan(lupe_thread_table *t, const pid_t *own, size_t own_count,
                                   lupe_thread_event *started, lupe_thread_event *ended, void *arg) {
  _Alignas(struct dirent64) char entries[ENTRIES_BYTES];
  long bytes;
  if (lseek(t->folder, 0, SEEK_SET) != 0) return LUPE_EIO;
  t->links = read_links(t); /* before the scan: what changes meanwhile counts for the next one */
  t->newest = read_newest(t);
  t->scan++;
  t->beyond = 0;
  while ((bytes = syscall(SYS_getdents64, t->folder, entries, sizeof entries)) > 0) {
    for (long at = 0; at < bytes;) {
      const struct dirent64 *entry = (const struct dirent64 *)(entries + at);
      long tid = strtol(entry->d_name, NULL, 10); /* 0: "." and ".." */
      if (tid > 0 && !is_own((pid_t)tid, own, own_count)) see(t, (pid_t)tid, started, arg);
      at += entry->d_reclen;
    }
  }
  drop_ended(t, own, own_count, ended, arg);
  return bytes < 0 ? LUPE_EIO : LUPE_OK;
}

size_t lupe_thread_table_count(const lupe_thread_table *t) {
  return t->count;
}

lupe_thread *lupe_thread_table_at(lupe_thread_table *t, size_t i) {
  return &t->threads[t->order[i]];
}

size_t lupe_thread_table_place(const lupe_thread_table *t, const lupe_thread *thread) {
  return (size_t)(thread - t->threads);
}

size_t lupe_thread_table_beyond(const lupe_thread_table *t) {
  return t->beyond;
}

lupe_status lupe_thread_table_status(const lupe_thread_table *t, pid_t tid, lupe_thread_status *out) {
  static const char state_title[] = "\nState:\t", queue_title[] = "\nSigQ:\t",
                    blocked_title[] = "\nSigBlk:\t";
  char name[32], text[STATUS_BYTES];
  snprintf(name, sizeof name, "%d/status", (int)tid);
  if (lupe_kernel_text_read(t->folder, name, text, sizeof text) <= 0) return LUPE_ENOENT;
  const char *state = strstr(text, state_title), *blocked = strstr(text, blocked_title),
             *queue = strstr(text, queue_title);
  if (!state || !blocked) return LUPE_ENOENT;
  out->state = state[sizeof state_title - 1];
  out->queued = out->queue_limit = 0;
  if (queue) { /* "used/limit" */
    char *behind;
    out->queued = strtoull(queue + sizeof queue_title - 1, &behind, 10);
    if (*behind == '/') out->queue_limit = strtoull(behind + 1, NULL, 10);
  }
  out->blocked = strtoull(blocked + sizeof blocked_title - 1, NULL, 16);
  return LUPE_OK;
}

#include "core/store/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/status.h"
#include "core/store/proc_stat.h"

enum {
  STATM_BYTES = 256,
  MAX_THREADS_ASKED = 4096,
  MAX_NAME_BYTES = 256,
};

static bool is_zombie(const lupe_proc_stat *s) {
  return s->state == 'Z' || s->state == 'X' || s->state == 'x';
}

/* A main thread that called pthread_exit is a zombie whose process lives on. */
static bool has_ended(const lupe_proc_stat *s) {
  return is_zombie(s) && s->fields[STAT_THREADS] <= 1;
}

/* The memory of a process is read through any thread that has not ended: `name` below the folder of one. */
static lupe_status read_thread_file(int folder, const char *name, char *out, size_t capacity,
                                    size_t *out_bytes) {
  int fd = openat(folder, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return lupe__status_of_errno(errno);
  DIR *threads = fdopendir(fd);
  if (!threads) {
    close(fd);
    return LUPE_ENOMEM;
  }
  lupe_status status = LUPE_ENOENT;
  const struct dirent *entry;
  for (int asked = 0; asked < MAX_THREADS_ASKED && (entry = readdir(threads)); asked++) {
    if (entry->d_name[0] == '.') continue;
    int thread = openat(dirfd(threads), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (thread < 0) continue;
    lupe_proc_stat stat;
    bool runs = lupe__proc_stat(thread, &stat) == LUPE_OK && !is_zombie(&stat);
    if (runs) status = lupe__proc_read(thread, name, out, capacity, out_bytes);
    close(thread);
    if (runs && status == LUPE_OK) break;
  }
  closedir(threads);
  return status;
}

/* stat, and one more file whose content a zombie leader hides. */
static lupe_status read_with_stat(pid_t pid, const char *name, char *out, size_t capacity,
                                  lupe_proc_stat *out_stat) {
  int folder;
  size_t bytes;
  lupe_proc_stat stat;
  lupe_status status = lupe__proc_open(pid, &folder);
  if (status != LUPE_OK) return status;
  status = lupe__proc_stat(folder, &stat);
  if (status != LUPE_OK) goto done;
  status = LUPE_ENOENT;
  if (has_ended(&stat)) goto done;
  status = is_zombie(&stat) ? read_thread_file(folder, name, out, capacity, &bytes)
                            : lupe__proc_read(folder, name, out, capacity, &bytes);
  if (status == LUPE_OK) *out_stat = stat;
done:
  close(folder);
  return status;
}

lupe_status lupe_process_read(pid_t pid, lupe_memory_figures *out) {
  char text[STATM_BYTES];
  lupe_proc_stat stat;
  uint64_t pages[3]; /* virtual, resident, shared (file and shmem) */
  lupe_status status = read_with_stat(pid, "statm", text, sizeof text, &stat);
  if (status != LUPE_OK) return status;
  if (!lupe__proc_numbers(text, pages, 3)) return LUPE_ECORRUPT;
  if (pages[0] == 0) return LUPE_ENOENT; /* on its way out, or a kernel thread */
  uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
  uint64_t tick_ns = UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK);
  *out = (lupe_memory_figures){
      .time_ms = lupe_unix_ms(),
      .rss_bytes = pages[1] * page_bytes,
      .virtual_bytes = pages[0] * page_bytes,
      .shared_bytes = pages[2] * page_bytes,
      .user_ns = stat.fields[STAT_USER] * tick_ns,
      .system_ns = stat.fields[STAT_SYSTEM] * tick_ns,
      .minor_faults = stat.fields[STAT_MINOR],
      .major_faults = stat.fields[STAT_MAJOR],
      .threads = (uint32_t)stat.fields[STAT_THREADS],
  };
  return LUPE_OK;
}

lupe_status lupe_process_start_ticks(pid_t pid, uint64_t *out) {
  int folder;
  lupe_proc_stat stat;
  lupe_status status = lupe__proc_open(pid, &folder);
  if (status != LUPE_OK) return status;
  status = lupe__proc_stat(folder, &stat);
  close(folder);
  if (status != LUPE_OK) return status;
  if (has_ended(&stat)) return LUPE_ENOENT;
  *out = stat.fields[STAT_START];
  return LUPE_OK;
}

lupe_status lupe_process_comm(pid_t pid, char *out, size_t capacity) {
  char text[MAX_NAME_BYTES];
  size_t bytes;
  int folder;
  lupe_status status = lupe__proc_open(pid, &folder);
  if (status != LUPE_OK) return status;
  status = lupe__proc_read(folder, "comm", text, sizeof text, &bytes);
  close(folder);
  if (status != LUPE_OK) return status;
  if (bytes > 0 && text[bytes - 1] == '\n') text[--bytes] = '\0';
  if (bytes >= capacity) return LUPE_EINVAL;
  memcpy(out, text, bytes + 1);
  return LUPE_OK;
}

lupe_status lupe_process_name(pid_t pid, char *out, size_t capacity) {
  static const char deleted[] = " (deleted)";
  char link[PATH_MAX];
  int folder;
  lupe_status status = lupe__proc_open(pid, &folder);
  if (status != LUPE_OK) return status;
  ssize_t n = readlinkat(folder, "exe", link, sizeof link - 1);
  close(folder);
  if (n <= 0) return lupe_process_comm(pid, out, capacity); /* not ours to see, or a kernel thread */
  link[n] = '\0';
  size_t remark = sizeof deleted - 1, bytes = (size_t)n;
  if (bytes > remark && strcmp(link + bytes - remark, deleted) == 0) link[bytes - remark] = '\0';
  const char *slash = strrchr(link, '/');
  const char *name = slash ? slash + 1 : link;
  if (strlen(name) >= capacity) return LUPE_EINVAL;
  memcpy(out, name, strlen(name) + 1);
  return LUPE_OK;
}

lupe_status lupe_host_load_read(lupe_host_load *out) {
  double load[3];
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  if (getloadavg(load, 3) != 3 || cores <= 0) return LUPE_EIO;
  *out = (lupe_host_load){load[0], load[1], load[2], (uint32_t)cores};
  return LUPE_OK;
}

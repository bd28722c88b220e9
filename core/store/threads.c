#include "core/store/threads.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/status.h"
#include "core/store/proc_stat.h"

static bool read_thread(int threads, const char *tid, uint64_t tick_ns, lupe_thread_figures *out) {
  int folder = openat(threads, tid, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return false;
  lupe_proc_stat stat;
  lupe_status status = lupe__proc_stat(folder, &stat);
  close(folder);
  if (status != LUPE_OK) return false;
  *out = (lupe_thread_figures){
      .tid = (pid_t)strtol(tid, NULL, 10),
      .user_ns = stat.fields[STAT_USER] * tick_ns,
      .system_ns = stat.fields[STAT_SYSTEM] * tick_ns,
  };
  memcpy(out->name, stat.name, sizeof out->name);
  return true;
}

lupe_status lupe_threads_read(pid_t pid, lupe_thread_figures *out, size_t capacity, size_t *out_count) {
  int folder;
  lupe_status status = lupe__proc_open(pid, &folder);
  if (status != LUPE_OK) return status;
  int fd = openat(folder, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int error = errno;
  close(folder);
  if (fd < 0) return lupe__status_of_errno(error);
  DIR *threads = fdopendir(fd);
  if (!threads) {
    close(fd);
    return LUPE_ENOMEM;
  }
  uint64_t tick_ns = UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK);
  size_t count = 0;
  const struct dirent *entry;
  while (count < capacity && (entry = readdir(threads))) {
    if (entry->d_name[0] != '.' && read_thread(fd, entry->d_name, tick_ns, &out[count])) count++;
  }
  closedir(threads);
  *out_count = count;
  return LUPE_OK;
}

#include "core/agent/proof_room.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/agent/kernel_text.h"

static bool read_text(const char *path, char *text, size_t capacity) {
  return lupe_kernel_text_read(AT_FDCWD, path, text, capacity) > 0;
}

/* The number after `name` at the beginning of a line. */
static bool find_number(const char *text, const char *name, uint64_t *out) {
  size_t length = strlen(name);
  for (const char *line = text; line; line = strchr(line, '\n')) {
    if (*line == '\n') line++;
    if (strncmp(line, name, length) != 0) continue;
    char *end;
    *out = strtoull(line + length, &end, 10);
    return end != line + length;
  }
  return false;
}

static uint64_t lower(uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

static uint64_t difference(uint64_t a, uint64_t b) {
  return a > b ? a - b : 0;
}

static uint64_t room_of_machine(void) {
  char text[4096];
  uint64_t room = UINT64_MAX, kib, used_kib;
  if (!read_text("/proc/meminfo", text, sizeof text)) return room;
  if (find_number(text, "MemAvailable:", &kib)) room = kib * 1024;
  char mode[8];
  bool strict = read_text("/proc/sys/vm/overcommit_memory", mode, sizeof mode) && mode[0] == '2';
  if (strict && find_number(text, "CommitLimit:", &kib) && find_number(text, "Committed_AS:", &used_kib))
    room = lower(room, difference(kib, used_kib) * 1024);
  return room;
}

/* What the files of one group leave; names differ between the two versions of cgroups. */
static uint64_t room_of_group(const char *folder, const char *limit_name, const char *used_name,
                              const char *cached_name) {
  char path[PATH_MAX + 64], text[8192];
  uint64_t limit, used, cached = 0;
  snprintf(path, sizeof path, "%s/%s", folder, limit_name);
  if (!read_text(path, text, sizeof text) || !find_number(text, "", &limit)) return UINT64_MAX; /* "max" */
  snprintf(path, sizeof path, "%s/%s", folder, used_name);
  if (!read_text(path, text, sizeof text) || !find_number(text, "", &used)) return UINT64_MAX;
  snprintf(path, sizeof path, "%s/memory.stat", folder);
  if (read_text(path, text, sizeof text)) find_number(text, cached_name, &cached);
  return difference(limit, difference(used, cached));
}

/* From the process's own group up to the root of what is mounted; in a container that is its own group. */
static uint64_t room_of_groups(const char *mount, char *group, const char *limit_name, const char *used_name,
                               const char *cached_name) {
  uint64_t room = UINT64_MAX;
  char folder[PATH_MAX];
  for (;;) {
    snprintf(folder, sizeof folder, "%s%s", mount, group);
    room = lower(room, room_of_group(folder, limit_name, used_name, cached_name));
    char *slash = strrchr(group, '/');
    if (!slash) return room;
    *slash = '\0';
  }
}

/* Lines of /proc/self/cgroup: "0::/path" of version 2, "5:memory:/path" of version 1. */
static uint64_t room_of_cgroups(void) {
  char text[4096];
  uint64_t room = UINT64_MAX;
  if (!read_text("/proc/self/cgroup", text, sizeof text)) return room;
  for (char *line = text, *end; line && *line; line = end) {
    end = strchr(line, '\n');
    if (end) *end++ = '\0';
    char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
    if (!path) continue;
    *path++ = '\0';
    if (names[1] == '\0')
      room = lower(room,
                   room_of_groups("/sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file "));
    else if (strstr(names + 1, "memory"))
      room = lower(room, room_of_groups("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes",
                                        "memory.usage_in_bytes", "total_inactive_file "));
  }
  return room;
}

uint64_t lupe_proof_room_bytes(void) {
  return lower(room_of_machine(), room_of_cgroups());
}

uint64_t lupe_proof_anonymous_bytes(void) {
  char text[128];
  unsigned long resident, shared;
  /* This thread's: the process's own is empty once its first thread has left by pthread_exit. */
  if (!read_text("/proc/thread-self/statm", text, sizeof text)) return 0;
  if (sscanf(text, "%*u %lu %lu", &resident, &shared) != 2) return 0;
  return difference(resident, shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

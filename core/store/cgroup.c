#include "core/store/cgroup.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64, MAX_LINE_BYTES = 2 * PATH_MAX };

/* Version 1 says "none" by the largest number of pages; nothing real comes near. */
#define NO_LIMIT (UINT64_C(1) << 62)

typedef struct hierarchy {
  bool version_2;
  char mount[PATH_MAX]; /* where it is mounted here; "" is not mounted */
  char root[PATH_MAX];  /* which of its groups is mounted there */
  char group[PATH_MAX]; /* the process's own; "" unknown */
} hierarchy;

/* Whether the comma-separated `list` holds `word`. */
static bool lists(const char *list, const char *word) {
  size_t bytes = strlen(word);
  while (*list) {
    size_t item = strcspn(list, ",\n");
    if (item == bytes && strncmp(list, word, bytes) == 0) return true;
    list += item + (list[item] != '\0');
  }
  return false;
}

/* mountinfo writes blanks, tabs, newlines and backslashes as \OOO. In place. */
static void unescape(char *text) {
  char *out = text;
  for (const char *in = text; *in; out++) {
    bool octal = in[0] == '\\' && in[1] >= '0' && in[1] <= '3' && in[2] >= '0' && in[2] <= '7' &&
                 in[3] >= '0' && in[3] <= '7';
    *out = octal ? (char)((in[1] - '0') << 6 | (in[2] - '0') << 3 | (in[3] - '0')) : *in;
    in += octal ? 4 : 1;
  }
  *out = '\0';
}

static void copy_text(char out[PATH_MAX], const char *text) {
  if (strlen(text) < PATH_MAX) memcpy(out, text, strlen(text) + 1);
}

/* "36 35 98:0 /root /mount options [tags] - type source super-options" */
static void take_mount(char *line, hierarchy *v1, hierarchy *v2) {
  char *tail = strstr(line, " - ");
  if (!tail) return;
  *tail = '\0';
  char *save, *fields[5];
  size_t count = 0;
  for (char *f = strtok_r(line, " ", &save); f && count < 5; f = strtok_r(NULL, " ", &save))
    fields[count++] = f;
  const char *type = strtok_r(tail + 3, " \n", &save);
  const char *source = strtok_r(NULL, " \n", &save);
  const char *options = strtok_r(NULL, " \n", &save);
  if (count < 5 || !type || !source || !options) return;
  hierarchy *h = strcmp(type, "cgroup2") == 0                              ? v2
                 : strcmp(type, "cgroup") == 0 && lists(options, "memory") ? v1
                                                                           : NULL;
  if (!h || h->mount[0]) return;
  unescape(fields[3]);
  unescape(fields[4]);
  copy_text(h->root, fields[3]);
  copy_text(h->mount, fields[4]);
}

/* "4:memory:/a/b" or "0::/a/b" */
static void take_group(char *line, hierarchy *v1, hierarchy *v2) {
  line[strcspn(line, "\n")] = '\0';
  char *controllers = strchr(line, ':');
  char *path = controllers ? strchr(controllers + 1, ':') : NULL;
  if (!path) return;
  *path++ = '\0';
  controllers++;
  if (*controllers == '\0') copy_text(v2->group, path);
  if (lists(controllers, "memory")) copy_text(v1->group, path);
}

/* Calls `take` for each line. False if the file cannot be opened. Lines too long for any path are passed
 * over. */
static bool each_line(const char *path, void (*take)(char *, hierarchy *, hierarchy *), hierarchy *v1,
                      hierarchy *v2) {
  FILE *file = fopen(path, "re");
  if (!file) return false;
  char *line = malloc(MAX_LINE_BYTES);
  bool whole = true; /* the next piece begins a line */
  while (line && fgets(line, MAX_LINE_BYTES, file)) {
    bool begins = whole;
    whole = strchr(line, '\n') != NULL;
    if (begins && whole) take(line, v1, v2);
  }
  free(line);
  fclose(file);
  return line != NULL;
}

/* The number in folder/name; "max" is NO_LIMIT. */
static bool read_number(const char *folder, const char *name, uint64_t *out) {
  char path[PATH_MAX + 64], text[64];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "re");
  if (!file) return false;
  bool got = fgets(text, sizeof text, file) != NULL;
  fclose(file);
  if (!got) return false;
  if (strcmp(text, "max\n") == 0) {
    *out = NO_LIMIT;
    return true;
  }
  if (!isdigit((unsigned char)text[0])) return false;
  *out = strtoull(text, NULL, 10);
  return true;
}

/* The number behind `name` in folder/memory.stat; 0 where there is none. */
static uint64_t read_stat(const char *folder, const char *name) {
  char path[PATH_MAX + 64], line[256];
  size_t bytes = strlen(name);
  snprintf(path, sizeof path, "%s/memory.stat", folder);
  FILE *file = fopen(path, "re");
  if (!file) return 0;
  uint64_t found = 0;
  while (found == 0 && fgets(line, sizeof line, file)) {
    if (strncmp(line, name, bytes) == 0 && line[bytes] == ' ') found = strtoull(line + bytes + 1, NULL, 10);
  }
  fclose(file);
  return found;
}

/* The group's path below the mount. A group outside of what is mounted here (a container that sees its own
 * group only) is taken for the mount's root. */
static const char *below_mount(const hierarchy *h) {
  size_t bytes = strcmp(h->root, "/") == 0 ? 0 : strlen(h->root);
  bool outside =
      strncmp(h->group, h->root, bytes) != 0 || (h->group[bytes] != '/' && h->group[bytes] != '\0');
  return outside || strstr(h->group, "/..") ? "" : h->group + bytes;
}

/* Goes up from the process's group: the first one that can be read counts, and after it those with a smaller
 * limit. `*found` says whether `best` holds anything yet. */
static void walk(const hierarchy *h, lupe_cgroup_memory *best, bool *found) {
  if (!h->mount[0] || !h->group[0]) return;
  char folder[2 * PATH_MAX];
  size_t mount_bytes = strlen(h->mount);
  snprintf(folder, sizeof folder, "%s%s", h->mount, below_mount(h));
  for (int depth = 0; depth < MAX_DEPTH; depth++) {
    size_t bytes = strlen(folder);
    while (bytes > mount_bytes && folder[bytes - 1] == '/') folder[--bytes] = '\0';
    uint64_t limit, used;
    bool read = bytes < PATH_MAX &&
                read_number(folder, h->version_2 ? "memory.current" : "memory.usage_in_bytes", &used) &&
                read_number(folder, h->version_2 ? "memory.max" : "memory.limit_in_bytes", &limit);
    if (read && limit >= NO_LIMIT) limit = 0;
    bool smaller = read && limit > 0 && (best->limit_bytes == 0 || limit < best->limit_bytes);
    if (read && (smaller || !*found)) {
      uint64_t idle = read_stat(folder, h->version_2 ? "inactive_file" : "total_inactive_file");
      *best = (lupe_cgroup_memory){limit, used, idle < used ? idle : used};
    }
    *found = *found || read;
    if (bytes <= mount_bytes) return;
    *strrchr(folder, '/') = '\0';
  }
}

lupe_status lupe__cgroup_memory_from(const char *cgroup_path, const char *mountinfo_path,
                                     lupe_cgroup_memory *out) {
  lupe_status status = LUPE_ENOMEM;
  hierarchy *v1 = calloc(1, sizeof *v1), *v2 = calloc(1, sizeof *v2);
  if (!v1 || !v2) goto done;
  v2->version_2 = true;
  status = LUPE_ENOENT;
  if (!each_line(cgroup_path, take_group, v1, v2) || !each_line(mountinfo_path, take_mount, v1, v2))
    goto done;
  lupe_cgroup_memory best = {0};
  bool found = false;
  walk(v2, &best, &found);
  walk(v1, &best, &found);
  if (!found) goto done;
  *out = best;
  status = LUPE_OK;
done:
  free(v2);
  free(v1);
  return status;
}

lupe_status lupe_cgroup_memory_read(pid_t pid, lupe_cgroup_memory *out) {
  char path[48];
  snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
  return lupe__cgroup_memory_from(path, "/proc/self/mountinfo", out);
}

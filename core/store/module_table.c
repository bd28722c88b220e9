#include "core/store/module_table.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/store/hash.h"

enum {
  FIRST_SLOTS = 64,
  PATH_BYTES_MAX = 16 << 20,
};

typedef struct module {
  char *path;
  lupe_file_version version;
  int32_t pid;
} module;

struct lupe_module_table {
  pthread_mutex_t lock; /* all below; a path, once stored, never changes */
  module *modules;
  uint16_t *slots; /* open addressing; 0 is free, since module 0 is never looked up */
  uint32_t count, capacity, slot_count;
  size_t path_bytes;
  uint64_t overflows;
};

lupe_status lupe_module_table_create(lupe_module_table **out) {
  lupe_module_table *t = calloc(1, sizeof *t);
  if (!t) return LUPE_ENOMEM;
  t->capacity = FIRST_SLOTS / 2;
  t->slot_count = FIRST_SLOTS;
  t->modules = calloc(t->capacity, sizeof *t->modules);
  t->slots = calloc(t->slot_count, sizeof *t->slots);
  if (!t->modules || !t->slots || pthread_mutex_init(&t->lock, NULL) != 0) {
    free(t->modules);
    free(t->slots);
    free(t);
    return LUPE_ENOMEM;
  }
  t->count = 1;
  *out = t;
  return LUPE_OK;
}

void lupe_module_table_free(lupe_module_table *t) {
  if (!t) return;
  for (uint32_t i = 1; i < t->count; i++) free(t->modules[i].path);
  free(t->modules);
  free(t->slots);
  pthread_mutex_destroy(&t->lock);
  free(t);
}

/* The slot that holds this version of the path, or the free one where it belongs. */
static uint32_t find_slot(const lupe_module_table *t, const char *path, size_t bytes,
                          const lupe_file_version *version) {
  const uint64_t words[] = {lupe_hash_bytes(path, bytes), version->inode, (uint64_t)version->mtime_ns};
  uint32_t at = (uint32_t)lupe_hash_words(words, sizeof words / sizeof *words) & (t->slot_count - 1);
  for (; t->slots[at]; at = (at + 1) & (t->slot_count - 1)) {
    const module *other = &t->modules[t->slots[at]];
    bool same_path = strncmp(other->path, path, bytes) == 0 && other->path[bytes] == '\0';
    if (same_path && lupe_file_version_is(&other->version, version)) break;
  }
  return at;
}

/* Doubles both arrays, so that half of the slots stay free. */
static bool grow(lupe_module_table *t) {
  module *modules = realloc(t->modules, 2 * t->capacity * sizeof *modules);
  if (!modules) return false;
  t->modules = modules;
  uint16_t *slots = calloc(2 * t->slot_count, sizeof *slots);
  if (!slots) return false;
  free(t->slots);
  t->slots = slots;
  t->capacity *= 2;
  t->slot_count *= 2;
  for (uint32_t i = 1; i < t->count; i++) {
    const module *m = &t->modules[i];
    t->slots[find_slot(t, m->path, strlen(m->path), &m->version)] = (uint16_t)i;
  }
  return true;
}

static uint16_t insert(lupe_module_table *t, const char *path, size_t bytes, const lupe_file_version *version,
                       int32_t pid) {
  if (t->count == LUPE_MODULES_MAX || t->path_bytes + bytes > PATH_BYTES_MAX) return LUPE_MODULE_UNKNOWN;
  if (t->count == t->capacity && !grow(t)) return LUPE_MODULE_UNKNOWN;
  char *copy = malloc(bytes + 1);
  if (!copy) return LUPE_MODULE_UNKNOWN;
  memcpy(copy, path, bytes);
  copy[bytes] = '\0';
  t->modules[t->count] = (module){.path = copy, .version = *version, .pid = pid};
  t->slots[find_slot(t, copy, bytes, version)] = (uint16_t)t->count;
  t->path_bytes += bytes;
  return (uint16_t)t->count++;
}

uint16_t lupe_module_table_intern(lupe_module_table *t, const char *path, size_t bytes,
                                  const lupe_file_version *version, int32_t pid) {
  static const lupe_file_version unknown = {0};
  if (!version) version = &unknown;
  if (bytes == 0 || memchr(path, '\0', bytes)) return LUPE_MODULE_UNKNOWN;
  pthread_mutex_lock(&t->lock);
  uint16_t id = t->slots[find_slot(t, path, bytes, version)];
  if (!id) {
    id = insert(t, path, bytes, version, pid);
    if (!id) t->overflows++;
  }
  pthread_mutex_unlock(&t->lock);
  return id;
}

uint32_t lupe_module_table_count(lupe_module_table *t) {
  pthread_mutex_lock(&t->lock);
  uint32_t count = t->count;
  pthread_mutex_unlock(&t->lock);
  return count;
}

const char *lupe_module_table_path(lupe_module_table *t, uint16_t id) {
  pthread_mutex_lock(&t->lock);
  const char *path = id > 0 && id < t->count ? t->modules[id].path : "";
  pthread_mutex_unlock(&t->lock);
  return path;
}

int32_t lupe_module_table_pid(lupe_module_table *t, uint16_t id) {
  pthread_mutex_lock(&t->lock);
  int32_t pid = id > 0 && id < t->count ? t->modules[id].pid : 0;
  pthread_mutex_unlock(&t->lock);
  return pid;
}

lupe_file_version lupe_module_table_version(lupe_module_table *t, uint16_t id) {
  pthread_mutex_lock(&t->lock);
  lupe_file_version version =
      id > 0 && id < t->count ? t->modules[id].version : (lupe_file_version){.inode = 0};
  pthread_mutex_unlock(&t->lock);
  return version;
}

uint64_t lupe_module_table_overflows(lupe_module_table *t) {
  pthread_mutex_lock(&t->lock);
  uint64_t overflows = t->overflows;
  pthread_mutex_unlock(&t->lock);
  return overflows;
}

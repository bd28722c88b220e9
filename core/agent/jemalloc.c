#include "core/agent/jemalloc.h"

#include <stdlib.h>

/* mallctl may be there while malloc is somebody else's (a program with its own allocator, under a
 * preloaded jemalloc): then jemalloc does not notice an allocation. */
bool lupe_jemalloc_is_malloc(void) {
  uint64_t before = 0, after = 0;
  if (!mallctl || !mallctlnametomib || !mallctlbymib) return false;
  if (!lupe_jemalloc_get("thread.allocated", &before, sizeof before)) return true; /* without statistics */
  void *volatile block = malloc(64);
  bool known = lupe_jemalloc_get("thread.allocated", &after, sizeof after);
  free(block);
  return !known || after != before;
}

bool lupe_jemalloc_get(const char *name, void *out, size_t bytes) {
  size_t got = bytes;
  return mallctl(name, out, &got, NULL, 0) == 0 && got == bytes;
}

bool lupe_jemalloc_set(const char *name, bool value) {
  return mallctl(name, NULL, NULL, &value, sizeof value) == 0;
}

uint64_t lupe_jemalloc_size(const char *name) {
  size_t value = 0;
  return lupe_jemalloc_get(name, &value, sizeof value) ? value : 0;
}

bool lupe_jemalloc_flag(const char *name) {
  bool value = false;
  return lupe_jemalloc_get(name, &value, sizeof value) && value;
}

lupe_jemalloc_name lupe_jemalloc_look_up(const char *name) {
  lupe_jemalloc_name n = {.length = LUPE_MIB_MAX};
  if (mallctlnametomib(name, n.mib, &n.length) != 0) n.length = 0;
  return n;
}

uint64_t lupe_jemalloc_read(lupe_jemalloc_name *n, size_t position, size_t index) {
  size_t value = 0, bytes = sizeof value;
  if (n->length <= position) return 0;
  n->mib[position] = index;
  return mallctlbymib(n->mib, n->length, &value, &bytes, NULL, 0) == 0 ? value : 0;
}

static int with_arena(const char *of_first, unsigned arena, ssize_t *old, ssize_t *new) {
  size_t mib[LUPE_MIB_MAX], length = LUPE_MIB_MAX, bytes = sizeof *old;
  int error = mallctlnametomib(of_first, mib, &length);
  if (error) return error;
  mib[1] = arena;
  return mallctlbymib(mib, length, old, old ? &bytes : NULL, new, new ? sizeof *new : 0);
}

int lupe_jemalloc_act(const char *of_first, unsigned arena) {
  return with_arena(of_first, arena, NULL, NULL);
}

int lupe_jemalloc_decay(const char *of_first, unsigned arena, ssize_t *ms) {
  return with_arena(of_first, arena, ms, NULL);
}

int lupe_jemalloc_set_decay(const char *of_first, unsigned arena, ssize_t ms) {
  return with_arena(of_first, arena, NULL, &ms);
}

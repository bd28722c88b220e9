/* preload.c -- where the agent enters a program that it was preloaded into.
 * Without LUPE_SOCKET in its environment it does nothing at all. */
#include <stdlib.h>
#include <string.h>

#include "core/agent/agent_internal.h"

__attribute__((constructor)) static void enter(void) {
  const char *path = secure_getenv("LUPE_SOCKET");
  if (!path || path[0] == '\0') return;
  const char *allocator = secure_getenv("LUPE_ALLOCATOR");
  lupe__agent_begin(path, allocator && strcmp(allocator, "system") == 0);
}

/* preload.c -- where the agent enters a program: constructor, fork handler, destructor.
 * Without LUPE_SOCKET in its environment it does nothing at all. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/agent/control.h"
#include "core/agent/cpu.h"
#include "core/agent/heap.h"
#include "core/agent/marks.h"
#include "core/agent/quiet_fork.h"
#include "core/agent/wiped.h"

static void before_fork(void) {
  lupe_heap_before_fork();
  lupe_cpu_before_fork();
}

static void after_fork(void) {
  lupe_cpu_after_fork();
  lupe_heap_after_fork();
}

static void after_fork_in_child(void) {
  lupe_cpu_after_fork();
  lupe_heap_after_fork_in_child();
  if (lupe_control_has_left()) return; /* behind a filter: no system call */
  lupe_quiet_fork_after_fork_in_child();
  lupe_marks_after_fork_in_child();
  lupe_wiped_after_fork();
  lupe_control_after_fork();
}

__attribute__((constructor)) static void enter(void) {
  const char *path = secure_getenv("LUPE_SOCKET");
  if (!path || path[0] == '\0') return;
  const char *allocator = secure_getenv("LUPE_ALLOCATOR");
  /* A first allocation makes jemalloc register its fork handlers. Ours must come later: in the child
   * they run in this order, and ours needs an allocator that works again. Before a fork they run the other
   * way round, so what ours waits for does not wait for the allocator. */
  void *volatile block = malloc(1);
  free(block);
  lupe_heap_info heap;
  if (lupe_wiped_create() != LUPE_OK) return;
  lupe_heap_prepare(allocator && strcmp(allocator, "system") == 0, &heap);
  if (pthread_atfork(before_fork, after_fork, after_fork_in_child) != 0) return;
  lupe_control_start(path, &heap);
}

__attribute__((destructor)) static void leave(void) {
  lupe_control_finish();
}

#include "core/agent/agent.h"

#include <pthread.h>
#include <stdlib.h>

#include "core/agent/control.h"
#include "core/agent/cpu.h"
#include "core/agent/wiped.h"

static lupe_heap_info heap;

lupe_status lupe_agent_start(const char *socket_path, bool leave_allocator) {
  if (lupe_wiped_create() != LUPE_OK) return LUPE_EUNSUPPORTED;
  lupe_heap_prepare(leave_allocator, &heap);
  lupe_control_start(socket_path, &heap);
  return LUPE_OK;
}

void lupe_agent_stop(void) {
  lupe_control_finish();
}

bool lupe_agent_online(void) {
  return false;
}

const lupe_heap_info *lupe_agent_heap(void) {
  return &heap;
}

lupe_status lupe_agent_adopt_thread(void) {
  lupe_heap_hide_thread();
  return LUPE_OK;
}

void lupe_agent_release_thread(void) {}

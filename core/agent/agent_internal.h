/* agent_internal.h -- what agent.c does for preload.c alone. */
#ifndef LUPE_AGENT_AGENT_INTERNAL_H
#define LUPE_AGENT_AGENT_INTERNAL_H

#include <stdbool.h>

#include "core/agent/agent.h"

/* As lupe_agent_start, but a runtime that is slow to answer keeps the program waiting for its HELLO only, at
 * most 1 s, and the agent goes on trying. Thread: the constructor's. */
lupe_status lupe__agent_begin(const char *socket_path, bool leave_allocator);

#endif

/* host_internal.h -- what the two halves of the host share: host.c (questions) and host_tasks.c. */
#ifndef LUPE_SCRIPT_HOST_INTERNAL_H
#define LUPE_SCRIPT_HOST_INTERNAL_H

#include <stdbool.h>

#include "core/script/host.h"

#define LUPE__SNAPSHOT_TYPE "lupe.snapshot"

enum { LUPE__SERIES_ROWS = 1000 };

struct lupe_host {
  lupe_host_services services;
  lupe_memory_figures rows[LUPE__SERIES_ROWS]; /* what `series` reads into */
  uint32_t open_tasks;
  bool closing;  /* callbacks are dropped */
  bool orphaned; /* the last open task frees the host */
  struct {
    double time_ms, runtime_cpu_ns, agent_cpu_ns;
  } checkpoints[2]; /* [0] is 30 to 60 s old: own cost is told over that window */
};

/* The host of a function registered with it as its only upvalue. */
lupe_host *lupe__host_of(lua_State *L);
extern const struct luaL_Reg lupe__host_tasks[];

#endif

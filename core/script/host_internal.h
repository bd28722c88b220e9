/* host_internal.h -- what the parts of the host share: host.c (questions), host_tasks.c, host_timer.c,
 * host_watch.c, host_command.c, host_proof.c, host_recordings.c and host_pprof.c (tasks), host_task.c (a
 * task's callback).
 */
#ifndef LUPE_SCRIPT_HOST_INTERNAL_H
#define LUPE_SCRIPT_HOST_INTERNAL_H

#include <stdbool.h>

#include "core/script/host.h"

#define LUPE__SNAPSHOT_TYPE "lupe.snapshot"

enum {
  LUPE__SERIES_ROWS = 1000,
  LUPE__LARGE_SNAPSHOT = 1 << 20, /* bytes: a few that wait for Lua's collector are too many */
};

typedef struct lupe__timer lupe__timer;
typedef struct lupe__notifier lupe__notifier;

/* What a watch of a directory is about: one entry's coming and going, or all that happens in it. */
enum { LUPE__OF_A_NAME, LUPE__OF_ALL, LUPE__NOTIFIERS };

struct lupe_host {
  lupe_host_services services;
  lupe_memory_figures rows[LUPE__SERIES_ROWS]; /* what `series` reads into */
  uint32_t open_tasks;
  lupe__timer *timers;                        /* that run; closing the host ends them */
  lupe__timer *watches;                       /* that wait; likewise */
  lupe__notifier *notifiers[LUPE__NOTIFIERS]; /* NULL: nothing was watched so far */
  uint32_t watch_count, last_watch_id;
  bool closing;  /* callbacks are dropped */
  bool orphaned; /* the last open task frees the host */
  struct {
    double time_ms, runtime_cpu_ns, agent_cpu_ns;
  } checkpoints[2]; /* [0] is 30 to 60 s old: own cost is told over that window */
};

/* The host of a function registered with it as its only upvalue. */
lupe_host *lupe__host_of(lua_State *L);
extern const struct luaL_Reg lupe__host_tasks[];
extern const struct luaL_Reg lupe__host_run_tasks[]; /* that need a run */
extern const struct luaL_Reg lupe__host_recordings[];
extern const struct luaL_Reg lupe__host_timers[];
extern const struct luaL_Reg lupe__host_watches[];
extern const struct luaL_Reg lupe__host_exports[];
extern const struct luaL_Reg lupe__host_commands[];
extern const struct luaL_Reg lupe__host_proofs[];

/* A callback that is waited for. `push` puts its arguments on the stack and returns how many. */
typedef struct lupe__task {
  lupe_host *host;
  int callback;
  int (*push)(lua_State *L, struct lupe__task *t);
  void *arg; /* what `push` needs; its owner is the caller of finish */
} lupe__task;

/* A task that calls the function at `index` of the stack. For C inside a protected call: raises what is
 * wrong.
 */
lupe__task *lupe__task_create(lua_State *L, int index);
/* Calls back, unless the host is closing, and frees `t`. Not for use inside a Lua function. */
void lupe__task_finish(lupe__task *t, int (*push)(lua_State *L, lupe__task *t), void *arg);
/* Frees it without a call back. */
void lupe__task_abandon(lua_State *L, lupe__task *t);

/* An end of a task that is put off: one of a list of the host's. */
struct lupe__timer {
  uv_timer_t timer; /* first: uv's handle is the struct */
  lupe__timer *next, *previous, **list;
  lupe__task *task; /* NULL: given up, nobody is to be called back */
};

/* A timer that is not started, of `bytes`, the rest of them zero, for the function at `callback` of the
 * stack; first in `*list`. Raises what is wrong. */
void *lupe__timer_create(lua_State *L, int callback, size_t bytes, lupe__timer **list);
/* Takes it off its list. The loop calls back later, with nil, and frees it. */
void lupe__timer_end(lupe__timer *t);

/* The name of an errno value, such as "ENOSPC"; static. */
const char *lupe__errno_name(int error);
/* Pushes nil, "PATH: text" and the code of an errno value: 3. */
int lupe__failed(lua_State *L, const char *path, int error);

/* Declares the types of host_recordings.c. For C inside a protected call. */
void lupe__host_add_recordings(lua_State *L);

/* Ends all timers; their tasks finish as the loop runs on. */
void lupe__timers_close(lupe_host *h);
/* Ends all watches, likewise. */
void lupe__watches_close(lupe_host *h);

#endif

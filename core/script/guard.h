/* guard.h -- limits on a stretch of Lua: instructions, a deadline and a memory budget, checked by a hook
 * every LUPE_GUARD_COUNT instructions, and where an allocation would pass the budget. The deadline counts the
 * CPU time of the process, so that a busy machine stops nobody. Tripping raises an error that names the
 * guarded file's line; once tripped it raises again at every check, so that no pcall gets away with it. Calls
 * in C that never come back to Lua and compiled code are beyond it. One per process, in the worker. Thread:
 * the one that runs Lua. */
#ifndef LUPE_SCRIPT_GUARD_H
#define LUPE_SCRIPT_GUARD_H
#include <stddef.h>
#include <stdint.h>

#include "core/script/vm.h"

enum { LUPE_GUARD_COUNT = 1000 };

typedef struct lupe_guard_limits {
  uint64_t deadline_ms;  /* of CPU time, from arm */
  size_t memory_bytes;   /* on top of what the state holds at arm: an allocation beyond it fails, unwritten.
                           Near it garbage is collected */
  uint64_t instructions; /* of Lua's virtual machine, counted in steps of LUPE_GUARD_COUNT; compiled code has
                            none */
} lupe_guard_limits;

/* What tripped it: "instructions", "deadline" or "memory"; NULL: nothing so far. Static text. Looks at the
 * clock itself: at the very end of Lua's stack there is no room for a hook. */
const char *lupe_guard_tripped(lua_State *L);
/* "FILE:LINE: ..." once it has tripped; valid until the next arm. */
const char *lupe_guard_message(void);

/* When the limit was passed that stopped it, in microseconds since arm; 0: none was. Until the next arm. */
uint64_t lupe_guard_limit_us(void);

/* `file`: as in its chunk name, without '@' or '=' (copied, cut at 255 bytes). */
void lupe_guard_arm(lupe_vm *vm, const char *file, const lupe_guard_limits *limits);

/* Takes the hook and the budget away; `memory_bytes` caps the state from now on. Returns microseconds since
 * arm, and in *cpu_us those of the process's CPU time, as the deadline counts. */
uint64_t lupe_guard_disarm(lupe_vm *vm, size_t memory_bytes, uint64_t *cpu_us);
#endif

#include "core/script/guard.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/clock.h"

enum {
  COUNT_ONCE_TRIPPED = 10,
  COLLECTIONS_MAX = 8 /* near the memory limit; a rule that needs more of them is not helped by them */
};

static struct {
  bool armed;
  const char *tripped;
  char file[256], message[384];
  uint64_t start_ns, start_cpu_ns, tripped_ns, executed;
  size_t soft_bytes, hard_bytes; /* where garbage is collected (0: no more), and the limit */
  int collections;
  lupe_guard_limits limits;
} guard;

static void check(lua_State *L, lua_Debug *ar);

/* Trips the guard, at the guarded file's innermost line, whichever function of ours is running above it. */
static void trip(lua_State *L, const char *what) {
  lua_Debug ar;
  int line = 0;
  for (int level = 0; line == 0 && lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    bool named = *ar.source == '@' || *ar.source == '=';
    if (ar.currentline > 0 && named && strcmp(ar.source + 1, guard.file) == 0) line = ar.currentline;
  }
  char where[sizeof guard.file + 16];
  snprintf(where, sizeof where, line > 0 ? "%s:%d" : "%s", guard.file, line);
  guard.tripped = what;
  guard.tripped_ns = lupe_monotonic_ns();
  if (strcmp(what, "deadline") == 0) {
    snprintf(guard.message, sizeof guard.message, "%s: not done within %llu ms", where,
             (unsigned long long)guard.limits.deadline_ms);
  } else if (strcmp(what, "instructions") == 0) {
    snprintf(guard.message, sizeof guard.message, "%s: more than %llu instructions", where,
             (unsigned long long)guard.limits.instructions);
  } else {
    snprintf(guard.message, sizeof guard.message, "%s: more than %zu KiB of memory", where,
             guard.limits.memory_bytes / 1024);
  }
  lua_sethook(L, check, LUA_MASKCOUNT, COUNT_ONCE_TRIPPED);
}

static uint64_t cpu_ns(void) {
  return (uint64_t)lupe_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static bool past_deadline(void) {
  return cpu_ns() - guard.start_cpu_ns > guard.limits.deadline_ms * 1000000;
}

/* An allocation fails: where, is known only now, since Lua unwinds to us without telling. */
static void refused(lua_State *L) {
  if (guard.armed && !guard.tripped) trip(L, "memory");
}

static void check(lua_State *L, lua_Debug *ar) {
  (void)ar;
  if (!guard.armed) return;
  lupe_vm *vm = lupe_vm_of(L);
  guard.executed += LUPE_GUARD_COUNT; /* whole, also where the memory budget ended it: Lua does not tell */
  if (!guard.tripped && guard.executed > guard.limits.instructions) trip(L, "instructions");
  if (!guard.tripped && past_deadline()) trip(L, "deadline");
  if (!guard.tripped && guard.soft_bytes && lupe_vm_memory_bytes(vm) > guard.soft_bytes) {
    lua_gc(L, LUA_GCCOLLECT, 0); /* what is in use counts, and garbage only where it comes faster than this */
    bool again = lupe_vm_memory_bytes(vm) <= guard.soft_bytes && ++guard.collections < COLLECTIONS_MAX;
    if (!again) guard.soft_bytes = 0;
  }
  if (guard.tripped) {
    lua_pushstring(L, guard.message);
    lua_error(L);
  }
  lupe_vm_set_limits(vm, guard.soft_bytes, guard.hard_bytes, check, refused);
  lua_sethook(L, check, LUA_MASKCOUNT, LUPE_GUARD_COUNT);
}

const char *lupe_guard_tripped(lua_State *L) {
  if (guard.armed && !guard.tripped && past_deadline()) trip(L, "deadline");
  return guard.tripped;
}

const char *lupe_guard_message(void) {
  return guard.message;
}

uint64_t lupe_guard_limit_us(void) {
  return guard.tripped ? (guard.tripped_ns - guard.start_ns) / 1000 : 0;
}

void lupe_guard_arm(lupe_vm *vm, const char *file, const lupe_guard_limits *limits) {
  snprintf(guard.file, sizeof guard.file, "%s", file);
  guard.tripped = NULL;
  guard.limits = *limits;
  guard.executed = 0;
  guard.collections = 0;
  guard.hard_bytes = lupe_vm_memory_bytes(vm) + limits->memory_bytes;
  guard.soft_bytes = guard.hard_bytes - limits->memory_bytes / 8;
  guard.start_ns = lupe_monotonic_ns();
  guard.start_cpu_ns = cpu_ns();
  guard.armed = true;
  lupe_vm_set_limits(vm, guard.soft_bytes, guard.hard_bytes, check, refused);
  lua_sethook(lupe_vm_state(vm), check, LUA_MASKCOUNT, LUPE_GUARD_COUNT);
}

uint64_t lupe_guard_disarm(lupe_vm *vm, size_t memory_bytes, uint64_t *cpu_us) {
  guard.armed = false;
  *cpu_us = (cpu_ns() - guard.start_cpu_ns) / 1000;
  lua_sethook(lupe_vm_state(vm), NULL, 0, 0);
  lupe_vm_set_limits(vm, 0, memory_bytes, NULL, NULL);
  return (lupe_monotonic_ns() - guard.start_ns) / 1000;
}

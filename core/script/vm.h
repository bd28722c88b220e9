/* vm.h -- one Lua state, its memory cap, and the only protected call from C into Lua.
 * Owner: the thread that created it (the loop, or the worker process's only thread).
 * Errors of scripts come back as text and LUPE_ESCRIPT, never as a jump out of these functions: outside of a
 * function given to lupe_vm_run, C does nothing with the state that could raise an error (pushing a string
 * can: memory). */
#ifndef LUPE_SCRIPT_VM_H
#define LUPE_SCRIPT_VM_H
#include <lua.h>
#include <stddef.h>
#include <stdint.h>

#include "core/lupe.h"

typedef struct lupe_vm lupe_vm; /* opaque: the struct stays in the .c */

/* Text of a failed call: the first line is "FILE:LINE: message"; where there are callers, lines
 * "  called from FILE:LINE" follow. Always NUL-terminated, cut where it is longer. */
enum { LUPE_VM_ERROR_BYTES = 2048 };

/* Makes a state with the standard libraries. require() looks in `lua_dir` (DIR/?.lua, DIR/?/init.lua;
 * copied), and for modules in C in the system's folders; nothing else: neither LUA_PATH nor the working
 * folder counts. `memory_limit_bytes` caps what the state allocates; 0: no cap. Returns LUPE_OK, LUPE_EINVAL
 * (no lua_dir, or one with ';' or '?'), LUPE_ENOMEM. */
lupe_status lupe_vm_create(lupe_vm **out, const char *lua_dir, size_t memory_limit_bytes);
void lupe_vm_free(lupe_vm *vm); /* NULL is a no-op; not from inside a call */

lua_State *lupe_vm_state(lupe_vm *vm); /* borrowed: lives as long as `vm` */
lupe_vm *lupe_vm_of(lua_State *L);     /* the vm that `L`, or the state it is a coroutine of, belongs to */

/* Calls the function below its `nargs` arguments on the stack; leaves `nresults` results (or LUA_MULTRET) in
 * their place, on an error nothing. `error` (of `error_bytes`, may be NULL) is written on failure only.
 * Returns LUPE_OK, LUPE_ESCRIPT, or LUPE_ENOMEM where the memory cap was hit. May be nested. */
lupe_status lupe_vm_call(lupe_vm *vm, int nargs, int nresults, char *error, size_t error_bytes);

/* Runs `body(L)` protected, with `arg` as lua_touserdata(L, 1): here C may push, create and call as it likes
 * (by lua_call). The stack is as before afterwards: results go through `arg`. Returns like lupe_vm_call. */
lupe_status lupe_vm_run(lupe_vm *vm, lua_CFunction body, void *arg, char *error, size_t error_bytes);

/* require(`module`), the value is kept in the module table only. Returns like lupe_vm_call. */
lupe_status lupe_vm_require(lupe_vm *vm, const char *module, char *error, size_t error_bytes);

size_t lupe_vm_memory_bytes(const lupe_vm *vm); /* allocated by the state now */

/* The memory cap, in two steps. When more than `soft` bytes are in use `passed` is called at the next
 * instruction of the running Lua function: as a hook, so it may collect garbage, or raise an error that names
 * the line. It replaces the state's hook then. Past `hard` bytes an allocation fails, and `refused` (may be
 * NULL) is told of it first: from inside the allocator, so it may look at the stack and set a hook, and
 * nothing else. 0: no limit, NULL: no soft limit. Calling it arms again. */
void lupe_vm_set_limits(lupe_vm *vm, size_t soft_bytes, size_t hard_bytes, lua_Hook passed,
                        void (*refused)(lua_State *L));
#endif

/* bytecode.h -- lupe's own Lua, compiled when lupe was built: to parse it is most of the time that a start
 * takes. What counts is the text in the file: the bytecode is taken where it was made of the very same one.
 * Thread: any. */
#ifndef LUPE_SCRIPT_BYTECODE_H
#define LUPE_SCRIPT_BYTECODE_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

/* Pushes the chunk of module `name`, as loaded from `path` with this text, where there is bytecode of it;
 * else pushes nothing and returns false. For C inside a protected call. */
bool lupe__bytecode_push(lua_State *L, const char *name, const char *path, const char *text, size_t bytes);

#endif

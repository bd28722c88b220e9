#include "core/script/bytecode.h"

#include <lauxlib.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* What make_bytecode.lua has written: a header, entries in the order of their names, their codes. */
typedef struct entry {
  char name[64];
  uint64_t hash; /* of the text, FNV-1a */
  uint32_t at, bytes;
} entry;

typedef struct header {
  char magic[8];
  uint32_t count, unused;
  char version[64]; /* of the LuaJIT that made it: another one may read other bytecode */
  entry entries[];
} header;

enum {
  FLAGS_END = 5, /* bytes before a chunk's name: the signature, a version, flags */
  NAME_MAX_BYTES = 4096,
};

__asm__(
    ".pushsection .rodata\n"
    ".balign 16\n"
    ".hidden lupe__bytecode\n"
    ".globl lupe__bytecode\n"
    "lupe__bytecode:\n"
    ".incbin \"" LUPE_BYTECODE
    "\"\n"
    ".popsection\n");
extern const header lupe__bytecode __attribute__((visibility("hidden")));

static int by_name(const void *key, const void *member) {
  return strcmp(key, ((const entry *)member)->name);
}

static uint64_t hash_of(const char *text, size_t bytes) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
  return hash;
}

/* Whether this process's LuaJIT is the one that compiled it. */
static bool is_of_this_luajit(lua_State *L) {
  lua_getglobal(L, "jit");
  bool same = false;
  if (lua_istable(L, -1)) {
    lua_getfield(L, -1, "version");
    const char *version = lua_tostring(L, -1);
    same = version && strcmp(version, lupe__bytecode.version) == 0;
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return same;
}

/* The code with its name, in two parts: what is there, and where it has come to. */
typedef struct reader {
  char head[FLAGS_END + 3 + NAME_MAX_BYTES];
  size_t head_bytes, rest_bytes;
  const char *rest;
} reader;

static const char *read_on(lua_State *L, void *arg, size_t *bytes) {
  reader *r = arg;
  const char *part = NULL;
  (void)L;
  *bytes = 0;
  if (r->head_bytes > 0) {
    part = r->head;
    *bytes = r->head_bytes;
    r->head_bytes = 0;
  } else if (r->rest_bytes > 0) {
    part = r->rest;
    *bytes = r->rest_bytes;
    r->rest_bytes = 0;
  }
  return part;
}

bool lupe__bytecode_push(lua_State *L, const char *name, const char *path, const char *text, size_t bytes) {
  const entry *e =
      bsearch(name, lupe__bytecode.entries, lupe__bytecode.count, sizeof lupe__bytecode.entries[0], by_name);
  size_t length = strlen(path) + 1; /* with the "@" of files */
  if (!e || length >= NAME_MAX_BYTES || hash_of(text, bytes) != e->hash || !is_of_this_luajit(L))
    return false;
  const char *code = (const char *)&lupe__bytecode + e->at;
  reader r = {.rest = code + FLAGS_END, .rest_bytes = e->bytes - FLAGS_END};
  memcpy(r.head, code, FLAGS_END);
  size_t at = FLAGS_END, left = length;
  for (; left >= 0x80; left >>= 7) r.head[at++] = (char)(0x80 | (left & 0x7f)); /* ULEB128 */
  r.head[at++] = (char)left;
  r.head[at++] = '@';
  memcpy(r.head + at, path, length - 1);
  r.head_bytes = at + length - 1;
  if (lua_load(L, read_on, &r, "=bytecode") == 0) return true;
  lua_pop(L, 1);
  return false;
}

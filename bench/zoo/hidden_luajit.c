// link: m luajit-5.1
/* hidden_luajit.c -- blocks that a table of LuaJIT has as light userdata: it keeps such a pointer in parts,
 * so that the word itself is nowhere. */
#include <luajit-2.1/lauxlib.h>
#include <luajit-2.1/lua.h>

#include "hidden.h"

static lua_State *lua;

ZOO_SITE hidden_block *bind_object(size_t bytes) {
  return hidden_new(bytes);
}

static void hide_in_lua(long serial, hidden_block *block) {
  if (serial == 0) {
    lua = luaL_newstate();
    if (lua == NULL) abort();
    lua_newtable(lua);
  }
  lua_pushlightuserdata(lua, block);
  lua_rawseti(lua, 1, (int)serial);
}

static hidden_block *take_from_lua(long serial) {
  lua_rawgeti(lua, 1, (int)serial);
  hidden_block *block = lua_touserdata(lua, -1);
  lua_pop(lua, 1);
  return block;
}

static void light_userdata(void) {
  hidden_run(&(hiding_place){bind_object, hide_in_lua, take_from_lua, NULL});
  lua_close(lua);
}

int main(int argc, char **argv) {
  static const zoo_scenario scenarios[] = {{"light_userdata", light_userdata}, {NULL, NULL}};
  return zoo_main(argc, argv, scenarios);
}

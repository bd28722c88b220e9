local ffi = require("ffi")
local support = require("spec.support")

ffi.cdef([[
typedef struct lua_State lua_State;
typedef struct lupe_vm lupe_vm;
int lupe_vm_create(lupe_vm **out, const char *lua_dir, size_t memory_limit_bytes);
void lupe_vm_free(lupe_vm *vm);
lua_State *lupe_vm_state(lupe_vm *vm);
int lupe_vm_call(lupe_vm *vm, int nargs, int nresults, char *error, size_t error_bytes);
int luaL_loadbuffer(lua_State *L, const char *bytes, size_t count, const char *name);
const char *lua_tolstring(lua_State *L, int index, size_t *bytes);
]])

describe("lupe's own modules", function()
  local core = support.core()
  local folder, vm

  before_each(function()
    folder = support.temp_dir()
    os.execute(("cp -r %s/lua/. %s && cp %s/core/store/snapshot_layout.h %s/lupe/"):format(support.root, folder,
      support.root, folder)) -- as they are installed
    local out = ffi.new("lupe_vm *[1]")
    assert.equal(0, tonumber(core.lupe_vm_create(out, folder, 0)))
    vm = out[0]
  end)
  after_each(function()
    core.lupe_vm_free(vm)
    support.cleanup()
  end)

  local function evaluate(text)
    local L, error = core.lupe_vm_state(vm), ffi.new("char[2048]")
    assert.equal(0, core.luaL_loadbuffer(L, text, #text, "=spec"))
    if core.lupe_vm_call(vm, 0, 1, error, 2048) ~= 0 then return nil, ffi.string(error) end
    return ffi.string(core.lua_tolstring(L, -1, nil))
  end

  local function edit(name, from, to)
    local path = folder .. "/" .. name
    local text = support.read_file(path)
    local edited, count = text:gsub(from, to)
    assert.equal(1, count)
    support.write_file(path, edited)
  end

  it("come out of bytecode that was made when lupe was built, by far faster than by parsing", function()
    local spent = tonumber(evaluate([[
      local began = os.clock()
      require("lupe.server")
      return ("%.6f"):format(os.clock() - began)
    ]]))
    core.lupe_vm_free(vm)
    os.execute(([[for f in %s/lupe/*.lua; do echo '-- edited' >> "$f"; done]]):format(folder))
    local out = ffi.new("lupe_vm *[1]")
    assert.equal(0, tonumber(core.lupe_vm_create(out, folder, 0)))
    vm = out[0]
    local parsed = tonumber(evaluate([[
      local began = os.clock()
      require("lupe.server")
      return ("%.6f"):format(os.clock() - began)
    ]]))
    assert.is_true(spent < parsed / 2, ("%.1f ms, parsed %.1f ms"):format(spent * 1e3, parsed * 1e3))
  end)

  it("know where their file is, and their lines", function()
    assert.equal("@" .. folder .. "/lupe/time.lua",
      evaluate('return debug.getinfo(require("lupe.time").rfc3339, "S").source'))
    local line = tonumber(evaluate('return tostring(debug.getinfo(require("lupe.time").rfc3339, "S").linedefined)'))
    local at, found = 0, nil
    for text in support.read_file(folder .. "/lupe/time.lua"):gmatch("([^\n]*)\n") do
      at = at + 1
      if text:find("function time.rfc3339", 1, true) then found = at end
    end
    assert.equal(found, line)
  end)

  it("are what their files say, where these were edited since", function()
    edit("lupe/glob.lua", "$", "\n")
    edit("lupe/time.lua", "local time = {}", "local time = { edited = 'yes' }")
    assert.equal("yes", evaluate('return require("lupe.time").edited'))
    assert.equal("function", evaluate('return type(require("lupe.glob"))'))
  end)

  it("that cannot be parsed say where", function()
    support.write_file(folder .. "/lupe/glob.lua", "return {")
    local _, message = evaluate('require("lupe.glob")')
    assert.matches("lupe/glob.lua:1: unexpected symbol", message, 1, true)
  end)
end)

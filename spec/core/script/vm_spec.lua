local ffi = require("ffi")
local support = require("spec.support")

ffi.cdef([[
typedef struct lua_State lua_State;
int luaL_loadbuffer(lua_State *L, const char *bytes, size_t count, const char *name);
const char *lua_tolstring(lua_State *L, int index, size_t *bytes);
int lua_gettop(lua_State *L);
void lua_settop(lua_State *L, int index);
typedef struct lupe_vm lupe_vm;
int lupe_vm_create(lupe_vm **out, const char *lua_dir, size_t memory_limit_bytes);
void lupe_vm_free(lupe_vm *vm);
lua_State *lupe_vm_state(lupe_vm *vm);
int lupe_vm_call(lupe_vm *vm, int nargs, int nresults, char *error, size_t error_bytes);
int lupe_vm_require(lupe_vm *vm, const char *module, char *error, size_t error_bytes);
size_t lupe_vm_memory_bytes(const lupe_vm *vm);
]])

local OK, EINVAL, ENOMEM, ESCRIPT = 0, 1, 2, 12

describe("the Lua state", function()
  local core = support.core()
  local vm, L, folder

  local function create(limit)
    local out = ffi.new("lupe_vm *[1]")
    assert.are.equal(OK, tonumber(core.lupe_vm_create(out, folder, limit or 0)))
    vm = out[0]
    L = core.lupe_vm_state(vm)
  end

  before_each(function()
    folder = support.temp_dir()
    create()
  end)

  after_each(function()
    core.lupe_vm_free(vm)
    support.cleanup()
  end)

  --- Status and error, or status and the result as text.
  local function run(source, name, error_bytes)
    assert.are.equal(0, core.luaL_loadbuffer(L, source, #source, name or "@dir/chunk.lua"))
    local bytes = error_bytes or 2048
    local text = ffi.new("char[?]", bytes + 1, "?")
    local status = tonumber(core.lupe_vm_call(vm, 0, 1, text, bytes))
    if status ~= OK then
      assert.are.equal(0, core.lua_gettop(L))
      return status, ffi.string(text)
    end
    local result = core.lua_tolstring(L, -1, nil)
    result = result ~= nil and ffi.string(result) or nil
    core.lua_settop(L, 0)
    return status, result
  end

  it("gives back results, and leaves nothing behind after an error", function()
    assert.are.same({ OK, "3" }, { run("return 1 + 2") })
    local status = run("error('x')")
    assert.are.equal(ESCRIPT, status)
    assert.are.same({ OK, "ok" }, { run("return 'ok'") })
  end)

  it("tells an error as FILE:LINE: message, with who called", function()
    local _, text = run("local function inner()\n error('broken')\nend\nlocal function outer()\n inner()\nend\nouter()")
    assert.are.equal("dir/chunk.lua:2: broken\n  called from dir/chunk.lua:5\n  called from dir/chunk.lua:7", text)
  end)

  it("names a long path in full", function()
    local path = "/" .. ("folder/"):rep(20) .. "x.lua"
    local _, text = run("\nerror('y')", "@" .. path)
    assert.are.equal(path .. ":2: y", text)
  end)

  it("finds words for whatever is thrown", function()
    local _, text = run("\nerror({})")
    assert.are.equal("dir/chunk.lua:2: (error object is a table value)", text)
    _, text = run("error()")
    assert.are.equal("dir/chunk.lua:1: (error object is a nil value)", text)
    _, text = run("error(setmetatable({}, { __tostring = function() while true do end end }))")
    assert.are.equal("dir/chunk.lua:1: (error object is a table value)", text)
    _, text = run("error('as it is', 0)")
    assert.are.equal("as it is", text)
    _, text = run("local function f() return 1 + f() end\nf()")
    assert.truthy(text:find("^dir/chunk.lua:1: stack overflow"), text)
  end)

  it("cuts a text that does not fit", function()
    local _, text = run("error(('z'):rep(10000), 0)", nil, 10)
    assert.are.equal(("z"):rep(9), text)
    _, text = run("error(('z'):rep(10000), 0)")
    assert.are.equal(2047, #text)
  end)

  it("survives its memory cap, again and again", function()
    core.lupe_vm_free(vm)
    create(8 * 2 ^ 20)
    for _ = 1, 20 do
      local status, text = run("local t = {} for i = 1, 1e9 do t[i] = { i } end")
      assert.are.equal(ENOMEM, status)
      assert.truthy(text:find("^not enough memory"), text)
      assert.is_true(tonumber(core.lupe_vm_memory_bytes(vm)) <= 8 * 2 ^ 20)
    end
    assert.are.same({ OK, "fine" }, { run("collectgarbage() return 'fine'") })
  end)

  it("gives back all memory it counted", function()
    run("collectgarbage()")
    local before = tonumber(core.lupe_vm_memory_bytes(vm))
    run("local t = {} for i = 1, 1e5 do t[i] = { tostring(i) } end t = nil collectgarbage() collectgarbage()")
    run("collectgarbage() collectgarbage()")
    assert.is_true(tonumber(core.lupe_vm_memory_bytes(vm)) < before + 65536)
    assert.is_true(before > 10000)
  end)

  it("requires modules of its folder and C modules of the system, whatever the environment says", function()
    support.write_file(folder .. "/wanted.lua", "return { name = 'wanted' }")
    assert.are.same({ OK, "wanted" }, { run("return require('wanted').name") })
    assert.are.same({ OK, "[1]" }, { run("return require('cjson').encode({ 1 })") })
    local _, path = run("return package.path .. '|' .. package.cpath")
    assert.are.equal(("%s/?.lua;%s/?/init.lua"):format(folder, folder), path:match("^[^|]*"))
    for entry in path:match("|(.*)"):gmatch("[^;]+") do assert.are.equal("/", entry:sub(1, 1)) end
  end)

  it("reports a module that is missing or broken", function()
    local text = ffi.new("char[2048]")
    assert.are.equal(ESCRIPT, tonumber(core.lupe_vm_require(vm, "nowhere", text, 2048)))
    assert.truthy(ffi.string(text):find("module 'nowhere' not found", 1, true))
    support.write_file(folder .. "/half.lua", "return {\n")
    assert.are.equal(ESCRIPT, tonumber(core.lupe_vm_require(vm, "half", text, 2048)))
    assert.truthy(ffi.string(text):find("half.lua:2:", 1, true), ffi.string(text))
    support.write_file(folder .. "/whole.lua", "return true")
    assert.are.equal(OK, tonumber(core.lupe_vm_require(vm, "whole", text, 2048)))
  end)

  it("refuses a folder that would change the search path", function()
    local out = ffi.new("lupe_vm *[1]")
    for _, bad in ipairs({ "", "/a;/b", "/a?" }) do
      assert.are.equal(EINVAL, tonumber(core.lupe_vm_create(out, bad, 0)))
    end
    assert.are.equal(EINVAL, tonumber(core.lupe_vm_create(out, nil, 0)))
  end)

  it("cannot be made in less memory than it needs", function()
    local out = ffi.new("lupe_vm *[1]")
    for limit = 0, 300000, 3000 do
      local status = tonumber(core.lupe_vm_create(out, folder, limit + 1))
      if status == OK then
        core.lupe_vm_free(out[0])
      else
        assert.are.equal(ENOMEM, status, "limit " .. limit)
      end
    end
  end)
end)

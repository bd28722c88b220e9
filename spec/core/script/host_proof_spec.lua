--- What Lua on the loop may ask of leak proofs.
local ffi = require("ffi")
local collected_run = require("spec.core.store.collected_run")
local fake_agent = require("spec.core.store.fake_agent")
local proofs = require("spec.support_proof")
local support = require("spec.support")

ffi.cdef([[
typedef struct lua_State lua_State;
typedef struct lua_Debug lua_Debug;
typedef int (*lua_CFunction)(lua_State *L);
typedef void (*lua_Hook)(lua_State *L, lua_Debug *ar);
int luaL_loadbuffer(lua_State *L, const char *bytes, size_t count, const char *name);
const char *lua_tolstring(lua_State *L, int index, size_t *bytes);
void lua_settop(lua_State *L, int index);
]])
support.declare("core/script/host.h")
local core = support.core()
local OK = 0

local LIMITS = "{ interval_ms = 2000, max_ms = 30000, max_heap_bytes = 8e9, max_table_bytes = 1e9, "
  .. "min_free_bytes = 256e6, min_free_share = 0.5 }"

describe("the host", function()
  local run, agent, own, vm, host
  before_each(function()
    own = ffi.C.getpid()
    run = collected_run.start()
    agent = fake_agent.connect(run.path)
    run:connected(own)
    local out, error_text = ffi.new("lupe_vm *[1]"), ffi.new("char[512]")
    assert.equal(OK, tonumber(core.lupe_vm_create(out, support.root .. "/lua", 0)))
    vm = out[0]
    local services = ffi.new("lupe_host_services", {
      vm = vm, loop = run.loop, pool = run.pool, aggregator = run.a, collector = run.collector,
    })
    local made = ffi.new("lupe_host *[1]")
    assert.equal(OK, tonumber(core.lupe_host_create(made, services, error_text, 512)), ffi.string(error_text))
    host = made[0]
  end)
  after_each(function()
    agent:close()
    core.lupe_host_close(host)
    core.lupe_host_free(host)
    run:stop()
    core.lupe_vm_free(vm)
    support.cleanup()
  end)

  --- Runs a chunk in the vm: what it returns, as text; or nil and the error.
  local function lua(source)
    local L = core.lupe_vm_state(vm)
    assert.equal(0, core.luaL_loadbuffer(L, source, #source, "@chunk"))
    local text = ffi.new("char[2048]")
    if tonumber(core.lupe_vm_call(vm, 0, 1, text, 2048)) ~= OK then return nil, ffi.string(text) end
    local result = core.lua_tolstring(L, -1, nil)
    result = result ~= nil and ffi.string(result) or ""
    core.lua_settop(L, 0)
    return result
  end
  jit.off(lua) -- the host may call back into it, and that into this spec's callbacks

  --- Asks, and gives what is called back with: the error, and the reply's fields in the order of their names.
  local function prove(pid, limits)
    local asked, why = lua(([[
      told = nil
      lupe_host.prove(%d, %s, function(err, reply)
        local names = {}
        for name in pairs(reply or {}) do names[#names + 1] = name end
        table.sort(names)
        for i, name in ipairs(names) do names[i] = name .. "=" .. ("%%.17g"):format(reply[name]) end
        told = tostring(err) .. "|" .. table.concat(names, " ")
      end)]]):format(pid, limits or LIMITS))
    assert.equal("", asked, why)
  end

  local function told() return lua("return told or ''") end

  local function awaited()
    return run:until_(function() return told() ~= "" and told() end, "the call back")
  end

  local function asked()
    local request
    run:until_(function()
      request = agent:heard_of("prove")
      return request
    end, "the request")
    return request
  end

  it("has a process prove, and hands over how it went", function()
    prove(own)
    local request = asked()
    assert.same({ 2000, 30000, 8e9, 1e9, 256e6, 0.5 }, {
      request.limits.interval_ms, request.limits.max_ms, tonumber(request.limits.max_heap_bytes),
      tonumber(request.limits.max_table_bytes), tonumber(request.limits.min_free_bytes), request.limits.min_free_share,
    })
    assert.equal("", told())
    agent:prove({
      serial = request.serial, elapsed_ns = 2500e6, pause_ns = 7500000, anonymous_bytes = 3e9, read_bytes = 4e9,
    }, proofs.block { stacks = { { 0x1000 } }, objects = { {} } })
    assert.equal("nil|anonymous_bytes=3000000000 elapsed_ms=2500 error=0 outcome=0 pause_ms=7.5 read_bytes=4000000000",
      awaited())
  end)

  it("hands a refusal over as a reply", function()
    prove(own)
    agent:prove({ serial = asked().serial, outcome = 9, error = 11 })
    assert.equal("nil|anonymous_bytes=0 elapsed_ms=0 error=11 outcome=9 pause_ms=0 read_bytes=0", awaited())
  end)

  it("says what is wrong with a block", function()
    prove(own)
    agent:prove({ serial = asked().serial }, "nothing")
    assert.equal("leak proof, head: cut off at 7 bytes|", awaited())
  end)

  it("says that there is no such process", function()
    prove(2 ^ 30)
    assert.equal("the process has no agent: it has ended, or was never profiled|", told())
    prove(own)
    asked()
    agent:close()
    assert.equal("the process has no agent: it has ended, or was never profiled|", awaited())
  end)

  it("says that a process does not answer", function()
    prove(own)
    prove(own)
    prove(own)
    assert.equal("the process does not answer: it may be stopped|", told())
  end)

  it("takes no limit that is missing or makes no sense", function()
    for _, case in ipairs {
      { "interval_ms = 2000", "", "interval_ms: a number is expected" },
      { "max_ms = 30000", "max_ms = 'soon'", "max_ms: a number is expected" },
      { "max_ms = 30000", "max_ms = 0", "max_ms: not from 1 to 86400000" },
      { "interval_ms = 2000", "interval_ms = -1", "interval_ms: not from 0" },
      { "max_heap_bytes = 8e9", "max_heap_bytes = 0/0", "max_heap_bytes: not from 0" },
      { "max_table_bytes = 1e9", "max_table_bytes = 1e300", "max_table_bytes: not from 0" },
      { "min_free_bytes = 256e6", "min_free_bytes = {}", "min_free_bytes: a number" },
      { "min_free_share = 0.5", "min_free_share = 1/0", "min_free_share: not from 0" },
    } do
      local limits = LIMITS:gsub(case[1] .. ",?", case[2] == "" and "" or case[2] .. ",", 1)
      for _, call in ipairs { "prove(1, %s, print)", "set_proof_at_exit(%s)" } do
        local _, why = lua("lupe_host." .. call:format(limits))
        assert.is_truthy(why and why:find(case[3], 1, true), tostring(why))
      end
    end
    local _, why = lua("lupe_host.prove(1, nil, print)")
    assert.is_truthy(why:find("table expected", 1, true), why)
    _, why = lua("lupe_host.prove(1, " .. LIMITS .. ")")
    assert.is_truthy(why:find("function expected", 1, true), why)
  end)

  it("has programs prove as they exit, or no more", function()
    agent:heard_of("welcome")
    assert.equal("", lua("lupe_host.set_proof_at_exit(" .. LIMITS .. ")"))
    local welcome = agent:heard_of("welcome")
    assert.same({ 1, 2000, 0.5 }, { welcome.proof_at_exit, welcome.proof.interval_ms, welcome.proof.min_free_share })
    assert.equal("", lua("lupe_host.set_proof_at_exit(nil)"))
    assert.equal(0, agent:heard_of("welcome").proof_at_exit)
  end)

  it("does not call back once it is closing", function()
    prove(own)
    local request = asked()
    core.lupe_host_close(host)
    agent:prove({ serial = request.serial, outcome = 1 })
    agent:close()
    run:until_(function() return not core.lupe_collector_connected(run.collector, own) end, "its end")
    run:snapshot()
    assert.equal("", told())
  end)
end)

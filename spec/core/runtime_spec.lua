--- A runtime that comes and goes in a process which is not its own: this one.
local ffi = require("ffi")
local fake_agent = require("spec.core.store.fake_agent")
local snapshots = require("spec.support_snapshot")
local support = require("spec.support")

ffi.cdef([[
typedef struct lua_State lua_State;
typedef struct lua_Debug lua_Debug;
typedef int (*lua_CFunction)(lua_State *L);
typedef void (*lua_Hook)(lua_State *L, lua_Debug *ar);
typedef struct uv_loop_s uv_loop_t;
int luaL_loadbuffer(lua_State *L, const char *bytes, size_t count, const char *name);
void lua_setfield(lua_State *L, int index, const char *name);
size_t uv_loop_size(void);
int uv_loop_init(uv_loop_t *loop);
int uv_loop_close(uv_loop_t *loop);
int uv_run(uv_loop_t *loop, int mode);
size_t strlen(const char *text);
int pthread_create(unsigned long *thread, const void *attributes, void *(*start)(void *), void *arg);
int pthread_join(unsigned long thread, void **result);
]])
support.declare("core/runtime.h")
local core = support.core()
local clock = ffi.new("spec_timespec")
local REGISTRY, NOWAIT = -10000, 2

local guest = {}
guest.__index = guest

--- @tparam[opt] int port default: a free one
function guest.start(port)
  local self = setmetatable({ block = ffi.new("uint64_t[?]", tonumber(core.uv_loop_size()) / 8 + 1) }, guest)
  self.loop = ffi.cast("uv_loop_t *", self.block)
  assert(core.uv_loop_init(self.loop) == 0)
  local vm, text = ffi.new("lupe_vm *[1]"), ffi.new("char[512]")
  assert(tonumber(core.lupe_vm_create(vm, support.root .. "/lua", 0)) == 0)
  self.vm = vm[0]
  local L, source = core.lupe_vm_state(self.vm), "return require('lupe.config').defaults()"
  assert(core.luaL_loadbuffer(L, source, #source, "=config") == 0)
  assert(tonumber(core.lupe_vm_call(self.vm, 0, 1, text, 512)) == 0, ffi.string(text))
  core.lua_setfield(L, REGISTRY, "lupe.config")
  self.paths = ffi.new("lupe_paths")
  assert(tonumber(core.lupe_paths_find(self.paths, ffi.new("const char *[1]"))) == 0)
  local options = ffi.new("lupe_runtime_options", {
    loop = self.loop, vm = self.vm, paths = self.paths, host = "127.0.0.1", port = port or 0, port_given = true,
    heap_interval_ms = 3600000, memory_interval_ms = 3600000, cpu_hz = 99, wall_hz = 20, embedded = true,
  })
  options.host = "127.0.0.1"
  local runtime = ffi.new("lupe_runtime *[1]")
  self.status = tonumber(core.lupe_runtime_create(runtime, options, text, 512))
  self.why = ffi.string(text)
  self.runtime = runtime[0]
  return self
end

function guest:turn() core.uv_run(self.loop, NOWAIT) end

--- Runs what is left of one that could not be made.
function guest:clear()
  core.uv_run(self.loop, 0)
  local left = core.uv_loop_close(self.loop)
  core.lupe_vm_free(self.vm)
  return left
end
jit.off(guest.clear)

--- Closes it: how long that took, in seconds.
function guest:close()
  local closed, began = false, support.now()
  local callback = ffi.cast("lupe_runtime_close_cb", function() closed = true end)
  core.lupe_runtime_close(self.runtime, callback, nil)
  support.eventually(function()
    self:turn()
    return closed
  end, 20, "its end")
  local took = support.now() - began
  self:turn()
  local left = core.uv_loop_close(self.loop)
  core.lupe_vm_free(self.vm)
  callback:free()
  assert.equal(0, left, "handles are left in the loop")
  return took
end
jit.off(guest.turn)
jit.off(guest.close)

local function entries(folder)
  local out = support.run({ "ls", ("/proc/%d/%s"):format(ffi.C.getpid(), folder) }).out
  return select(2, out:gsub("\n", "\n"))
end

describe("a runtime in a process that is not its own", function()
  after_each(function() support.cleanup() end)

  it("is gone within 200 ms and leaves no handle, thread or descriptor, however often it comes and goes", function()
    guest.start():close() -- what libraries keep for good is there by now
    local threads, descriptors = entries("task"), entries("fd")
    local took = {}
    for i = 1, 50 do
      local one = guest.start()
      for _ = 1, i % 4 do one:turn() end
      took[i] = one:close()
    end
    assert.same({ threads, descriptors }, { entries("task"), entries("fd") })
    table.sort(took)
    assert.is_true(took[25] < (support.sanitized and 1 or 0.2), ("%.3f s"):format(took[25]))
  end)

  --- Heap profiles of so many stacks, no two of them alike, all of whose frames are of one file.
  local function large_profile(stacks)
    local lines = { "heap_v2/524288\n  t*: 1: 1 [0: 0]\n" }
    local tails = {}
    for i = 1, 100 do
      local frames = {}
      for depth = 1, 40 do frames[depth] = ("0x%x"):format(0x400000 + (i * 7919 * depth) % 0x3fffff) end
      tails[i] = table.concat(frames, " ") .. "\n  t*: 1: 100000 [0: 0]\n"
    end
    for i = 1, stacks do lines[#lines + 1] = ("@ 0x%x %s"):format(0x400000 + i, tails[i % 100 + 1]) end
    lines[#lines + 1] = "\nMAPPED_LIBRARIES:\n00400000-00800000 r-xp 00000000 00:00 0 /nonexistent/program\n"
    return table.concat(lines)
  end

  it("leaves nothing either where it could not be made", function()
    local one = guest.start()
    local port = core.lupe_runtime_port(one.runtime)
    assert.equal(0, guest.start(port):clear()) -- what libraries keep for good is there by now
    local threads, descriptors = entries("task"), entries("fd")
    local other = guest.start(port)
    assert.equal(11, other.status) -- LUPE_EINUSE
    assert.truthy(other.why:find("choose another", 1, true), other.why)
    assert.equal(0, other:clear())
    assert.same({ threads, descriptors }, { entries("task"), entries("fd") })
    one:close()
  end)

  local function get(one, path)
    local port = core.lupe_runtime_port(one.runtime)
    local request = support.spawn({ "curl", "-s", ("http://127.0.0.1:%d%s"):format(port, path) })
    support.eventually(function()
      one:turn()
      return not request:alive()
    end)
    return request:stdout()
  end

  local function told_cpu_seconds(one)
    return tonumber(get(one, "/metrics"):match('lupe_profiler_cpu_seconds_total{part="runtime"} ([%d.e-]+)'))
  end

  --- Uses CPU time on a thread that is the program's: strlen of a long text is what it runs.
  local function burn(text, seconds)
    local function process_cpu()
      ffi.C.clock_gettime(2, clock) -- CLOCK_PROCESS_CPUTIME_ID
      return tonumber(clock.tv_sec) + tonumber(clock.tv_nsec) / 1e9
    end
    local thread, start = ffi.new("unsigned long[1]"), ffi.cast("void *(*)(void *)", ffi.C.strlen)
    local began = process_cpu()
    while process_cpu() - began < seconds do
      assert(ffi.C.pthread_create(thread, nil, start, text) == 0)
      ffi.C.pthread_join(thread[0], nil)
    end
  end

  it("tells the CPU time of its own threads alone, and no memory that may be the program's", function()
    local text = ffi.new("char[?]", 200 * 2 ^ 20)
    ffi.fill(text, 200 * 2 ^ 20 - 1, 120)
    local one = guest.start()
    assert.is_nil(get(one, "/metrics"):find("lupe_profiler_rss_bytes", 1, true))
    local before = told_cpu_seconds(one)
    burn(text, 0.5)
    local after = told_cpu_seconds(one)
    assert.is_true(after >= before and after - before < 0.25, ("%f s, then %f s"):format(before, after))
    one:close()
  end)

  it("does not read a large heap profile to its end once it is closed", function()
    local text = large_profile(300000)
    local one = guest.start()
    local agent = fake_agent.connect(ffi.string(core.lupe_runtime_socket(one.runtime)))
    local dump = snapshots.memfd(text)
    agent:send(4, ffi.new("lupe_profile_reply"), dump)
    snapshots.close(dump)
    local pid = ffi.C.getpid()
    local function at_work()
      for thread in support.run({ "ls", ("/proc/%d/task"):format(pid) }).out:gmatch("%d+") do
        local stat = support.read_file(("/proc/%d/task/%s/stat"):format(pid, thread)) or ""
        local ticks = tonumber(stat:match("%(lupe%-work%) %a" .. (" %-?%d+"):rep(10) .. " (%d+)")) or 0
        if ticks >= 2 then return true end
      end
    end
    support.eventually(function()
      one:turn()
      return at_work()
    end, 20, "the reading to begin")
    local took = one:close() -- 2 s if it did
    agent:close()
    assert.is_true(took < (support.sanitized and 2 or 0.5), ("%.3f s"):format(took))
  end)

  it("ends its worker with it", function()
    local one = guest.start()
    local port = core.lupe_runtime_port(one.runtime)
    local request = support.spawn({ "curl", "-s", ("http://127.0.0.1:%d/api/rules"):format(port) })
    support.eventually(function()
      one:turn()
      return not request:alive()
    end)
    local function children()
      return support.run({ "ps", "--no-headers", "-o", "comm", "--ppid", tostring(ffi.C.getpid()) }).out
    end
    assert.truthy(children():find("lupe-keeper", 1, true), children())
    one:close()
    assert.is_nil(children():find("lupe", 1, true), children())
  end)
end)

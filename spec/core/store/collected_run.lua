--- A collector on an event loop of the spec's own process, for fake agents to connect to.
local ffi = require("ffi")
local support = require("spec.support")
require("spec.core.store.fake_agent")
require("spec.support_snapshot")

ffi.cdef([[
typedef struct uv_loop_s uv_loop_t;
size_t uv_loop_size(void);
int uv_loop_init(uv_loop_t *loop);
int uv_loop_close(uv_loop_t *loop);
int uv_run(uv_loop_t *loop, int mode);
]])
support.declare("core/store/collector.h")
local core = support.core()

local collected_run = {}
collected_run.__index = collected_run

--- `options`: fields of lupe_collector_options.
function collected_run.start(options)
  local self = setmetatable({ path = support.temp_dir() .. "/socket", callbacks = {} }, collected_run)
  self.block = ffi.new("uint64_t[?]", tonumber(core.uv_loop_size()) / 8 + 1)
  self.loop = ffi.cast("uv_loop_t *", self.block)
  assert(core.uv_loop_init(self.loop) == 0, "loop")
  local a, c, pool = ffi.new("lupe_aggregator *[1]"), ffi.new("lupe_collector *[1]"), ffi.new("lupe_pool *[1]")
  -- No round comes by itself: what a snapshot has is what was taken in.
  local rounds = ffi.new("lupe_aggregator_options", { heap_interval_ms = 3600000 })
  assert(tonumber(core.lupe_aggregator_create(a, rounds)) == 0, "aggregator")
  local o = ffi.new("lupe_collector_options", {
    memory_interval_ms = 3600000, profile_budget = 1,
    on_snapshot = self:callback("void (*)(void *, lupe_snapshot *)", function() end),
  })
  local path = self.path
  o.socket_path = path
  for name, value in pairs(options or {}) do o[name] = value end
  assert(tonumber(core.lupe_pool_create(pool, self.loop, 2, nil)) == 0, "pool")
  assert(tonumber(core.lupe_collector_create(c, self.loop, pool[0], a[0], o)) == 0, "collector")
  self.a, self.collector, self.pool = a[0], c[0], pool[0]
  return self
end

function collected_run:callback(ctype, body)
  local callback = ffi.cast(ctype, body)
  table.insert(self.callbacks, callback)
  return callback
end

--- One turn of the loop, without waiting. Interpreted: it calls back into Lua.
function collected_run:turn() core.uv_run(self.loop, 2) end
jit.off(collected_run.turn)

--- Turns it until `check` holds, and gives that.
function collected_run:until_(check, what)
  return support.eventually(function()
    self:turn()
    return check()
  end, 20, what)
end

function collected_run:connected(pid)
  self:until_(function() return core.lupe_collector_connected(self.collector, pid) end, "its HELLO")
end

--- Asks for a proof. Gives the status, and a list that each call back adds to: { status, outcome, elapsed_ns, why }.
function collected_run:prove(pid, limits)
  local told = {}
  local done = self:callback("lupe_proof_cb", function(_, status, reply, why)
    local outcome, elapsed = nil, nil
    if reply ~= nil then outcome, elapsed = reply.outcome, tonumber(reply.elapsed_ns) end
    told[#told + 1] = { tonumber(status), outcome = outcome, elapsed_ns = elapsed, why = ffi.string(why) }
  end)
  local l = ffi.new("lupe_proof_limits", limits or { interval_ms = 1000, max_ms = 30000 })
  return tonumber(core.lupe_collector_prove(self.collector, pid, l, done, nil)), told
end

function collected_run:await_snapshot(ask)
  local found
  ask(self:callback("lupe_collector_snapshot_cb", function(_, status, snapshot)
    found = { status = tonumber(status), snapshot = ffi.gc(snapshot, core.lupe_snapshot_release) }
  end))
  self:until_(function() return found end, "a snapshot")
  assert(found.status == 0, "snapshot")
  found.header = core.lupe_snapshot_block(found.snapshot)
  return found
end

--- A snapshot { header } of all live processes now; of the end of the run.
function collected_run:snapshot()
  return self:await_snapshot(function(done) core.lupe_collector_snapshot(self.collector, 0, 0, done, nil) end)
end

--- `lines_ms`: for source lines that are not known yet, at most; default 2000.
function collected_run:finish(lines_ms)
  return self:await_snapshot(function(done) core.lupe_collector_finish(self.collector, lines_ms or 2000, done, nil) end)
end

--- Closes all of it; whoever waits is told before.
function collected_run:stop()
  local closed = false
  core.lupe_collector_close(self.collector, self:callback("lupe_collector_close_cb", function() closed = true end), nil)
  self:until_(function() return closed end, "its end")
  core.lupe_pool_close(self.pool, nil, nil)
  self:until_(function() return core.uv_loop_close(self.loop) == 0 end, "an empty loop")
  core.lupe_aggregator_free(self.a)
  for _, callback in ipairs(self.callbacks) do callback:free() end
end
jit.off(collected_run.stop)
jit.off(collected_run.finish, true)

return collected_run

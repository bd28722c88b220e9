--- What the agent sees of a program's heap, and what it says where it can see nothing.
-- not under asan: neither the agent nor the programs that it is in are sanitized
local ffi = require("ffi")
local bit = require("bit")
local fake_runtime = require("spec.core.agent.fake_runtime")
local support = require("spec.support")

ffi.cdef("int fcntl(int fd, int command, ...);")
local state = fake_runtime.state

describe("the heap under the agent", function()
  local runtime

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  -- A host that does `commands`, waits until it is told to go on, and ends. Returns its connection, `go`.
  local function paused(commands, options)
    commands[#commands + 1] = runtime.tell
    commands[#commands + 1] = runtime.wait
    local host = runtime:host(commands, options)
    local c = runtime:hello()
    c:welcome()
    runtime:reached()
    return c, function()
      runtime:release()
      return host:wait(10)
    end
  end

  it("is introduced by the first word, with allocator and period", function()
    local c, go = paused({})
    assert.are.equal(state.on, c.hello.heap_state)
    assert.are.equal(4096, tonumber(c.hello.sample_period_bytes))
    assert.is_truthy(ffi.string(c.hello.allocator):match("^jemalloc 5%.%d+%.%d+"))
    assert.are.equal(0, go())
  end)

  it("is profiled on request: what lives, stack by stack", function()
    local c, go = paused({ "keep=2000,20000", "churn=500,20000" })
    local text, reply = c:profile(17)
    assert.are.same({ 0, 17 }, { reply.status, tonumber(reply.serial) })
    assert.is_true(tonumber(reply.elapsed_ns) > 0)
    local profile = fake_runtime.parse(text)
    assert.is_near(2000 * 20480, profile.bytes, 0.03 * 2000 * 20480)
    assert.are.equal(1, c:counter("profiles"))
    assert.is_truthy(text:find("MAPPED_LIBRARIES", 1, true))
    go()
  end)

  it("sends each sample's stack through the ring, the same stack that the profile names", function()
    local c, go = paused({ "keep=500,100000" }) -- so large that chance passes over none
    local samples = c:drain()
    assert.is_true(#samples >= 500, #samples .. " samples")
    local sample = samples[#samples - 3]
    local stack = {}
    for i, pc in ipairs(sample.frames) do stack[i] = bit.tohex(pc, 16):gsub("^0+", "") end
    local known = {}
    for _, s in ipairs(fake_runtime.parse((c:profile())).stacks) do known[table.concat(s.frames, " ")] = true end
    assert.is_true(known[table.concat(stack, " ")], "a stack that the profile does not have")
    assert.are.same({ 1, c.hello.pid }, { sample.weight, sample.tid })
    assert.are.equal(#samples, c:counter("heap_samples"))
    go()
  end)

  it("walks whole stacks, to the first frame of each thread", function()
    local c, go = paused({ "keep=200,20000" })
    c:drain()
    assert.are.equal(0, c:counter("truncated_stacks"))
    for _, sample in ipairs(c.samples) do assert.is_true(sample.depth >= 7) end
    go()
  end)

  it("counts what does not fit into the ring, and what the hook costs", function()
    local c, go = paused({ "churn=20000,20000" })
    assert.is_true(c:counter("dropped_records") > 0)
    assert.are.equal(c:counter("heap_samples"), #c:drain() + c:counter("dropped_records"))
    assert.is_true(c:counter("hook_ns") > 0)
    go()
  end)

  it("hands out profiles that nobody can change any more", function()
    local c, go = paused({ "keep=10,20000" })
    local core = support.core()
    c:expect("maps")
    core.lupe_channel_send(c.fd, 3, ffi.new("lupe_profile_request", { serial = 1 }), 8, -1)
    local head, body, fd = ffi.new("lupe_message"), ffi.new("char[512]"), ffi.new("int[1]")
    support.eventually(function() return core.lupe_channel_receive(c.fd, head, body, 512, fd) == 0 end, 5)
    assert.are.equal(15, ffi.C.fcntl(fd[0], 1034)) -- F_GET_SEALS: seal, shrink, grow, write
    ffi.C.close(fd[0])
    go()
  end)

  it("is counted by jemalloc's own figures, refreshed while the program runs", function()
    -- A sampled block counts as one of 16 KiB, whatever it is: so there is no sampled one here.
    local c, go = paused({ "keep=1000,10000" }, { conf = "prof:true,prof_active:false,lg_prof_sample:40" })
    local first = support.eventually(function()
      local f = c:figures()
      for i = 0, f and f.class_count - 1 or -1 do
        if f.classes[i].size_bytes == 10240 and f.classes[i].live_count >= 1000 then return f end
      end
    end, 5, "1000 live blocks of 10240 bytes")
    -- jemalloc reads one figure after the other: of the moment in which a block is added they need not agree.
    local figures = support.eventually(function()
      local f = c:figures()
      return f and f.time_ms > first.time_ms and f
    end, 5, "newer figures")
    assert.is_true(figures.allocated_bytes >= 10240000)
    assert.is_true(figures.allocated_bytes <= figures.active_bytes)
    assert.is_true(figures.active_bytes <= figures.resident_bytes)
    assert.are.equal(1, figures.thread_cache)
    assert.are.equal(10000, tonumber(figures.dirty_decay_ms))
    assert.is_true(c:counter("thread_cpu_ns") > 0)
    go()
  end)

  it("comes with jemalloc's figures of the same moment", function()
    local next_step = runtime.folder .. "/next"
    local host = runtime:host({ "wait=" .. next_step, "keep=1000,20000", runtime.tell, runtime.wait })
    local c = runtime:hello()
    c:welcome({ figures_interval_ms = 60000 }) -- and at once
    local first = support.eventually(function() return c:figures() end, 10, "first figures")
    runtime:release(next_step)
    runtime:reached()
    local text = c:profile()
    local bytes = fake_runtime.parse(text).bytes
    assert.is_near(1000 * 20480, bytes, 500000)
    assert.is_near(1000 * 20480, tonumber(c:figures().allocated_bytes - first.allocated_bytes), 500000)
    runtime:release()
    assert.are.equal(0, host:wait())
  end)

  it("does not show the agent itself", function()
    local c, go = paused({}, { conf = "prof:true,prof_active:false,lg_prof_sample:0" })
    c:profile()
    local before = c:counter("heap_samples")
    for _ = 1, 5 do c:profile() end
    assert.are.equal(before, c:counter("heap_samples"))
    go()
  end)

  it("is left alone when the runtime says so", function()
    local host = runtime:host({ runtime.wait, "keep=500,20000" })
    local c = runtime:hello()
    c:welcome({ enabled = false })
    c:profile() -- answered after the welcome was heard
    local before = c:counter("heap_samples")
    runtime:release()
    c:expect("goodbye") -- and no last profile
    host:wait()
    assert.are.equal(before, c:counter("heap_samples"))
  end)

  local function refused(options, expected_state, allocator)
    local c, go = paused({ "keep=100,20000" }, options)
    assert.are.equal(expected_state, c.hello.heap_state)
    assert.are.equal(0, tonumber(c.hello.sample_period_bytes))
    assert.is_truthy(ffi.string(c.hello.allocator):match(allocator))
    local text, reply = c:profile()
    assert.is_nil(text)
    assert.are.equal(95, reply.status) -- ENOTSUP
    assert.are.equal(0, c:counter("heap_samples"))
    return c, go
  end

  it("is not there without jemalloc, which is said", function()
    local c, go = refused({ jemalloc = false }, state.no_jemalloc, "^system$")
    assert.is_nil(c:figures())
    assert.are.equal(0, go())
    c:expect("goodbye")
  end)

  it("stays unprofiled where the operator wants the system's allocator", function()
    local _, go = refused({ jemalloc = false, env = { LUPE_ALLOCATOR = "system" } }, state.switched_off, "^system$")
    assert.are.equal(0, go())
  end)

  it("is not profiled where jemalloc was not told to, but still counted", function()
    local c, go = refused({ conf = "prof:false" }, state.prof_disabled, "^jemalloc ")
    support.eventually(function() return c:figures() end, 5, "figures")
    assert.are.equal(0, go())
  end)

  it("is seen in a program that brings jemalloc itself", function()
    local host = runtime:spawn({ "redis-server", "--port", "0", "--save", "", "--unixsocket",
      runtime.folder .. "/redis" }, { jemalloc = false })
    local c = runtime:hello()
    c:welcome()
    assert.are.equal(state.on, c.hello.heap_state)
    support.eventually(function() return host:stdout():find("ready to accept", 1, true) end, 10, "redis to serve")
    assert.is_true(fake_runtime.parse((c:profile())).bytes > 0)
    host:kill(15)
    local reply, text = c:expect("profiled", 20)
    assert.are.equal(0, tonumber(reply.serial))
    assert.is_true(fake_runtime.parse(text).bytes > 0)
    c:expect("goodbye")
    assert.are.equal(0, host:wait())
  end)
end)

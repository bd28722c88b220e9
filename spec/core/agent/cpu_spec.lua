--- CPU samples of real programs: how many there are, and what the program notices of them.
-- not under asan: neither the agent nor the programs that it is in are sanitized
local ffi = require("ffi")
local fake_runtime = require("spec.core.agent.fake_runtime")
local support = require("spec.support")

ffi.cdef("unsigned geteuid(void);")

local sampling = fake_runtime.sampling

describe("CPU samples", function()
  local runtime

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  local function start(commands, options)
    local argv = { support.fixture("cpu_host") }
    for _, command in ipairs(commands) do argv[#argv + 1] = command end
    local host = runtime:spawn(argv, options or { jemalloc = false })
    local c = runtime:hello()
    return host, c
  end
  local function eventually_state(c, state)
    support.eventually(function() return c:counter("cpu_state") == state end, 10,
      "the state " .. state, c:counter("cpu_state"))
  end
  -- Threads are found, and all of them have a timer.
  local function eventually_timed(c, threads)
    support.eventually(function()
      c:drain()
      return c:counter("threads") == threads and c:counter("threads_untimed") == 0
        and c:counter("cpu_state") == sampling.on
    end, 10, threads .. " threads with timers")
  end
  local function wait_draining(host, c, seconds)
    support.eventually(function()
      c:drain()
      return not host:alive()
    end, seconds or 60, "the host to end")
    c:drain()
    return host.code, host.signal
  end
  local function cpu_samples(c)
    local list = {}
    for _, s in ipairs(c:drain()) do
      if s.kind == "cpu" then list[#list + 1] = s end
    end
    return list
  end
  -- Weight by thread, and all of it.
  local function weights(c)
    local by, sum = {}, 0
    for _, s in ipairs(cpu_samples(c)) do
      by[s.tid] = (by[s.tid] or 0) + s.weight
      sum = sum + s.weight
    end
    return by, sum
  end

  for _, threads in ipairs({ 1, 4, 8 }) do
    it(("of %d busy threads stand for the CPU time that each used"):format(threads), function()
      local hz = 250
      local host, c = start({ ("start=%d,400"):format(threads), runtime.wait, "join" })
      c:welcome({ cpu_hz = hz })
      eventually_timed(c, threads + 1)
      runtime:release()
      assert.are.equal(0, (wait_draining(host, c)))
      local by, sum = weights(c)
      -- The kernel looks at a timer when its tick finds the thread running. What a thread used after the last
      -- such tick is not sampled: 4 ms at 250 Hz where it runs alone, some times that among many.
      local expected_sum = 0
      for tid, ns in host:stdout():gmatch("(%d+) (%d+)\n") do
        local expected = tonumber(ns) / 1e9 * hz
        assert.is_near(expected, by[tonumber(tid)] or 0, 0.25 * expected)
        expected_sum = expected_sum + expected
      end
      assert.is_near(expected_sum, sum, 0.1 * expected_sum + 4)
      assert.are.equal(sum, c:counter("cpu_samples"))
      assert.is_true(c:counter("handler_ns") > 0)
      assert.are.equal(0, c:counter("dropped_records"))
    end)
  end

  it("carry the stack, from the interrupted instruction to the first frame", function()
    local host, c = start({ runtime.wait, "burn=300" })
    c:welcome({ cpu_hz = 250 })
    eventually_timed(c, 1)
    runtime:release()
    wait_draining(host, c)
    local list = cpu_samples(c)
    assert.is_true(#list > 20)
    local whole = 0
    for _, s in ipairs(list) do
      if s.flags == 0 and s.depth >= 4 then whole = whole + 1 end
      assert.are.equal(host.pid, s.tid)
    end
    assert.is_true(whole >= 0.9 * #list, ("%d of %d"):format(whole, #list))
  end)

  it("tell the kernel's time from the program's", function()
    for command, state in pairs({ ["kernel=300"] = 1, ["burn=300"] = 0 }) do
      runtime:meet_again()
      local host, c = start({ runtime.wait, command })
      c:welcome({ cpu_hz = 250 })
      eventually_timed(c, 1)
      runtime:release()
      wait_draining(host, c)
      local of_state, sum = 0, 0
      for _, s in ipairs(cpu_samples(c)) do
        sum = sum + s.weight
        if s.state == state then of_state = of_state + s.weight end
      end
      assert.is_true(sum > 20 and of_state >= 0.8 * sum, ("%s: %d of %d"):format(command, of_state, sum))
    end
  end)

  it("are not taken before they are asked for, and end when they are not wanted", function()
    local host, c = start({ "burn=50", runtime.tell, runtime.wait, "burn=50" })
    runtime:reached()
    assert.are.equal(sampling.off, c:counter("cpu_state"))
    assert.are.equal(0, #cpu_samples(c))
    c:welcome({ cpu_hz = 1000 })
    eventually_timed(c, 1)
    c:welcome({ cpu_hz = 1000, enabled = false })
    eventually_state(c, sampling.off)
    local before = c:counter("cpu_samples")
    runtime:release()
    assert.are.equal(0, host:wait())
    assert.are.equal(before, c:counter("cpu_samples"))
  end)

  it("of threads that start and exit at the highest rate do no harm", function()
    local host, c = start({ runtime.wait, "churn=400", "burn=50", "exit=3" })
    c:welcome({ cpu_hz = 1000 })
    eventually_timed(c, 1)
    runtime:release()
    assert.are.equal(3, (wait_draining(host, c)))
    assert.is_true(c:counter("cpu_samples") > 0)
  end)

  it("interrupt no system call of the program", function()
    local host, c = start({ runtime.wait, "quiet=1500" })
    c:welcome({ cpu_hz = 1000 })
    eventually_timed(c, 1)
    runtime:release()
    assert.are.equal(0, (wait_draining(host, c)))
    assert.are.equal("interrupted 0\n", host:stdout())
    assert.is_true(c:counter("cpu_samples") > 500)
  end)

  for _, how in ipairs({ "execs", "vforks", "spawns" }) do
    it("never reach what the program executes by " .. how, function()
      local host, c = start({ runtime.wait, how .. "=100" })
      c:welcome({ cpu_hz = 1000 })
      eventually_timed(c, 1)
      runtime:release()
      assert.are.equal(0, (wait_draining(host, c)), host:stdout())
      assert.are.equal(how .. ": all ended well\n", host:stdout())
    end)
  end

  it("let a fork end that takes longer than their interval, and leave the mask alone", function()
    local host, c = start({ runtime.wait, "bigfork=256", "masks", "block", "masks" })
    c:welcome({ cpu_hz = 1000 })
    eventually_timed(c, 1)
    runtime:release()
    assert.are.equal(0, (wait_draining(host, c)))
    assert.are.equal("forked\nparent 0\nchild 0\nparent 0\nparent 1\nchild 1\nparent 1\n", host:stdout())
  end)

  it("begin anew in a forked child", function()
    local host, c = start({ runtime.wait, "fork", runtime.tell, "wait=" .. runtime.go .. "2", "burn=300", "exit=5" })
    c:welcome({ cpu_hz = 250 })
    eventually_timed(c, 1)
    runtime:release()
    local child = runtime:hello()
    child:welcome({ cpu_hz = 250 })
    eventually_timed(child, 1)
    local before = c:counter("cpu_samples")
    runtime:release(runtime.go .. "2")
    assert.are.equal(5, (wait_draining(host, c)))
    local by = weights(child)
    assert.is_near(75, by[child.hello.pid] or 0, 12)
    assert.are.equal(before, c:counter("cpu_samples"))
  end)

  it("go on when the first thread has left", function()
    local host, c = start({ "leave", runtime.tell, runtime.wait, "start=2,300", "join", "exit=3" })
    c:welcome({ cpu_hz = 250 })
    runtime:reached()
    eventually_state(c, sampling.on)
    runtime:release()
    assert.are.equal(3, (wait_draining(host, c)))
    assert.is_true(c:counter("cpu_samples") > 0)
  end)

  it("go on when the program has changed its user", function()
    if ffi.C.geteuid() ~= 0 then
      pending("needs root")
      return
    end
    local meeting = runtime.open_directory()
    local host, c = start({ "setuid=65534", "start=3,300", "tell=" .. meeting .. "/here",
      "wait=" .. meeting .. "/go", "join" })
    runtime:reached(meeting .. "/here")
    c:welcome({ cpu_hz = 250 })
    eventually_timed(c, 4)
    runtime:release(meeting .. "/go")
    assert.are.equal(0, (wait_draining(host, c)))
    local _, sum = weights(c)
    assert.is_near(3 * 75, sum, 30)
  end)

  it("fit on small signal stacks and small threads", function()
    for _, extra in ipairs({ 1000, 1500, 3000, 4600, 8000, 30000 }) do
      runtime:meet_again()
      local host, c = start({ runtime.wait, "alternate=" .. extra, "small=" .. extra, "exit=4" })
      c:welcome({ cpu_hz = 1000 })
      eventually_timed(c, 1)
      runtime:release()
      local code, signal = wait_draining(host, c)
      assert.are.same({ 4 }, { code, signal }, "with " .. extra .. " bytes")
    end
  end)

  it("leave half of the user's queued signals and timers to the program", function()
    if ffi.C.geteuid() ~= 0 then
      pending("needs root")
      return
    end
    local meeting = runtime.open_directory()
    local host, c = start({ "setuid=65532", "pending=24", "start=20,1", "tell=" .. meeting .. "/here",
      "wait=" .. meeting .. "/go", "timers=12", "join", "exit=4" })
    runtime:reached(meeting .. "/here")
    c:welcome({ cpu_hz = 250 })
    support.eventually(function()
      return c:counter("threads") == 21 and c:counter("threads_untimed") == 21 - 12
    end, 10, "all threads to be seen, and twelve to have timers")
    assert.are.equal(sampling.on, c:counter("cpu_state"))
    runtime:release(meeting .. "/go")
    assert.are.equal(4, (wait_draining(host, c)))
    assert.truthy(host:stdout():find("made 12\n", 1, true))
  end)

  it("are refused where the kernel has no more timers for the user", function()
    if ffi.C.geteuid() == 0 then
      local meeting = runtime.open_directory()
      local host, c = start({ "setuid=65533", "pending=0", "tell=" .. meeting .. "/here",
        "wait=" .. meeting .. "/go", "burn=50", "exit=4" })
      runtime:reached(meeting .. "/here")
      c:welcome({ cpu_hz = 250 })
      eventually_state(c, sampling.refused)
      assert.are.same({ 1, 1 }, { c:counter("threads"), c:counter("threads_untimed") })
      runtime:release(meeting .. "/go")
      assert.are.equal(4, (wait_draining(host, c)))
    else
      pending("needs root")
    end
  end)
end)

--- The agent as a part of a program, which starts and stops it.
-- not under asan: neither the agent nor the programs that it is in are sanitized
local fake_runtime = require("spec.core.agent.fake_runtime")
local support = require("spec.support")

local INVALID, FULL, AGAIN, OTHER_VERSION, NO_ENTRY, IN_USE, UNSUPPORTED = 1, 3, 4, 6, 7, 11, 13 -- lupe_status

describe("a program that has the agent in it", function()
  local runtime

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  local function guest(commands, options)
    options = options or {}
    local argv = { support.fixture("agent_guest") }
    for _, command in ipairs(commands) do argv[#argv + 1] = (command:gsub("SOCKET", runtime.path)) end
    local env = { LUPE_SOCKET = false, LD_PRELOAD = options.jemalloc ~= false and fake_runtime.jemalloc or false }
    env.MALLOC_CONF = options.conf or "prof:true,prof_active:false,lg_prof_sample:12"
    return support.spawn(argv, { env = env })
  end

  -- Answers whoever comes until the program has ended. Returns the connections, each with the messages that it sent.
  local function serve(program, options)
    local met, open = {}, {}
    local deadline = support.now() + (options and options.seconds or 60)
    while program:alive() or #open > 0 do
      assert(support.now() < deadline, "the program has not ended; it said: " .. program:stdout())
      local c = runtime:try_hello()
      if c then
        c:welcome(options)
        c.said = {}
        met[#met + 1] = c
        open[#open + 1] = c
      end
      for i = #open, 1, -1 do
        local name = open[i]:try()
        if name then table.insert(open[i].said, name) end
        if name == "gone" then
          open[i]:drain()
          open[i]:close()
          table.remove(open, i)
        end
      end
      if not c then support.sleep(0.0002) end -- not `eventually`: the program waits for us a thousand times
    end
    return met
  end

  local function last_words(c) return { unpack(c.said, #c.said - 2) } end

  local function lines(program)
    local list = {}
    for line in program:stdout():gmatch("[^\n]+") do list[#list + 1] = line end
    return list
  end

  it("leaves nothing behind after a thousand starts and stops", function()
    for _, jemalloc in ipairs({ true, false }) do
      local program = guest({
        "cycles=3,SOCKET", "leftovers", "mallctl", "sigprof", "cycles=1000,SOCKET", "leftovers", "mallctl", "sigprof",
      }, { jemalloc = jemalloc })
      serve(program, { cpu_hz = 500, wall_hz = 100 })
      local said = lines(program)
      assert.are.same({ "cycles 3", "cycles 1000" }, { said[1], said[5] }, program:stderr())
      assert.is_truthy(said[2]:find("threads 1, descriptors %d+, segments 0, timers 0, mapped"), said[2])
      assert.are.same({ said[2], said[3], said[4] }, { said[6], said[7], said[8] })
      assert.are.equal("default", said[8])
      if jemalloc then assert.are.equal("unwinder jemalloc's, active 0", said[7]) end
    end
  end)

  it("says why it has not started, and may be started then", function()
    local program = guest({
      "start=" .. runtime.folder .. "/nobody", "start=" .. ("x"):rep(200), "stop", "leftovers", "mallctl",
      "start=SOCKET", "start=SOCKET", "stop", "stop", "start=SOCKET", "stop", "leftovers", "mallctl",
    })
    serve(program)
    local said = lines(program)
    assert.are.same({ "start " .. NO_ENTRY, "start " .. INVALID, "stop 0" }, { said[1], said[2], said[3] })
    assert.are.same({ "start 0", "start " .. IN_USE, "stop 0", "stop 0", "start 0", "stop 0" },
      { unpack(said, 6, 11) })
    assert.is_truthy(said[12]:find("threads 1, descriptors %d+, segments 0, timers 0"), said[12])
    assert.are.equal("unwinder jemalloc's, active 0", said[5])
    assert.are.equal(said[5], said[13])
  end)

  it("gives up on a runtime that does not welcome it, and on one that speaks another version", function()
    local program = guest({ "start=SOCKET", "leftovers", "start=SOCKET", "leftovers" })
    local silent = runtime:hello()
    silent:expect("profiled", 5)
    silent:expect("goodbye", 5)
    runtime:hello(5):welcome({ version = 99 })
    assert.are.equal(0, program:wait())
    local said = lines(program)
    assert.are.same({ "start " .. NO_ENTRY, "start " .. OTHER_VERSION }, { said[1], said[3] })
    for _, i in ipairs({ 2, 4 }) do assert.is_truthy(said[i]:find("threads 1, .*segments 0, timers 0"), said[i]) end
  end)

  it("can start again when its runtime has gone, without a stop", function()
    local program = guest({ "start=SOCKET", runtime.tell, runtime.wait, "start=SOCKET", "stop",
      "leftovers" })
    local first = runtime:hello()
    first:welcome({ cpu_hz = 100 })
    runtime:reached()
    first:close()
    support.eventually(function()
      return support.run({ "ls", "/proc/" .. program.pid .. "/task" }).out:match("^%d+\n$")
    end, 10, "the agent's thread to end")
    runtime:release()
    serve(program)
    local said = lines(program)
    assert.are.same({ "start 0", "start 0", "stop 0" }, { said[1], said[2], said[3] })
    assert.is_truthy(said[4]:find("threads 1, .*segments 0, timers 0"), said[4])
  end)

  it("gives back the unwinder and the switch that it found", function()
    local program = guest({ "mallctl", "start=SOCKET", "mallctl", "keep=100,20000", "stop", "mallctl" },
      { conf = "prof:true,prof_active:true,lg_prof_sample:12" })
    local met = serve(program)
    assert.are.same({
      "unwinder jemalloc's, active 1", "start 0", "unwinder other, active 1", "stop 0", "unwinder jemalloc's, active 1",
    }, lines(program))
    assert.is_true(#met[1].samples > 80)
  end)

  it("leaves the heap alone where it is told to", function()
    local program = guest({ "leave=SOCKET", "mallctl", "stop", "start=SOCKET", "mallctl", "stop", "mallctl" })
    local met = serve(program)
    assert.are.same({
      "start 0", "unwinder jemalloc's, active 0", "stop 0", "start 0", "unwinder other, active 1", "stop 0",
      "unwinder jemalloc's, active 0",
    }, lines(program))
    assert.are.same({ fake_runtime.state.switched_off, fake_runtime.state.on },
      { met[1].hello.heap_state, met[2].hello.heap_state })
  end)

  it("samples CPU time each time it is started, and gives SIGPROF back", function()
    local commands = { "start=SOCKET", "spin=400", "stop", "sigprof", "start=SOCKET", "spin=400", "stop", "sigprof" }
    local program = guest(commands)
    local met = serve(program, { cpu_hz = 500 })
    for i = 1, 2 do assert.is_true(#met[i].samples > 20, "samples: " .. #met[i].samples) end
    assert.are.same({ "start 0", "stop 0", "default", "start 0", "stop 0", "default" }, lines(program))
  end)

  it("says farewell when it exits without a stop", function()
    local met = serve(guest({ "start=SOCKET", "keep=100,20000", "exit=0" }))
    assert.are.same({ "profiled", "goodbye", "gone" }, last_words(met[1]))
  end)

  -- threads ------------------------------------------------------------------------------------

  local function reached()
    local c = runtime:hello()
    c:welcome({ cpu_hz = 200, wall_hz = 50 })
    runtime:reached()
    return c
  end

  it("sees nothing of a thread that belongs to lupe", function()
    local program = guest({ "lupes=50,1000000", "start=SOCKET", "programs=10,1000000", "lupes=50,1000000",
      runtime.tell, runtime.wait, "stop" })
    local c = reached()
    local said = program:stdout()
    local early, programs, late = said:match("tid (%d+).-tid (%d+).-tid (%d+)")
    -- The program's thread has been seen often enough since the last one came.
    local seen
    support.eventually(function()
      seen = { cpu = {}, wall = {} }
      for _, sample in ipairs(c:drain()) do
        if seen[sample.kind] then seen[sample.kind][sample.tid] = (seen[sample.kind][sample.tid] or 0) + 1 end
      end
      return (seen.cpu[tonumber(programs)] or 0) > 50 and (seen.wall[tonumber(programs)] or 0) > 0
    end, 20, "samples of the program's thread")
    for _, kind in ipairs({ "cpu", "wall" }) do
      assert.is_nil(seen[kind][tonumber(early)], kind)
      assert.is_nil(seen[kind][tonumber(late)], kind)
    end
    local figures = c:figures()
    local own, all = tonumber(figures.own_allocated_bytes), tonumber(figures.allocated_bytes)
    assert.is_near(100 * 1048576, own, 4e6)
    assert.is_near(10 * 1048576, all, 4e6)
    assert.is_true(tonumber(figures.own_active_bytes) >= own and tonumber(figures.own_resident_bytes) >= own)
    assert.is_true(tonumber(figures.active_bytes) < 16e6, "active: " .. tonumber(figures.active_bytes))
    assert.is_true(tonumber(figures.resident_bytes) < 32e6, "resident: " .. tonumber(figures.resident_bytes))
    for i = 0, figures.class_count - 1 do
      if figures.classes[i].size_bytes == 1048576 then assert.are.equal(10, tonumber(figures.classes[i].live_count)) end
    end
    assert.is_near(10 * 1048576, fake_runtime.parse((c:profile())).bytes, 1e6)
    assert.are.equal(0, c:command("purge").status)
    assert.is_near(own, tonumber(c:figures().own_allocated_bytes), 1e6)
    runtime:release()
    c:expect("profiled")
    assert.are.equal(0, program:wait())
  end)

  it("sees a thread again that does not belong to lupe any more", function()
    local program = guest({ "adopt", "adopt", "keep=20,1000000", "start=SOCKET", "spin=300", runtime.tell, runtime.wait,
      "release", "keep=20,1000000", "spin=400", "stop", "drop" })
    local c = reached()
    assert.are.equal(0, #c:drain())
    runtime:release()
    local _, text = c:expect("profiled")
    assert.is_near(20 * 1048576, fake_runtime.parse(text).bytes, 1e6)
    assert.are.equal(0, program:wait())
    local cpu = 0
    for _, sample in ipairs(c:drain()) do
      if sample.kind == "cpu" then cpu = cpu + 1 end
    end
    assert.is_true(cpu > 10, "samples: " .. cpu)
    assert.are.same({ "adopt 0", "adopt 0", "start 0", "stop 0" }, lines(program))
  end)

  it("adopts fifteen threads, and says so of one more", function()
    local commands = { "start=SOCKET" }
    for _ = 1, 15 do commands[#commands + 1] = "lupes=0,0" end
    commands[#commands + 1] = "adopt"
    local program = guest(commands)
    serve(program)
    assert.are.equal("adopt " .. FULL, lines(program)[17])
  end)

  -- children -----------------------------------------------------------------------------------

  it("goes on in a child that is forked while it runs", function()
    local program = guest({ "start=SOCKET", "fork", "keep=100,20000", runtime.wait, "stop", "mallctl", "leftovers" })
    local parent = runtime:hello()
    parent:welcome()
    local child = runtime:hello()
    child:welcome()
    assert.are.same({ 0, 1 }, { parent.hello.forked, child.hello.forked })
    runtime:release()
    local _, text = child:expect("profiled")
    assert.is_near(100 * 20480, fake_runtime.parse(text).bytes, 500000)
    assert.are.equal(0, program:wait())
    local said = lines(program)
    assert.are.same({ "start 0", "stop 0", "unwinder jemalloc's, active 0" }, { said[1], said[2], said[3] })
    assert.is_truthy(said[4]:find("threads 1, .*segments 0, timers 0"), said[4])
  end)

  it("does nothing in a child that is forked after a stop, and starts there", function()
    for _, fork in ipairs({ "fork", "rawfork" }) do
      local program = guest({ "start=SOCKET", "stop", fork, "leftovers", "stop", "start=SOCKET", "keep=100,20000",
        "stop", "leftovers", "mallctl", "exit=3" })
      local met = serve(program)
      assert.are.equal(3, program.code)
      assert.are.same({ 2, 0 }, { #met, met[2].hello.forked })
      local said = lines(program)
      assert.is_truthy(said[3]:find("threads 1, .*segments 0, timers 0"), said[3])
      assert.are.same({ "stop 0", "start 0", "stop 0" }, { said[4], said[5], said[6] })
      assert.is_truthy(said[7]:find("threads 1, .*segments 0, timers 0"), said[7])
      assert.are.equal("unwinder jemalloc's, active 0", said[8])
    end
  end)

  it("starts in a child that no fork handler knows of while the parent's goes on", function()
    local program = guest({ "start=SOCKET", "rawfork", "stop", "start=SOCKET", "keep=100,20000", "stop", "exit=3" })
    local met = serve(program)
    assert.are.equal(3, program.code)
    assert.are.equal(2, #met)
    assert.are.same({ "start 0", "stop 0", "start 0", "stop 0" }, lines(program))
  end)

  it("does neither start nor stop in a child of vfork, whose memory is its parent's", function()
    local program = guest({ "start=SOCKET", "vfork=SOCKET", "keep=100,20000", "stop", "leftovers" })
    local met = serve(program)
    local said = lines(program)
    assert.are.same({ "start 0", "start " .. UNSUPPORTED, "stop 0", "stop 0" }, { unpack(said, 1, 4) })
    assert.is_truthy(said[5]:find("threads 1, .*segments 0, timers 0"), said[5])
    assert.is_true(#met[1].samples > 80)
  end)

  -- ends ---------------------------------------------------------------------------------------

  it("exits within its second from a handler that interrupted malloc, or a start, or beside one", function()
    for _, case in ipairs({ { 5, "exit_in_malloc=5" }, { 5, "exit_in_start=SOCKET" }, { 6, "exit_beside=SOCKET" } }) do
      for _ = 1, 3 do
        local commands = { case[2] }
        if case[1] == 5 and case[2]:find("malloc") then table.insert(commands, 1, "start=SOCKET") end
        local began = support.now()
        local program = guest(commands)
        serve(program, { cpu_hz = 200, seconds = 10 })
        assert.are.equal(case[1], program.code, case[2])
        assert.is_true(support.now() - began < 5, case[2])
      end
    end
  end)

  it("ends with its last thread when the first one has left, and leaves what it printed", function()
    local program = guest({ "start=SOCKET", "thread", "stop", "start=SOCKET", "keep=10,20000", "leftovers" })
    local met = serve(program)
    assert.are.equal(0, program.code)
    assert.are.same({ "profiled", "goodbye", "gone" }, last_words(met[2]))
  end)

  it("leaves no thread behind where the one that started it has ended", function()
    local program = guest({ "elsewhere=SOCKET", "stop", "leftovers", "elsewhere=SOCKET", "thread", "leftovers", "stop",
      "keep=10,20000", "leftovers" })
    serve(program)
    assert.are.equal(0, program.code)
    local said = lines(program)
    assert.are.same({ "start 0", "stop 0" }, { said[1], said[2] })
    assert.is_truthy(said[3]:find("threads 1, .*segments 0, timers 0"), said[3])
    assert.are.same({ "start 0", "stop 0" }, { said[4], said[6] })
    assert.is_truthy(said[7]:find("threads 1, .*segments 0, timers 0"), said[7])
  end)

  -- memory that is written to --------------------------------------------------------------------

  it("keeps mapped what a thread is writing to, says so, and sees to it later", function()
    for _, later in ipairs({ "stop", "start=SOCKET" }) do
      local program = guest({ "start=SOCKET", "write", "try_stop", "leftovers", "written", later, "stop", "leftovers" })
      serve(program)
      local said = lines(program)
      assert.are.same({ "start 0", "stop " .. AGAIN }, { said[1], said[2] })
      assert.is_truthy(said[3]:find("threads 1, .*segments 1, timers 0"), said[3])
      assert.are.same({ later:match("^%l+") .. " 0", "stop 0" }, { said[4], said[5] })
      assert.is_truthy(said[6]:find("threads 1, .*segments 0, timers 0"), said[6])
    end
  end)

  it("lets a child finish what its thread was writing as a signal handler forked it", function()
    local program = guest({ "start=SOCKET", "write", "fork", "leftovers", "written", "stop", "leftovers", "exit=4" })
    serve(program)
    assert.are.equal(4, program.code)
    local said = lines(program)
    assert.is_falsy(said[2]:find("segments 0"), said[2])
    assert.are.equal("stop 0", said[3])
    assert.is_truthy(said[4]:find("threads 1, .*segments 0, timers 0"), said[4])
  end)

  it("starts, stops and forks amid threads that allocate", function()
    for _, jemalloc in ipairs({ true, false }) do
      local program = guest({ "hammer=3", "storm=4,SOCKET", "stop", "mallctl" },
        { jemalloc = jemalloc, conf = "prof:true,prof_active:false,lg_prof_sample:17" })
      local met = serve(program, { cpu_hz = 900, wall_hz = 100 })
      assert.are.same({ 0, nil }, { program.code, program.signal }, program:stderr())
      assert.is_true(#met > 50)
      if jemalloc then assert.are.equal("unwinder jemalloc's, active 0", lines(program)[2]) end
    end
  end)
end)

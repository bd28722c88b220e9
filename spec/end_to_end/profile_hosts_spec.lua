--- CPU and wall profiles of programs that care about signals, about who they are, or that start others: each does what
-- it does without lupe.
local ffi = require("ffi")
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

ffi.cdef("unsigned geteuid(void);")

local BUSIEST = { "--cpu-hz", "1000", "--wall-hz", "100" }
local SETUID = "u+s"
-- Neither the program nor the agent in it is sanitized: it is lupe, beside them, that is looked at there.
local STORM_SECONDS = support.sanitized and 4 or 10

local function start_under_lupe(flags, argv)
  local words = { support.built("lupe"), "run", "--listen", "127.0.0.1:" .. support.free_port(), "--report", "none" }
  for _, flag in ipairs(flags) do words[#words + 1] = flag end
  words[#words + 1] = "--"
  for _, word in ipairs(argv) do words[#words + 1] = word end
  return support.spawn(words)
end

local function finished(process, seconds)
  process:wait(seconds or 60)
  process.out, process.err = process:stdout(), process:stderr()
  return process
end

local function under_lupe(flags, argv, seconds) return finished(start_under_lupe(flags, argv), seconds) end

local function printed(done)
  assert.equal(0, done.code, ("signal %s: %s"):format(tostring(done.signal), done.out .. done.err))
  return support.json.decode(done.out)
end

local function sampled(b) return b.cpu_seconds ~= support.json.null and b.cpu_seconds > 0.5 end

local function located(b) return sampled(b) and b.hotspots[1] and b.hotspots[1].file_location ~= support.json.null end

local function hotspot_names(bottlenecks)
  local names = {}
  for _, hotspot in ipairs(bottlenecks.hotspots) do names[#names + 1] = hotspot.function_name end
  return names
end

describe("a program that sets a handler for SIGPROF", function()
  after_each(support.cleanup)

  for _, way in ipairs({ "sigaction", "signal" }) do
    it("by " .. way .. " is left alone, and lupe says so wherever it is asked", function()
      local run = lupe_run.start({ support.fixture("owns_sigprof"), 1, way }, { flags = BUSIEST })
      local own = support.eventually(function()
        local line = run.process:stdout():match("^({.*})\n")
        return line and support.json.decode(line)
      end, 60, "the program's own profile")
      -- Every 20 ms of the process's CPU time, which the kernel counts in ticks for this timer: so about. lupe's would
      -- come 250 times a second at least.
      assert.is_true(own.counted <= 2 * own.cpu_s / 0.02, own.counted)
      assert.is_true(own.counted >= own.cpu_s / 0.02 / 3, own.counted)
      assert.equal(0, own.strangers)

      local reason = "has a handler for SIGPROF of its own"
      local told = run:await("/api/profiling/bottlenecks", function(b) return b.cpu_profile.state == "foreign" end)
      assert.matches(reason, told.cpu_profile.reason, 1, true)
      assert.same({ "on", 100 }, { told.wall_profile.state, told.wall_profile.hz })
      assert.equal(support.json.null, told.cpu_seconds)
      for _, name in ipairs({ "cpu", "io", "memory", "lock" }) do
        assert.equal(support.json.null, told[name .. "_bound_percent"])
      end
      assert.matches(reason, told.bound_reason, 1, true)
      local stacks = run:get("/api/profiling/cpu").stack_profile
      assert.equal("foreign", stacks.state)
      assert.matches(reason, stacks.reason, 1, true)
      assert.matches(reason, run:get("/api/profiling/flamegraph", nil, 503).detail, 1, true)
      assert.matches(reason, run:get("/debug/pprof/profile?seconds=1", nil, 503).detail, 1, true)

      local report, code = run:finish(15)
      assert.equal(0, code)
      assert.equal("foreign", report.bottlenecks.cpu_profile.state)
    end)
  end

  it("is told of in the report's words", function()
    local run = lupe_run.start({ support.fixture("owns_sigprof"), 1 }, { flags = { "--report", "text" } })
    support.eventually(function() return run.process:stdout():match("\n") end, 60, "the program's own profile")
    run.process:kill()
    assert.equal(0, run.process:wait(30))
    local words = support.read_file(run.report_path):gsub("%s+", " ")
    assert.matches("no CPU profile: the program has a handler for SIGPROF of its own", words, 1, true)
  end)
end)

describe("a program that waits in calls that end with EINTR at a signal", function()
  local looked_at, waiting, computing

  -- They wait, most of the time: so they run at the same time.
  setup(function()
    looked_at = start_under_lupe({ "--wall-hz", "100", "--cpu-hz", "0" }, { support.fixture("interrupted"), 4, 10 })
    waiting = start_under_lupe(BUSIEST, { support.fixture("interrupted"), 4 })
    computing = start_under_lupe(BUSIEST, { support.fixture("interrupted"), 4, 10 })
  end)
  teardown(support.cleanup)

  local function interruptions(done)
    local count = 0
    for name, value in pairs(printed(done)) do
      if name ~= "calls" then count = count + value end
    end
    return count
  end

  it("sees none from looks at what threads wait for, however many", function()
    local done = finished(looked_at)
    assert.equal(0, interruptions(done), done.out)
    assert.is_true(printed(done).calls > 100)
  end)

  it("sees none while it waits, with CPU timers at the highest rate", function()
    local done = finished(waiting)
    assert.equal(0, interruptions(done), done.out)
  end)

  it("sees none where threads compute in between, with CPU timers at the highest rate", function()
    local done = finished(computing)
    assert.equal(0, interruptions(done), done.out)
  end)
end)

describe("a program that starts others", function()
  after_each(support.cleanup)

  it("loses none of them to SIGPROF, by fork, vfork, posix_spawn or system", function()
    local done = under_lupe(BUSIEST, { support.fixture("children"), 5, 8 }, 90)
    local counted = printed(done)
    assert.same({ 0, 0 }, { counted.by_signal, counted.failed }, done.err)
    assert.is_true(counted.started > 20, counted.started)
  end)

  it("and executes itself again and again ends as it should", function()
    local done = under_lupe(BUSIEST, { support.fixture("children"), "exec", 60 })
    assert.same({ 9 }, { done.code, done.signal }, done.err)
  end)
end)

describe("the storm, with timers and looks at the highest rates", function()
  after_each(support.cleanup)

  it("ends with every child reaped", function()
    local done = under_lupe({ "--sample-bytes", "4K", "--heap-interval", "0.5", unpack(BUSIEST) },
      { support.fixture("storm"), STORM_SECONDS, 16, support.built("spec/unwind_plugin.so") }, 120)
    assert.same({ 0 }, { done.code, done.signal }, done.out .. done.err)
    assert.matches("failures 0", done.out)
  end)
end)

describe("time is profiled", function()
  after_each(support.cleanup)

  it("without jemalloc too, with lines", function()
    local run = lupe_run.start({ support.fixture("known_functions") },
      { flags = { "--allocator", "system", "--cpu-hz", "500" } })
    local answer = run:await("/api/profiling/bottlenecks", located, 40)
    assert.equal("spin_most", hotspot_names(answer)[1])
    assert.matches("known_functions%.c$", answer.hotspots[1].file_location)
    assert.same({ "on", "on" }, { answer.cpu_profile.state, answer.wall_profile.state })
    assert.matches("spin_most", support.http(run.port, "/api/profiling/flamegraph?format=folded").body)
    local memory = run:get("/api/profiling/memory")
    assert.equal(support.json.null, memory.heap_mb)
    local report, code = run:finish(15)
    assert.equal(0, code)
    assert.equal("spin_most", hotspot_names(report.bottlenecks)[1])
    assert.matches("known_functions%.c$", report.bottlenecks.hotspots[1].file_location)
  end)

  it("of a program that gives up its rights", function()
    if ffi.C.geteuid() ~= 0 then
      pending("needs root")
      return
    end
    local dir = support.temp_dir()
    os.execute("chmod 777 " .. dir)
    local run = lupe_run.start({ support.fixture("cpu_host"), "setuid=65534", "burn=1500", "tell=" .. dir .. "/here",
      "wait=" .. dir .. "/go", "exit=4" }, { flags = { "--cpu-hz", "500" } })
    local answer = run:await("/api/profiling/bottlenecks", sampled, 40)
    assert.equal("on", answer.cpu_profile.state)
    if answer.wall_profile.state ~= "on" then assert.is_string(answer.wall_profile.reason) end
    support.eventually(function() return support.read_file(dir .. "/here") end, 40, "the program")
    support.write_file(dir .. "/go", "")
    local report, code = run:finish()
    assert.equal(4, code)
    assert.is_true(report.bottlenecks.cpu_seconds > 0.5)
  end)
end)

describe("a program that nothing can be loaded into", function()
  after_each(support.cleanup)

  local function check_unprofiled(run, why, output)
    local report, ended = run:finish()
    assert.equal(0, ended)
    assert.equal(output, run.process:stdout())
    assert.matches(why, report.reason, 1, true)
    local told = report.bottlenecks
    if told and told ~= support.json.null then
      assert.same({}, told.hotspots)
      assert.is_string(told.reason)
      assert.equal(support.json.null, told.cpu_bound_percent)
    end
  end

  it("as it is static runs, and the report says why there is no profile", function()
    local run = lupe_run.start({ support.fixture("static_program") })
    check_unprofiled(run, "it is statically linked", "static output\n")
  end)

  it("as it is setuid runs, and the report says why there is no profile", function()
    if ffi.C.geteuid() ~= 0 then
      pending("needs root")
      return
    end
    local dir = support.temp_dir()
    local program = dir .. "/known_functions"
    os.execute(("chmod 755 %s; cp %s %s; chown nobody %s; chmod %s %s"):format(dir, support.fixture("known_functions"),
      program, program, SETUID, program))
    local run = lupe_run.start({ program, 2 }, { flags = BUSIEST })
    local told = support.eventually(function()
      local answer = support.http(run.port, "/api/profiling/bottlenecks")
      return answer and answer.status == 503 and answer.json().detail
    end, 10, "an answer")
    assert.is_string(told)
    check_unprofiled(run, "it changes its user or capabilities (setuid", "")
  end)
end)

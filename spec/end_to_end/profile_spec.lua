--- Where the time goes in a program whose functions and shares are known: every way to ask tells the same.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local SOURCE = support.root .. "/spec/fixtures/known_functions.c"
local SHARES = { { "spin_most", 60 }, { "spin_some", 30 }, { "spin_least", 10 } }
local MARGIN = 10 -- percent; three standard deviations of 300 samples are less

local function known_functions() return support.fixture("known_functions") end

--- First and last line of a function of the fixture.
local function lines_of(name)
  local first, number = nil, 0
  for line in io.lines(SOURCE) do
    number = number + 1
    if line:match("^[%w_ (),]*[%* ]" .. name .. "%(.*{$") then first = number end
    if first and line == "}" then return first, number end
  end
  error(name .. " is not in " .. SOURCE)
end

--- Those of the known functions in a list of hotspots, in its order.
local function known_of(hotspots)
  local list = {}
  for _, hotspot in ipairs(hotspots) do
    for _, pair in ipairs(SHARES) do
      if hotspot.function_name == pair[1] then list[#list + 1] = hotspot end
    end
  end
  return list
end

local function check_hotspots(hotspots)
  local found = known_of(hotspots)
  assert.equal(#SHARES, #found, support.json.encode(hotspots))
  for i, pair in ipairs(SHARES) do
    local hotspot, first, last = found[i], lines_of(pair[1])
    assert.equal(pair[1], hotspot.function_name)
    assert.is_near(pair[2], hotspot.cpu_time_percent, MARGIN)
    assert.equal("known_functions", hotspot.module)
    assert.matches("spec/fixtures/known_functions%.c$", tostring(hotspot.file_location))
    assert.is_true(first <= hotspot.definition_line and hotspot.definition_line <= last, hotspot.definition_line)
    -- What is inlined into it has lines elsewhere: the line is the one of the call then.
    assert.is_true(first <= hotspot.line_number and hotspot.line_number <= last,
      ("%s: line %d, not in %d to %d"):format(pair[1], hotspot.line_number, first, last))
    assert.same({ pair[1], "turn", "spinner" }, { unpack(hotspot.stack, 1, 3) })
  end
  return found
end

describe("a program of known functions under lupe run", function()
  local run

  local function ask(path) return assert(support.http(run.port, path, { seconds = 30 })) end

  local function text(path)
    local answer = ask(path)
    assert.equal(200, answer.status, answer.body)
    return answer.body, answer
  end

  setup(function()
    run = lupe_run.start({ known_functions() }, { flags = { "--cpu-hz", "1000", "--wall-hz", "100" } })
    run:await("/api/profiling/bottlenecks?window=600", function(b)
      return b.cpu_seconds ~= support.json.null and b.cpu_seconds >= 3
    end, 60)
  end)
  teardown(support.cleanup)

  it("names its functions as hotspots, in order, with file and line", function()
    local answer = run:await("/api/profiling/bottlenecks?window=600", function(b)
      return b.hotspots[1] and b.hotspots[1].file_location ~= support.json.null
    end)
    local found = check_hotspots(answer.hotspots)
    assert.is_true(found[1].impact_score > found[2].impact_score and found[2].impact_score > found[3].impact_score)
    assert.equal("spin_most", answer.hotspots[1].function_name)
    assert.same({ "on", "on" }, { answer.cpu_profile.state, answer.wall_profile.state })
    assert.same({ 1000, 100 }, { answer.cpu_profile.hz, answer.wall_profile.hz })
    assert.is_true(answer.cpu_bound_percent > 90, answer.cpu_bound_percent)
    assert.is_near(100, answer.cpu_bound_percent + answer.io_bound_percent + answer.lock_bound_percent
      + answer.memory_bound_percent, 1e-6)
    assert.is_true(answer.idle_percent > 40) -- two of its threads wait, one computes
    assert.same({}, answer.rule_errors)
    assert.equal(0, answer.profiler.dropped_records)
  end)

  it("leaves out of the hotspots what only begins a thread", function()
    for _, hotspot in ipairs(run:get("/api/profiling/bottlenecks?window=600&limit=100").hotspots) do
      assert.is_nil(({ main = true, start_thread = true, clone3 = true, _start = true })[hotspot.function_name])
    end
    assert.equal(1, #run:get("/api/profiling/bottlenecks?window=600&limit=1").hotspots)
  end)

  it("knows all of its CPU time, as the kernel does", function()
    local pid = run:get("/api/targets").targets[1].pid
    local function used()
      local fields = {}
      for field in support.read_file("/proc/" .. pid .. "/stat"):match("%) (.*)"):gmatch("%S+") do
        fields[#fields + 1] = tonumber(field) or 0
      end
      return (fields[12] + fields[13]) / 100
    end
    -- Samples are up to a second on their way, and the first ones are missing until the timers are there.
    support.eventually(function()
      local before = used()
      local told = run:get("/api/profiling/bottlenecks?window=600").cpu_seconds
      local after = used()
      return told >= 0.9 * before - 2 and told <= 1.1 * after + 0.5, told
    end, 30, "the CPU seconds of the profile to be those of the process")
  end)

  it("tells of a window only what was in it", function()
    support.eventually(function()
      local short = run:get("/api/profiling/bottlenecks?window=1")
      local long = run:get("/api/profiling/bottlenecks?window=60")
      assert.equal(1, short.window_seconds)
      -- One thread computes: a second, and what lay in the second that the window begins in.
      assert.is_true(short.cpu_seconds == support.json.null or short.cpu_seconds <= 2.5, short.cpu_seconds)
      return short.cpu_seconds ~= support.json.null and short.cpu_seconds > 0 and long.cpu_seconds > short.cpu_seconds
    end, 20, "samples in the last second")
    for _, bad in ipairs({ "window=0", "window=601", "window=x", "limit=0", "seconds=3" }) do
      assert.equal(400, ask("/api/profiling/bottlenecks?" .. bad).status, bad)
    end
  end)

  it("names its threads and tells what each does", function()
    local threads = {}
    run:await("/api/profiling/cpu", function(answer)
      threads = {}
      for _, thread in ipairs(answer.top_threads) do threads[thread.name] = thread end
      return threads.spinner and threads.spinner.running_percent ~= support.json.null
        and threads.sleeper and threads.sleeper.idle_percent ~= support.json.null
    end)
    assert.is_true(threads.spinner.running_percent > 90, threads.spinner.running_percent)
    assert.is_true(threads.sleeper.idle_percent > 90, threads.sleeper.idle_percent)
    assert.is_true(threads.known_functions.idle_percent > 90, threads.known_functions.idle_percent)
    local stacks = run:get("/api/profiling/cpu").stack_profile
    assert.same({ "on", 1000, "on", 100 }, { stacks.state, stacks.hz, stacks.wall.state, stacks.wall.hz })
    assert.same({ 0, 0 }, { stacks.threads_untimed, stacks.threads_unread })
  end)

  it("draws all of it as flame graphs of every form", function()
    for _, kind in ipairs({ "cpu", "wall" }) do
      for format, content in pairs({ svg = "image/svg+xml", html = "text/html", folded = "text/plain",
        json = "application/json" }) do
        local body, answer = text(("/api/profiling/flamegraph?type=%s&format=%s&window=600"):format(kind, format))
        assert.matches(content, answer.headers["content-type"], 1, true)
        for _, pair in ipairs(SHARES) do
          assert.is_truthy(body:find(pair[1], 1, true), ("%s is not in the %s of %s"):format(pair[1], format, kind))
        end
        assert.is_truthy(body:find("inlined_step", 1, true), ("the inlined call is not in the %s"):format(format))
      end
    end
    local svg = support.write_file(support.temp_dir() .. "/graph.svg", (text("/api/profiling/flamegraph?window=600")))
    local parse = "import sys, xml.dom.minidom as m; m.parse(sys.argv[1])"
    local parsed = support.run({ "/usr/bin/python3", "-c", parse, svg })
    assert.equal(0, parsed.code, parsed.err)
  end)

  it("folds stacks from the thread's first function to the one that runs, in microseconds", function()
    local sums, total = {}, 0
    for stack, value in text("/api/profiling/flamegraph?format=folded&window=600"):gmatch("([^\n]*) (%d+)\n") do
      total = total + value
      for _, pair in ipairs(SHARES) do
        if stack:find("spinner;turn;" .. pair[1], 1, true) then sums[pair[1]] = (sums[pair[1]] or 0) + value end
      end
    end
    assert.is_true(total >= 3e6)
    for _, pair in ipairs(SHARES) do assert.is_near(pair[2], 100 * sums[pair[1]] / total, MARGIN) end
  end)

  it("is read by go tool pprof", function()
    local path = support.write_file(support.temp_dir() .. "/cpu.pb.gz", (text("/debug/pprof/profile?seconds=2")))
    local done = support.run({ "go", "tool", "pprof", "-top", "-cum", "-nodecount=20", path },
      { seconds = 60, env = { HOME = support.temp_dir() } })
    assert.equal(0, done.code, done.err)
    assert.matches("Type: cpu", done.out)
    local order = {}
    for name in done.out:gmatch("(spin_%a+)") do order[#order + 1] = name end
    assert.same({ "spin_most", "spin_some", "spin_least" }, { unpack(order, 1, 3) })
  end)

  -- Last: it ends the program.
  it("tells it in the report at its end", function()
    local report, code = run:finish(15)
    assert.equal(0, code)
    check_hotspots(report.bottlenecks.hotspots)
    assert.is_true(report.bottlenecks.cpu_seconds >= 3)
    assert.is_true(report.profiler.truncated_stacks <= 0.02 * report.bottlenecks.total_samples)
  end)
end)

describe("the report in words", function()
  teardown(support.cleanup)

  it("says where the time went, with the line, and has no more than a terminal's width", function()
    local path = support.temp_dir() .. "/report"
    local listen = "127.0.0.1:" .. support.free_port()
    local words = { support.built("lupe"), "run", "--listen", listen, "--cpu-hz", "1000", "--output", path, "--",
      known_functions(), 4 }
    local done = support.run(words, { seconds = 60 })
    assert.equal(0, done.code, done.err)
    local report = support.read_file(path)
    local part = report:match("\nWhere the time goes.-\n\n")
    assert.is_truthy(part, report)
    local last = 0
    for _, pair in ipairs(SHARES) do
      local first_line, last_line = lines_of(pair[1])
      local at, _, percent, line = part:find("(%d[%d.]*) %%[^\n]*" .. pair[1] .. "%s+known_functions%.c:(%d+)")
      assert.is_truthy(at, report)
      assert.is_true(at > last, part)
      assert.is_near(pair[2], tonumber(percent), MARGIN)
      assert.is_true(first_line <= tonumber(line) and tonumber(line) <= last_line, part)
      last = at
    end
    for line in report:gmatch("[^\n]+") do
      assert.is_true(#line:gsub("[\128-\191]", "") <= 100, line)
    end
  end)
end)

describe("one of several processes", function()
  teardown(support.cleanup)

  it("is asked about by its number", function()
    local script = 'trap "kill \\$a \\$b; wait" TERM; "$0" & a=$!; "$1" cpu & b=$!; wait'
    local run = lupe_run.start({ "sh", "-c", script, known_functions(), support.built("bench/bound") },
      { flags = { "--cpu-hz", "1000" } })
    local function names(path)
      local found = {}
      for _, hotspot in ipairs(run:get(path).hotspots) do found[hotspot.function_name] = true end
      return found
    end
    run:await("/api/profiling/bottlenecks", function(b)
      local found = {}
      for _, hotspot in ipairs(b.hotspots) do found[hotspot.function_name] = true end
      return found.spin_most and found.compute
    end, 40)
    local pids = {}
    for _, target in ipairs(run:get("/api/targets").targets) do pids[target.name] = target.pid end
    local own, other = "?target=" .. pids.known_functions, "?target=" .. pids.bound
    support.eventually(function() return names("/api/profiling/bottlenecks" .. own).spin_most end, 20, "its hotspots")
    assert.is_nil(names("/api/profiling/bottlenecks" .. own).compute)
    assert.is_true(names("/api/profiling/bottlenecks" .. other).compute)
    assert.is_nil(names("/api/profiling/bottlenecks" .. other).spin_most)
    local folded = support.http(run.port, "/api/profiling/flamegraph?format=folded&" .. other:sub(2)).body
    assert.is_truthy(folded:find("compute", 1, true))
    assert.is_nil(folded:find("spin_most", 1, true))
    local report = run:finish(15)
    assert.equal(3, #report.targets)
  end)
end)

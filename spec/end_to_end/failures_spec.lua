--- When things go wrong around a run: lupe says what, and nothing else is lost.
local ffi = require("ffi")
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local SIGKILL, SIGTERM, SIGCONT, SIGSTOP = 9, 15, 18, 19

local function host_program(...) return { support.fixture("agent_host"), ... } end

local function status_of(pid, field)
  local text = support.read_file("/proc/" .. pid .. "/status")
  return text and text:match("\n" .. field .. ":%s*([^\n]*)")
end

describe("a folder of rules of which some are broken", function()
  local run, dir, go

  local function rule(name, check, mode)
    local source = ([[
return {
  api = 1, id = "spec.%s", kind = "pattern", title = "%s", version = "1", needs = {}, params = {},
  check = function(view)
    %s
  end,
}
]]):format(name, name, check)
    local path = support.write_file(("%s/%s.lua"):format(dir, name), source)
    os.execute(("chmod %s %s"):format(mode or "644", path))
    return path
  end

  local function entry(name)
    for _, found in ipairs(run:get("/api/rules").rules) do
      if found.path == ("%s/%s.lua"):format(dir, name) then return found end
    end
  end

  setup(function()
    dir = support.temp_dir()
    go = dir .. "/go"
    rule("good", 'return { { summary = "a good rule found this" } }')
    rule("raises", "return view.no_such_thing.at_all")
    rule("loops", "while true do end")
    rule("open", "return {}", "666")
    support.write_file(dir .. "/broken.lua", "return {\n  api = 1,\n  id = = 3,\n}\n")
    run = lupe_run.start(host_program("keep=500,20000", "wait=" .. go), { flags = { "--rules", dir } })
    run:await("/api/profiling/allocations", function(a) return #a.top_allocators > 0 end)
    run:get("/api/rules") -- answers once all files were looked at
  end)
  teardown(support.cleanup)

  it("names the one that does not compile, with its line, on stderr and in /api/rules", function()
    local message = dir .. "/broken.lua:3: unexpected symbol near '='"
    assert.matches("lupe: error: rule " .. message, run.process:stderr(), 1, true)
    local broken = entry("broken")
    assert.equal("broken", broken.state)
    assert.matches(message, broken.error, 1, true)
  end)

  it("refuses one that others may write", function()
    assert.equal("broken", entry("open").state)
    assert.matches("others may write it (mode 666), so it is not loaded: chmod o-w", entry("open").error, 1, true)
  end)

  it("runs the others, and says of each that fails where and why", function()
    local answer = run:post("/api/profiling/leak-detection")
    assert.same({ "a good rule found this" }, answer.suspicious_patterns)
    local errors = table.concat(answer.rule_errors, "\n")
    assert.matches("spec.raises: " .. dir .. "/raises.lua:4: ", errors, 1, true)
    assert.matches("spec.loops: ", errors, 1, true)
    local function told(name) -- the list of rules is a quarter of a second old at the most
      return support.eventually(function()
        local message = entry(name).error
        return type(message) == "string" and message
      end, 10, "what is wrong with " .. name)
    end
    assert.matches("raises.lua:4: ", told("raises"), 1, true)
    local loops = told("loops")
    -- On a busy machine its process may have no time to say where it was.
    assert.truthy(loops:find("loops.lua:4: ", 1, true) or loops:find("the worker was killed", 1, true), loops)
    assert.equal("active", entry("good").state)
  end)

  it("answers other routes while a rule loops", function()
    local url = ("http://127.0.0.1:%d/api/profiling/leak-detection"):format(run.port)
    local asking, answers = support.spawn({ "curl", "-s", "-X", "POST", url }), 0
    while asking:alive() do -- half a second at least
      run:get("/api/profiling/memory")
      answers = answers + 1
    end
    assert.matches("spec.loops: ", asking:stdout(), 1, true)
    assert.is_true(answers > 3, answers) -- one may be before it began, one after
  end)

  it("leaves a rule alone that had to be stopped three times", function()
    support.eventually(function()
      run:post("/api/profiling/leak-detection")
      return entry("loops").state == "quarantined"
    end, 20, "the rule that loops to be quarantined")
    assert.matches("spec.loops: stopped 3 times in a row", run.process:stderr(), 1, true)
    local runs = entry("loops").runs -- more than three where the machine gave some of them no time: those do not count
    assert.is_true(runs >= 3)
    run:post("/api/profiling/leak-detection")
    assert.equal(runs, entry("loops").runs)
  end)

  it("loads one as soon as it is mended, and says at the end what was wrong", function()
    rule("broken", 'return { { summary = "mended" } }')
    run:post("/api/rules/reload")
    support.eventually(function()
      local found = run:post("/api/profiling/leak-detection").suspicious_patterns
      return table.concat(found, " "):match("mended")
    end, 10, "the mended rule's finding")
    support.write_file(go, "")
    local report, code = run:finish()
    assert.equal(0, code)
    assert.matches("spec.raises: " .. dir .. "/raises.lua:4: ", table.concat(report.rule_errors, "\n"), 1, true)
  end)
end)

describe("a jemalloc that was built without profiling", function()
  teardown(support.cleanup)

  it("leaves the heap unknown, with the reason, and everything else works", function()
    local dir = support.temp_dir()
    local run = lupe_run.start(host_program("keep=500,20000", "wait=" .. dir .. "/go"),
      { env = { LUPE_JEMALLOC = support.fixture("jemalloc_without_profiling_plugin.so") } })
    local why = "profil"
    local targets = run:await("/api/targets", function(t) return #t.targets == 1 end)
    assert.equal("no_profiling", targets.targets[1].heap_state)
    assert.equal("jemalloc 5.3.0-0-gnoprof", targets.targets[1].allocator)
    assert.matches(why, targets.targets[1].reason)
    local null = support.json.null
    local memory = run:get("/api/profiling/memory")
    assert.same({ null, null, null }, { memory.heap_mb, memory.resident_mb, memory.active_mb })
    assert.is_true(memory.rss_mb > 1)
    assert.matches(why, memory.reason)
    local allocations = run:get("/api/profiling/allocations")
    assert.equal(0, #allocations.top_allocators)
    assert.matches(why, allocations.reason)
    assert.is_true(run:get("/api/profiling/cpu").threads >= 1)
    run:await("/api/profiling/memory", function(m) return m.growth_rate_mb_per_sec ~= null end)
    local leaks = run:post("/api/profiling/leak-detection")
    assert.same({ "unprofiled", 0 }, { leaks.status, #leaks.potential_leaks })
    assert.matches(why, leaks.reason)
    support.write_file(dir .. "/go", "")
    local report, code = run:finish()
    assert.equal(0, code)
    assert.equal("unprofiled", report.status)
    assert.matches("The heap was not profiled: .*" .. why, report.answer[1].text)
  end)

  it("is much like --allocator=system, which leaves the allocator alone", function()
    local run = lupe_run.start(host_program("keep=500,20000", "wait=/nowhere"), { flags = { "--allocator=system" } })
    local memory = run:await("/api/profiling/memory")
    assert.same({ "system", support.json.null }, { memory.allocator, memory.heap_mb })
    assert.is_string(memory.reason)
    assert.is_true(memory.rss_mb > 1)
    assert.equal(memory.reason, run:get("/api/profiling/allocations").reason)
    run:await("/api/profiling/cpu", function(c) return c.cpu_usage_percent ~= support.json.null end)
  end)

  it("is refused at start where LUPE_JEMALLOC names a file that is not there", function()
    local env = { LUPE_JEMALLOC = "/nowhere.so" }
    local done = support.run({ support.built("lupe"), "run", "--", "true" }, { env = env })
    assert.equal(125, done.code)
    assert.matches("LUPE_JEMALLOC", done.err)
  end)
end)

describe("a program that is killed", function()
  teardown(support.cleanup)

  it("by SIGKILL is reported from the last data, which the report says, and its signal is told on", function()
    local dir = support.temp_dir()
    local run = lupe_run.start(host_program("keep=500,20000", "wait=" .. dir .. "/go"),
      { flags = { "--sample-bytes", "16K" } })
    local answer = run:await("/api/profiling/allocations", function(a) return #a.top_allocators > 0 end)
    local target = run:get("/api/targets").targets[1]
    ffi.C.kill(target.pid, SIGKILL)
    local report, code = run:finish()
    assert.equal(137, code)
    assert.same({ 9, "KILL" }, { report.outcome.signal, report.outcome.signal_name })
    assert.matches("SIGKILL left no time for a last profile", report.notes[1])
    assert.equal(answer.top_allocators[1][1], report.allocators[1].name)
  end)

  it("is answered for with 503, and the rest of the run as before", function()
    local program = support.fixture("agent_host")
    local run = lupe_run.start({ "sh", "-c", program .. " keep=10,100 _exit=3; exec sleep 60" })
    local gone
    run:await("/api/targets", function(t)
      for _, target in ipairs(t.targets) do
        if target.name == "agent_host" and not target.live then gone = target end
      end
      return gone and t.targets[1].name == "sleep"
    end)
    local answer = run:get("/api/profiling/memory?target=" .. gone.pid, nil, 503)
    assert.matches(("process %d (agent_host) has ended"):format(gone.pid), answer.detail, 1, true)
    run:await("/api/profiling/memory")
    run:finish(SIGTERM)
  end)
end)

describe("lupe killed by SIGKILL", function()
  teardown(support.cleanup)

  it("leaves a program that goes on, unprofiled and unharmed, and nothing else", function()
    local runtime_dir = support.temp_dir()
    local run = lupe_run.start({ support.built("examples/leaky_server"), "--self-drive", 120 },
      { flags = { "--sample-bytes", "4K" }, env = { XDG_RUNTIME_DIR = runtime_dir } })
    run:await("/api/profiling/allocations", function(a) return #a.top_allocators > 0 end)
    run:post("/api/profiling/leak-detection") -- so that there is a worker
    local pid = run:get("/api/targets").targets[1].pid
    local port = tonumber(run.process:stdout():match("leaky_server: http://127.0.0.1:(%d+)"))
    local worker = assert.is_truthy(run:worker_pid())
    run.process:kill(SIGKILL)
    run.process:wait(10)
    local ok, failure = pcall(function()
      support.eventually(function() return status_of(pid, "Threads") == "1" end, 10, "the agent's thread to end")
      support.eventually(function() return (status_of(worker, "State") or "Z"):match("^[ZX]") end, 10,
        "the worker to end")
      local asked = support.run({ "curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}",
        ("http://127.0.0.1:%d/page/[1-50]"):format(port) })
      assert.equal(("200"):rep(50), asked.out)
      assert.matches("^[SRD]", status_of(pid, "State"))
    end)
    ffi.C.kill(pid, SIGTERM)
    support.eventually(function() return not status_of(pid, "State") or status_of(pid, "State"):match("^Z") end, 10,
      "the program to end")
    assert.is_true(ok, failure)
  end)
end)

describe("a program that stands still", function()
  teardown(support.cleanup)

  it("does not keep lupe from answering, nor other processes from being profiled", function()
    local dir = support.temp_dir()
    local run = lupe_run.start(host_program("fork", "keep=300,20000", "wait=" .. dir .. "/go"),
      { flags = { "--sample-bytes", "16K" } })
    local targets = run:await("/api/targets", function(t) return #t.targets == 2 end).targets
    local parent = targets[1].ppid == targets[2].pid and targets[2] or targets[1]
    local child = parent == targets[1] and targets[2] or targets[1]
    run:await("/api/profiling/allocations?target=" .. child.pid, function(a) return #a.top_allocators > 0 end)
    ffi.C.kill(parent.pid, SIGSTOP)
    local times, distinct = {}, 0
    local ok, failure = pcall(support.eventually, function()
      for _, path in ipairs({ "memory", "cpu", "allocations?target=" .. child.pid, "memory?target=" .. parent.pid }) do
        run:get("/api/profiling/" .. path, { seconds = 3 })
      end
      local at = run:get("/api/profiling/allocations").profile_time
      if not times[at] then times[at], distinct = true, distinct + 1 end
      return distinct >= 4 -- the first round waits for it, the later ones do not
    end, 14, "four more rounds of profiles")
    ffi.C.kill(parent.pid, SIGCONT)
    assert.is_true(ok, failure)
    support.write_file(dir .. "/go", "")
    local report, code = run:finish()
    assert.equal(0, code)
    assert.equal(2, #report.targets)
  end)
end)

describe("a ring that is full", function()
  teardown(support.cleanup)

  it("drops samples, counts them, and delays nobody", function()
    local dir = support.temp_dir()
    local run = lupe_run.start(host_program("churn=200000,1000", "tell=" .. dir .. "/here", "wait=" .. dir .. "/go"),
      { flags = { "--sample-bytes", "1" } })
    support.eventually(function() return support.read_file(dir .. "/here") end, 20, "the burst to be over")
    local memory = run:await("/api/profiling/memory", function(m) return m.profiler.dropped_records > 0 end)
    local metrics = support.http(run.port, "/metrics").body
    local dropped = tonumber(metrics:match("\nlupe_dropped_records_total (%d+)"))
    local samples = tonumber(metrics:match("\nlupe_heap_samples_total (%d+)"))
    assert.is_true(dropped >= memory.profiler.dropped_records)
    assert.is_true(samples > dropped and samples >= 200000)
    support.write_file(dir .. "/go", "")
    local report, code = run:finish()
    assert.equal(0, code)
    assert.is_true(report.profiler.dropped_records >= dropped)
  end)
end)

describe("settings that cannot be understood", function()
  teardown(support.cleanup)

  local cases = {
    { "PROFILING_MEMORY_INTERVAL_SECS", "abc", "a time in seconds from 0.1 to 86400" },
    { "PROFILING_LEAK_CHECK_INTERVAL_SECS", "0", "a time in seconds from 1 to 86400" },
    { "PROFILING_MEMORY_WARNING_MB", "-1", "a number from 1" },
    { "PROFILING_MEMORY_ALERT_MB", "700MB", "a number from 1" },
    { "ENABLE_PROFILING", "maybe", "true or false" },
    { "LUPE_SAMPLE_BYTES", "many", "a size in bytes" },
    { "LUPE_LISTEN", "here", "an address such as" },
    { "LUPE_SNAPSHOT_KEEP", "2.5", "a whole number" },
  }
  for _, case in ipairs(cases) do
    local name, value, expected = unpack(case)
    it(("stop lupe before anything is started: %s=%s"):format(name, value), function()
      local dir = support.temp_dir()
      local command = { support.built("lupe"), "run", "--", "touch", dir .. "/started" }
      local done = support.run(command, { env = { [name] = value } })
      assert.equal(2, done.code)
      assert.matches(('%s: cannot understand "%s", expected %s'):format(name, value, expected), done.err, 1, true)
      assert.is_nil(support.read_file(dir .. "/started"))
    end)
  end
end)

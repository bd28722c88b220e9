--- Programs that do what profilers do not expect, under the real lupe.
local ffi = require("ffi")
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

ffi.cdef("unsigned geteuid(void);")

describe("under lupe run", function()
  local dir, here, go

  before_each(function()
    dir = support.temp_dir()
    here, go = dir .. "/here", dir .. "/go"
  end)
  after_each(support.cleanup)

  local function start(...)
    return lupe_run.start({ support.fixture("agent_host"), ... }, { flags = { "--sample-bytes", "16K" } })
  end

  local function reached() support.eventually(function() return support.read_file(here) end, 20, "the program") end
  local function release() support.write_file(go, "") end

  local function profiled(run)
    run:await("/api/profiling/allocations", function(a)
      return a.top_allocators[1] and a.top_allocators[1][1] == "spec_leaf"
    end)
  end

  it("a program that closes everything and opens files under the same numbers is profiled on", function()
    local files = support.temp_dir()
    local run = start("tell=" .. here, "wait=" .. go, "closeall=" .. files, "keep=500,20000", "tell=" .. dir .. "/then",
      "wait=" .. dir .. "/end")
    run:await("/readyz")
    release()
    support.eventually(function() return support.read_file(dir .. "/then") end, 20, "the program")
    profiled(run)
    support.write_file(dir .. "/end", "")
    local report, code = run:finish()
    assert.equal(0, code)
    assert.equal("spec_leaf", report.allocators[1].name)
    for i = 1, 60 do assert.equal("", support.read_file(files .. "/" .. i)) end
  end)

  it("a daemon outlives lupe, which reports what it saw of it", function()
    -- It is nobody's child, so nobody but `timeout` would end it where this fails.
    local daemon = { "setsid", "-f", "timeout", 60, support.fixture("agent_host"), "keep=500,20000", "tell=" .. here,
      "wait=" .. go, "keep=500,20000", "tell=" .. dir .. "/end" }
    -- The shell stays until the daemon is there, and ends before it does.
    local run = lupe_run.start({ "sh", "-c", '"$@"; while [ ! -e "$0" ]; do sleep 0.05; done; exit 5', dir .. "/leave",
      unpack(daemon) }, { flags = { "--sample-bytes", "16K" } })
    reached()
    profiled(run)
    support.write_file(dir .. "/leave", "")
    local report, code = run:finish()
    assert.equal(5, code)
    local states = {}
    for _, target in ipairs(report.targets) do states[target.name] = target.heap_state end
    assert.equal("on", states.agent_host)
    assert.equal("spec_leaf", report.allocators[1].name)
    release()
    support.eventually(function() return support.read_file(dir .. "/end") end, 20, "the daemon to go on")
  end)

  it("a program that gives up its rights is profiled on", function()
    if ffi.C.geteuid() ~= 0 then
      pending("needs root")
      return
    end
    os.execute("chmod 777 " .. dir)
    local run = start("setuid=65534", "keep=500,20000", "tell=" .. here, "wait=" .. go, "exit=4")
    reached()
    profiled(run)
    assert.is_true(run:get("/api/profiling/memory").rss_mb > 0)
    release()
    local report, code = run:finish()
    assert.equal(4, code)
    assert.equal("spec_leaf", report.allocators[1].name)
  end)

  it("processes that end in every way, one after the other, are all seen and end as ever", function()
    local program = support.fixture("agent_host")
    local script = ([[
      for i in 1 2 3 4 5 6; do
        %s keep=5,20000 exit=1; echo $?; %s keep=5,20000 _exit=2; echo $?
        (%s keep=5,20000 abort) 2>/dev/null; echo $?
        env -u NOTHING sh -c 'exec env exec_again=1 %s keep=5,20000 exit=3'; echo $?
      done
      exit 7]]):format(program, program, program, program)
    local run = lupe_run.start({ "sh", "-c", "ulimit -c 0\n" .. script })
    local report, code = run:finish(nil, 60)
    assert.equal(7, code)
    assert.equal(("1\n2\n134\n3\n"):rep(6), run.process:stdout())
    local count = 0
    for _, target in ipairs(report.targets) do
      if target.name == "agent_host" then count = count + 1 end
    end
    assert.equal(24, count)
  end)

  it("a thread may end the program while the first one waits", function()
    local run = start("thread", "keep=500,20000", "print=from the thread", "exit=6")
    local report, code = run:finish()
    assert.equal(6, code)
    assert.equal("from the thread\n", run.process:stdout())
    assert.equal("spec_leaf", report.allocators[1].name)
  end)

  it("the first thread may leave before the others", function()
    local run = start("leave", "keep=500,20000", "tell=" .. here, "wait=" .. go, "print=from the last thread")
    reached()
    profiled(run)
    release()
    local report, code = run:finish()
    assert.equal(0, code)
    assert.equal("from the last thread\n", run.process:stdout())
    assert.equal("spec_leaf", report.allocators[1].name)
  end)

  it("a program that confines itself by seccomp is profiled until then, and lives", function()
    local run = lupe_run.start({ support.fixture("confined") }, { flags = { "--sample-bytes", "64K" } })
    local report, code, ended_by = run:finish()
    assert.same({ 0 }, { code, ended_by })
    assert.equal("confined\n", run.process:stdout())
    assert.equal("before_the_filter", report.allocators[1].name)
    assert.equal(1, #report.allocators)
  end)

  it("a signal that the first thread did not block waits for the threads that are left", function()
    local run = start("leave", "sigwait=10", "print=taken")
    local _, code = run:finish()
    assert.equal(0, code)
    assert.equal("taken\n", run.process:stdout())
  end)
end)

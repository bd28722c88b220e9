--- SIGPROF belongs to the program, where the program wants it.
local fake_runtime = require("spec.core.agent.fake_runtime")
local support = require("spec.support")

local sampling = fake_runtime.sampling

describe("SIGPROF", function()
  local runtime, here, go

  before_each(function()
    runtime = fake_runtime.new()
    here, go = runtime.folder .. "/here", runtime.folder .. "/go"
  end)
  after_each(function()
    runtime:close()
    support.cleanup()
  end)

  local function start(commands)
    local argv = { support.fixture("cpu_host") }
    for _, command in ipairs(commands) do argv[#argv + 1] = command end
    local host = runtime:spawn(argv, { jemalloc = false })
    return host, runtime:hello()
  end
  local function release() support.write_file(go, "") end
  local function reached()
    support.eventually(function() return support.read_file(here) end, 20, "the host to get there")
  end
  local function eventually_state(c, state)
    support.eventually(function()
      c:drain()
      return c:counter("cpu_state") == state
    end, 10, "the state " .. state)
  end
  local function armed(commands)
    table.insert(commands, 1, "wait=" .. go)
    local host, c = start(commands)
    c:welcome({ cpu_hz = 1000 })
    eventually_state(c, sampling.on)
    return host, c
  end

  for _, how in ipairs({ "sigaction", "signal", "sysv", "sigset" }) do
    local profile = how == "sysv" and "query" or "profile" -- sysv: a handler for one time
    it("is left to a program that sets a handler by " .. how .. ", then and before", function()
      local host, c = armed({ "burn=30", "query", "own=" .. how, "query", "burn=100", "counted", profile })
      release()
      assert.are.equal(0, host:wait())
      local last = how == "sysv" and "now: own\n" or ""
      assert.are.equal("now: default\nbefore: default\nnow: own\nhandled 0\n" .. last, host:stdout())
      assert.are.equal(sampling.foreign, c:counter("cpu_state"))
      os.remove(go)

      host, c = start({ "own=" .. how, "tell=" .. here, "wait=" .. go, "query", "burn=100", "counted", profile })
      reached()
      c:welcome({ cpu_hz = 1000 })
      eventually_state(c, sampling.foreign)
      release()
      assert.are.equal(0, host:wait())
      assert.are.equal("before: default\nnow: own\nhandled 0\n" .. last, host:stdout())
      assert.are.equal(0, c:counter("cpu_samples"))
    end)
  end

  it("set by the bare system call is noticed", function()
    local host, c = armed({ "own=raw", "tell=" .. here, "wait=" .. go .. "2", "query", "profile" })
    release()
    reached()
    eventually_state(c, sampling.foreign)
    support.write_file(go .. "2", "")
    assert.are.equal(0, host:wait())
    assert.are.equal("now: own\n", host:stdout())
  end)

  it("that is given back is used again", function()
    local host, c = armed({ "own=sigaction", "tell=" .. here, "wait=" .. go .. "2", "give", "wait=" .. go .. "3",
      "burn=200", "query" })
    release()
    reached()
    eventually_state(c, sampling.foreign)
    support.write_file(go .. "2", "")
    eventually_state(c, sampling.on)
    local before = c:counter("cpu_samples")
    support.write_file(go .. "3", "")
    assert.are.equal(0, host:wait())
    assert.is_true(c:counter("cpu_samples") > before)
    assert.are.equal("before: default\nnow: default\n", host:stdout())
  end)

  it("of the program's own kind does what it would have done", function()
    local host = armed({ "burn=20", "raise", "exit=3" })
    release()
    local _, signal = host:wait()
    assert.are.equal(27, signal)
    os.remove(go)

    local c
    host, c = start({ "ignore", "tell=" .. here, "wait=" .. go, "query", "raise", "query", "exit=3" })
    reached()
    c:welcome({ cpu_hz = 1000 })
    eventually_state(c, sampling.on)
    release()
    assert.are.equal(3, (host:wait()))
    assert.are.equal("now: ignored\nnow: ignored\n", host:stdout())
  end)

  it("never comes to a thread that blocks it and waits", function()
    for _, how in ipairs({ "sigwait", "sigfd" }) do
      local nothing = how == "sigwait" and "taken: -1\n" or "taken: 0\n"
      os.remove(go)
      local host, c = armed({ how .. "=100" })
      release()
      assert.are.equal(0, host:wait())
      assert.are.equal(nothing, host:stdout())
      assert.are.equal(sampling.foreign, c:counter("cpu_state"))
      os.remove(go)
      os.remove(here)

      host, c = start({ "block", "tell=" .. here, "wait=" .. go, how .. "=100" })
      reached()
      c:welcome({ cpu_hz = 1000 })
      eventually_state(c, sampling.refused)
      assert.are.equal(1, c:counter("threads_untimed"))
      release()
      assert.are.equal(0, host:wait())
      assert.are.equal(nothing, host:stdout())
      assert.are.equal(0, c:counter("cpu_samples"))
    end
  end)

  it("shows a forked child nothing of ours", function()
    local host = armed({ "fork", "query", "own=signal", "query", "burn=50", "counted", "profile", "exit=6" })
    release()
    assert.are.equal(6, (host:wait()))
    assert.are.equal("now: default\nbefore: default\nnow: own\nhandled 0\n", host:stdout())
  end)
end)

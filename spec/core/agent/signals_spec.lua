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

  it("that the program has sent is not lost where it was blocked meanwhile", function()
    for commands, printed in pairs({ ["await=kill"] = "came: 27\n", ["await=raise"] = "came: 27\n",
      late = "handled 1\n" }) do
      os.remove(go)
      local host, c = armed({ commands })
      release()
      assert.are.equal(0, host:wait(), commands)
      assert.are.equal(printed, host:stdout(), commands)
      assert.are.equal(sampling.foreign, c:counter("cpu_state"))
    end
  end)

  it("set and given back by the bare system call: a late one does not end the program", function()
    local host, c = armed({ "own=raw", "tell=" .. here, "wait=" .. go .. "2", "back", "raise", "exit=3" })
    release()
    reached()
    eventually_state(c, sampling.foreign)
    support.write_file(go .. "2", "")
    assert.are.equal(3, (host:wait()))
  end)

  it("does not come to handlers that run on an alternate stack, which may have no room for it", function()
    local host, c = armed({ "nested=20", "exit=3" })
    release()
    assert.are.equal(3, (host:wait()))
    assert.are.equal("in the mask 0\n", host:stdout())
    assert.is_true(c:counter("cpu_samples") > 0)
  end)

  it("is not used where an alternate stack is too small for it", function()
    local host, c = armed({ "alternate=-1000", "exit=4" })
    release()
    assert.are.equal(4, (host:wait()))
    assert.are.equal(sampling.refused, c:counter("cpu_state"))
  end)

  it("is through before a thread is cancelled", function()
    local host = armed({ "cancel=100", "exit=3" })
    release()
    assert.are.equal(3, (host:wait()))
    assert.are.equal("masked 0\n", host:stdout())
  end)

  it("shows a forked child nothing of ours", function()
    local host = armed({ "fork", "query", "own=signal", "query", "burn=50", "counted", "profile", "exit=6" })
    release()
    assert.are.equal(6, (host:wait()))
    assert.are.equal("now: default\nbefore: default\nnow: own\nhandled 0\n", host:stdout())
  end)
end)

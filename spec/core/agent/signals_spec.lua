--- SIGPROF belongs to the program, where the program wants it.
-- not under asan: neither the agent nor the programs that it is in are sanitized
local fake_runtime = require("spec.core.agent.fake_runtime")
local support = require("spec.support")

local sampling = fake_runtime.sampling

describe("SIGPROF", function()
  local runtime

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  local function start(commands)
    local argv = { support.fixture("cpu_host") }
    for _, command in ipairs(commands) do argv[#argv + 1] = command end
    local host = runtime:spawn(argv, { jemalloc = false })
    return host, runtime:hello()
  end
  local function eventually_state(c, state)
    support.eventually(function()
      c:drain()
      return c:counter("cpu_state") == state
    end, 10, "the state " .. state)
  end
  local function armed(commands)
    table.insert(commands, 1, runtime.wait)
    local host, c = start(commands)
    c:welcome({ cpu_hz = 1000 })
    eventually_state(c, sampling.on)
    return host, c
  end

  for _, how in ipairs({ "sigaction", "signal", "sysv", "sigset" }) do
    local profile = how == "sysv" and "query" or "profile" -- sysv: a handler for one time
    it("is left to a program that sets a handler by " .. how .. ", then and before", function()
      local host, c = armed({ "burn=30", "query", "own=" .. how, "query", "burn=100", "counted", profile })
      runtime:release()
      assert.are.equal(0, host:wait())
      local last = how == "sysv" and "now: own\n" or ""
      assert.are.equal("now: default\nbefore: default\nnow: own\nhandled 0\n" .. last, host:stdout())
      assert.are.equal(sampling.foreign, c:counter("cpu_state"))
      runtime:meet_again()

      host, c = start({ "own=" .. how, runtime.tell, runtime.wait, "query", "burn=100", "counted", profile })
      runtime:reached()
      c:welcome({ cpu_hz = 1000 })
      eventually_state(c, sampling.foreign)
      runtime:release()
      assert.are.equal(0, host:wait())
      assert.are.equal("before: default\nnow: own\nhandled 0\n" .. last, host:stdout())
      assert.are.equal(0, c:counter("cpu_samples"))
    end)
  end

  it("set by the bare system call is noticed", function()
    local host, c = armed({ "own=raw", runtime.tell, "wait=" .. runtime.go .. "2", "query", "profile" })
    runtime:release()
    runtime:reached()
    eventually_state(c, sampling.foreign)
    runtime:release(runtime.go .. "2")
    assert.are.equal(0, host:wait())
    assert.are.equal("now: own\n", host:stdout())
  end)

  it("that is given back is used again", function()
    local host, c = armed({ "own=sigaction", runtime.tell, "wait=" .. runtime.go .. "2", "give",
      "wait=" .. runtime.go .. "3", "burn=200", "query" })
    runtime:release()
    runtime:reached()
    eventually_state(c, sampling.foreign)
    runtime:release(runtime.go .. "2")
    eventually_state(c, sampling.on)
    local before = c:counter("cpu_samples")
    runtime:release(runtime.go .. "3")
    assert.are.equal(0, host:wait())
    assert.is_true(c:counter("cpu_samples") > before)
    assert.are.equal("before: default\nnow: default\n", host:stdout())
  end)

  it("of the program's own kind does what it would have done", function()
    local host = armed({ "burn=20", "raise", "exit=3" })
    runtime:release()
    local _, signal = host:wait()
    assert.are.equal(27, signal)
    runtime:meet_again()

    local c
    host, c = start({ "ignore", runtime.tell, runtime.wait, "query", "raise", "query", "exit=3" })
    runtime:reached()
    c:welcome({ cpu_hz = 1000 })
    eventually_state(c, sampling.on)
    runtime:release()
    assert.are.equal(3, (host:wait()))
    assert.are.equal("now: ignored\nnow: ignored\n", host:stdout())
  end)

  it("never comes to a thread that blocks it and waits", function()
    for _, how in ipairs({ "sigwait", "sigfd" }) do
      local nothing = how == "sigwait" and "taken: -1\n" or "taken: 0\n"
      runtime:meet_again()
      local host, c = armed({ how .. "=100" })
      runtime:release()
      assert.are.equal(0, host:wait())
      assert.are.equal(nothing, host:stdout())
      assert.are.equal(sampling.foreign, c:counter("cpu_state"))
      runtime:meet_again()

      host, c = start({ "block", runtime.tell, runtime.wait, how .. "=100" })
      runtime:reached()
      c:welcome({ cpu_hz = 1000 })
      eventually_state(c, sampling.refused)
      assert.are.equal(1, c:counter("threads_untimed"))
      runtime:release()
      assert.are.equal(0, host:wait())
      assert.are.equal(nothing, host:stdout())
      assert.are.equal(0, c:counter("cpu_samples"))
    end
  end)

  it("that the program has sent is not lost where it was blocked meanwhile", function()
    for commands, printed in pairs({ ["await=kill"] = "came: 27\n", ["await=raise"] = "came: 27\n",
      late = "handled 1\n" }) do
      runtime:meet_again()
      local host, c = armed({ commands })
      runtime:release()
      assert.are.equal(0, host:wait(), commands)
      assert.are.equal(printed, host:stdout(), commands)
      assert.are.equal(sampling.foreign, c:counter("cpu_state"))
    end
  end)

  it("set and given back by the bare system call: a late one does not end the program", function()
    local host, c = armed({ "own=raw", runtime.tell, "wait=" .. runtime.go .. "2", "back", "raise", "exit=3" })
    runtime:release()
    runtime:reached()
    eventually_state(c, sampling.foreign)
    runtime:release(runtime.go .. "2")
    assert.are.equal(3, (host:wait()))
  end)

  it("does not come to handlers that run on an alternate stack, which may have no room for it", function()
    local host, c = armed({ "nested=20", "exit=3" })
    runtime:release()
    assert.are.equal(3, (host:wait()))
    assert.are.equal("in the mask 0\n", host:stdout())
    assert.is_true(c:counter("cpu_samples") > 0)
  end)

  it("is not used where an alternate stack is too small for it", function()
    local host, c = armed({ "alternate=-1000", "exit=4" })
    runtime:release()
    assert.are.equal(4, (host:wait()))
    assert.are.equal(sampling.refused, c:counter("cpu_state"))
  end)

  it("is through before a thread is cancelled", function()
    local host = armed({ "cancel=100", "exit=3" })
    runtime:release()
    assert.are.equal(3, (host:wait()))
    assert.are.equal("masked 0\n", host:stdout())
  end)

  it("shows a forked child nothing of ours", function()
    local host = armed({ "fork", "query", "own=signal", "query", "burn=50", "counted", "profile", "exit=6" })
    runtime:release()
    assert.are.equal(6, (host:wait()))
    assert.are.equal("now: default\nbefore: default\nnow: own\nhandled 0\n", host:stdout())
  end)
end)

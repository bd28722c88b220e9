--- core/agent/wall.c: looks at threads. The fixtures drive it without a runtime; this file says what must come
-- of it.
local support = require("spec.support")

local function figures(...)
  local run = support.run({ support.fixture("wall_looks"), ... })
  assert.equal(0, run.code, run.err)
  local found = { text = run.out }
  for name, number in run.out:gmatch("([%w_]+) (%d+)") do found[name] = tonumber(number) end
  return found
end

describe("a look at a waiting thread", function()
  after_each(support.cleanup)

  -- As the kernel numbers them: nanosleep is clock_nanosleep, poll and epoll_wait are themselves, read is 0, and
  -- the rest is futex, with FUTEX_WAIT for a mutex and FUTEX_WAIT_BITSET for what else waits.
  local CALLS = {
    epoll_wait = "232 0", poll = "7 0", nanosleep = "230 0", read = "0 0", mutex = "202 0", cond = "202 9",
    sem = "202 9", join = "202 9",
  }
  local WAYS = { "epoll_wait", "poll", "nanosleep", "read", "mutex", "cond", "sem", "join" }

  for _, build in ipairs({ "o0", "o2", "o2_fp", "os" }) do
    it("sees the whole stack and what is waited for, compiled as " .. build, function()
      for way, name in ipairs(WAYS) do -- main waits in another way each time
        local run = support.run({ support.fixture("wall_blocked_" .. build), way - 1 })
        assert.equal(0, run.code, run.err)
        local wrong, places = {}, {}
        for line in run.out:gmatch("[^\n]+") do
          local call, place, number, command, verdict = line:match("^([%w_]+)\t(%a+)\t(%d+)\t(%d+)\t(%a+)$")
          if verdict ~= "same" or CALLS[call] ~= number .. " " .. command then wrong[#wrong + 1] = line end
          places[place] = (places[place] or 0) + 1
          if place == "main" then assert.equal(name, call) end
        end
        assert.same({}, wrong, run.err)
        assert.same({ nested = #WAYS, direct = #WAYS, callback = #WAYS, main = 1 }, places)
      end
    end)
  end

  it("interrupts no system call of the program", function()
    local found = figures("interrupted")
    assert.equal(300, found.calls, found.text)
    assert.equal(0, found.interrupted, found.text)
    assert.is_true(found.looks >= 300, found.text)
  end)

  it("is not disturbed by threads that end under it, and leaves nothing of them behind", function()
    local found = figures("churn")
    assert.same({ 0, 0, 1, 1 }, { found.left, found.unread, found.state, found.records }, found.text)
  end)

  it("takes a thread that computes for running, all of the time", function()
    local found = figures("busy")
    assert.equal(0, found.waiting_us, found.text)
    assert.equal(math.floor(found.known_ns / 1000), found.running_us, found.text)
  end)

  it("loses no microsecond of a thread that runs and waits in turn", function()
    local found = figures("weights")
    assert.equal(math.floor(found.known_ns / 1000), found.running_us + found.waiting_us, found.text)
    assert.is_true(found.running_us > 0 and found.waiting_us > 0, found.text)
  end)

  it("pushes one record a second for a thread that stands still", function()
    local found = figures("standing")
    assert.equal(0, found.running_us, found.text)
    assert.equal(found.seconds, found.records, found.text)
    assert.equal(math.floor(found.known_ns / 1000), found.waiting_us, found.text)
  end)

  it("comes to every thread in turn where there are more than one tick looks at", function()
    assert.equal("threads 100 least 3 most 4\n", figures("many").text)
  end)

  it("goes on seeing threads that it knew when the program became another user, and counts those it cannot read",
    function()
      assert.equal("some: state 1 unread 1 of 2\nall: state 4 unread 2 of 2\n", figures("unreadable").text)
    end)

  it("does without files that are kept open where few may be", function()
    local found = figures("few")
    assert.same({ 0, 0, 1 }, { found.kept, found.unread, found.state }, found.text)
    assert.is_true(found.waiting_us > 0, found.text)
  end)
end)

--- The leak proof that a program makes as it exits, where that is wanted.
-- not under asan: neither the agent nor the programs that it is in are sanitized
local fake_runtime = require("spec.core.agent.fake_runtime")
local proof_hosts = require("spec.core.agent.proof_hosts")
local support = require("spec.support")

local outcome, SOME = proof_hosts.outcome, proof_hosts.some
local SIGTERM = 15

describe("a leak proof at exit", function()
  local runtime
  local LIMITS = { interval_ms = 20, max_ms = 5000 }

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  local function started(fixture, commands, after, limits)
    return proof_hosts.start(runtime, fixture, commands,
      { conf = SOME, after = after, welcome = { proof_at_exit = limits or LIMITS } })
  end

  local function last_words(c)
    local reply, block = c:proved()
    assert.are.equal(0ULL, reply.serial)
    local profile = c:expect("profiled")
    assert.are.equal(0ULL, profile.serial)
    c:expect("goodbye")
    return reply, block
  end

  it("comes before the last profile, and leaves the program its exit status", function()
    local host = started("agent_host", { "keep=3000,64" }, { "exit=3" })
    host:finish(3)
    local reply, block = last_words(host.c)
    assert.are.equal(outcome.complete, reply.outcome)
    local t = proof_hosts.tally(block, 64)
    assert.is_true(t.sum > 5)
    assert.are.equal(t.sum, t.reachable)
  end)

  it("is made when another thread exits", function()
    local host = started("agent_host", { "keep=3000,64", "thread" }, { "exit=4" })
    host:finish(4)
    assert.are.equal(outcome.complete, (last_words(host.c)).outcome)
  end)

  it("is made where main returns, and says why it is not", function()
    local host = started("proof_guest", { "heap=100" }, {}, { max_heap_bytes = 1 })
    host:finish(0)
    assert.are.equal(outcome.heap_too_large, (last_words(host.c)).outcome)
  end)

  it("does not hold up a program that exits amid an allocation", function()
    for _ = 1, 5 do -- not each of them has a lock when it is interrupted
      local host = started("agent_host", {}, { "exit_in_handler=5" }, { interval_ms = 20, max_ms = 20000 })
      local before = support.now()
      host:finish(5)
      assert.is_true(support.now() - before < 4, support.now() - before .. " s")
    end
  end)

  it("is not made where the program ends without a word", function()
    for _, how in ipairs({ "_exit=6", "abort" }) do
      local host = started("agent_host", { "keep=10,64" }, { how })
      support.write_file(host.go, "")
      local code, signal = host.process:wait()
      assert.is_true(code == 6 or signal == 6)
      host.c:gone()
    end
    local host = started("agent_host", { "keep=10,64" }, {})
    host.process:kill(SIGTERM)
    local _, signal = host.process:wait()
    assert.are.equal(SIGTERM, signal)
    host.c:gone()
  end)

  it("is made by one of many programs that are soon over as by any other", function()
    for code = 1, 10 do
      local host = runtime:host({ "exit=" .. code }, { conf = SOME })
      local c = runtime:hello()
      c:welcome({ proof_at_exit = LIMITS })
      assert.are.equal(code, (host:wait()))
      local name
      repeat
        name = support.eventually(function() return (c:try()) end, 10, "its last words")
      until name == "goodbye" or name == "gone"
      assert.are.equal("goodbye", name)
    end
  end)
end)

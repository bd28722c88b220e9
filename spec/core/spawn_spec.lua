--- Programs that a process starts without noticing, by the scenes of spec/fixtures/spawner.c.
local support = require("spec.support")

local function scene(...)
  local result = support.run({ support.fixture("spawner"), ... })
  assert.is_nil(result.signal)
  return result.out, result.code
end

local function is_gone(pid)
  local status = support.read_file("/proc/" .. pid .. "/status")
  return not status or status:find("State:%s+Z") ~= nil -- a zombie is for init to reap
end

describe("a program that was spawned", function()
  after_each(function() support.cleanup() end)

  it("is found by no waitpid(-1) of ours and told by no SIGCHLD, and leaves no descriptor", function()
    assert.equal([[
while it runs: waitpid(-1) ECHILD
when it has ended: waitpid(-1) ECHILD
exit code 7
SIGCHLD 0 times
descriptors left 0
]], (scene("unnoticed")))
  end)

  it("tells how it ended also where we ignore SIGCHLD, or have children reaped by the kernel", function()
    assert.equal("exit code 9\n", (scene("ignored")))
    assert.equal("exit code 9\n", (scene("nocldwait")))
  end)

  it("has the descriptors and the environment that it was given, and default signals", function()
    local out = scene("state")
    assert.truthy(out:find("^leaked 1\n"), out)
    -- 4 is the shell's own, of the folder that it lists.
    assert.truthy(out:find("\n/proc/(%d+)/fd/0 /proc/%1/fd/1 /proc/%1/fd/2 /proc/%1/fd/3 /proc/%1/fd/4\n1\n"), out)
    assert.truthy(out:find("\nnone\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nexit code 0\n$"), out)
  end)

  it("is refused with the error of execve, and nothing is left", function()
    assert.equal("status 9 ENOENT, descriptors left 0\nafterwards: waitpid(-1) ECHILD\n", (scene("missing")))
  end)

  it("is refused in words where the kernel, or a sandbox, does not know the calls", function()
    local out, code = scene("old")
    assert.same({ "refused: 13 Function not implemented\n", 1 }, { out, code }) -- LUPE_EUNSUPPORTED
  end)

  it("can be killed, and tells the CPU time that it has used", function()
    assert.equal("signal 9\nCPU time is told\n", (scene("killed")))
  end)

  it("is killed when we end, however that comes", function()
    local spawner = support.spawn({ support.fixture("spawner"), "orphan" })
    local pid = support.eventually(function() return spawner:stdout():match("^(%d+)\n") end)
    assert.is_false(is_gone(pid))
    spawner:kill(9)
    spawner:wait()
    support.eventually(function() return is_gone(pid) end, 10, "the program to be killed")
  end)

  it("is killed when the thread that started it ends, where that was asked for", function()
    local out = scene("thread")
    assert.truthy(out:find("^unknown end\n"), out)
  end)

  it("costs its parent no copy of its page tables", function()
    -- After a fork each page that is written to is a fault: here are 50 starts beside 1 GiB that is in use.
    local faults = tonumber(scene("cost", 1024):match("page faults of ours (%d+)"))
    assert.is_true(faults < 2000, faults .. " page faults")
  end)
end)

--- A program changes its user and groups: the agent's thread must be told the same as the program's.
-- not under asan: neither the agent nor the programs that it is in are sanitized
local fake_runtime = require("spec.core.agent.fake_runtime")
local support = require("spec.support")

local NOBODY = 65534

describe("a program that changes who it is", function()
  local runtime

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  local function is_root() return support.run({ "id", "-u" }).out == "0\n" end

  -- Once the agent speaks with the runtime, `commands` are done: the process, its connection.
  local function host(commands)
    local argv = { "wait=" .. runtime.here }
    for _, command in ipairs(commands) do argv[#argv + 1] = command end
    local started = runtime:host(argv)
    local c = runtime:hello(20)
    c:welcome()
    c:expect("maps")
    runtime:release(runtime.here)
    return started, c
  end

  local function ids(pid)
    local status = support.read_file("/proc/" .. pid .. "/status")
    return { status:match("\nUid:\t(%d+)"), status:match("\nGid:\t(%d+)"), status:match("\nGroups:\t([^\n]-) *\n") }
  end

  it("while it keeps its capabilities, lives, and its agent leaves", function()
    if not is_root() then return pending("changing users takes root") end
    support.run({ "chmod", "711", runtime.folder }) -- so that it finds `go` as another user, too
    local started, c = host({ "keepcaps=" .. NOBODY, runtime.wait, "exit=3" })
    c:gone(20)
    support.eventually(function() return ids(started.pid)[2] == "65534" end, 20, "the other group")
    assert.are.same({ "65534", "65534", "" }, ids(started.pid))
    runtime:release()
    assert.are.equal(3, started:wait(20))
  end)

  it("and may not, is told so, and lives", function()
    if not is_root() then return pending("changing users takes root") end
    local started, c = host({ "dropcap=" .. NOBODY, "exit=3" })
    c:gone(20)
    assert.are.equal(3, started:wait(20))
    assert.are.equal("setuid: Operation not permitted\n", started:stdout())
  end)

  it("in all its threads alike keeps its agent", function()
    if not is_root() then return pending("changing users takes root") end
    local started, c = host({ "setuid=" .. NOBODY, "keep=100,20000", "exit=3" })
    local reply, text = c:expect("profiled", 20)
    assert.are.equal(0, reply.status)
    assert.is_near(100 * 20480, fake_runtime.parse(text).bytes, 500000)
    c:expect("goodbye", 20)
    assert.are.equal(3, started:wait(20))
  end)

  it("by setpriv, su, runuser and their kin runs what it was to run", function()
    if not is_root() then return pending("changing users takes root") end
    local found = 0
    for _, argv in ipairs({
      { "setpriv", "--reuid=0", "--regid=65534", "--clear-groups" },
      { "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups" },
      { "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all" },
      { "runuser", "-u", "nobody", "--" },
      { "su", "nobody", "-s", "/bin/sh", "-c", 'exec "$0" "$@"', "--" },
      { "chroot", "--userspec=65534:65534", "/" },
      { "capsh", "--user=nobody", "--", "-c", 'exec "$0" "$@"' },
      { "sudo", "-n", "-u", "nobody", "LD_PRELOAD=" .. runtime:environment().LD_PRELOAD },
    }) do
      if support.run({ "sh", "-c", "command -v " .. argv[1] }).code == 0 then
        found = found + 1
        local name = table.concat(argv, " ")
        for _, word in ipairs({ "/bin/sh", "-c", "exit 5" }) do argv[#argv + 1] = word end
        local started = runtime:spawn(argv)
        assert.are.same({ name, 5 }, { name, started:wait(20) })
      end
    end
    assert.is_true(found >= 4, found .. " of them are installed")
  end)
end)

--- The agent in a tree of processes: fork, exec, setuid, and where it has no business.
-- not under asan: neither the agent nor the programs that it is in are sanitized
local ffi = require("ffi")
local fake_runtime = require("spec.core.agent.fake_runtime")
local support = require("spec.support")

ffi.cdef("unsigned geteuid(void);")

describe("under the agent", function()
  local runtime

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  it("a program without LUPE_SOCKET is left alone", function()
    local host = runtime:host({ runtime.tell, runtime.wait, "exit=3" }, { env = { LUPE_SOCKET = false } })
    runtime:reached()
    assert.is_truthy(support.read_file("/proc/" .. host.pid .. "/status"):match("Threads:%s+1\n"))
    runtime:release()
    assert.are.equal(3, host:wait())
  end)

  it("a program runs when nobody listens", function()
    for _, path in ipairs({ "/nonexistent/socket", ("x"):rep(300), runtime.folder }) do
      local host = runtime:host({ "keep=100,20000", "fork", "exit=3" }, { env = { LUPE_SOCKET = path } })
      assert.are.equal(3, host:wait())
      assert.are.equal("", host:stderr())
    end
  end)

  it("a forked child is a target of its own, with its own samples", function()
    local host = runtime:host({ "keep=200,20000", "fork", runtime.tell, runtime.wait, "keep=300,20000", "exit=5" })
    local parent = runtime:hello()
    parent:welcome()
    local child = runtime:hello()
    child:welcome()
    assert.are.same({ host.pid, 1 }, { child.hello.ppid, child.hello.forked })
    assert.are_not.equal(host.pid, child.hello.pid)
    runtime:reached()
    local text = child:profile()
    assert.is_near(200 * 20480, fake_runtime.parse(text).bytes, 500000) -- what it inherited
    local before = #parent:drain()
    runtime:release()
    assert.are.equal(5, host:wait())
    local _, last = child:expect("profiled")
    assert.is_near(500 * 20480, fake_runtime.parse(last).bytes, 500000)
    child:expect("goodbye")
    assert.is_near(300, #child:drain(), 15)
    assert.is_true(child.samples[#child.samples].tid == child.hello.pid)
    assert.are.equal(before, #parent:drain())
  end)

  it("children of children connect as well", function()
    local host = runtime:host({ "fork", "fork", "fork", runtime.wait, "exit=5" })
    local pids = {}
    for _ = 1, 4 do
      local c = runtime:hello()
      c:welcome()
      pids[c.hello.pid] = true
    end
    local n = 0
    for _ in pairs(pids) do n = n + 1 end
    assert.are.equal(4, n)
    runtime:release()
    assert.are.equal(5, host:wait())
  end)

  it("a child that no fork handler knows of works, and writes into nobody's ring", function()
    local host = runtime:host({ "keep=100,20000", runtime.tell, runtime.wait, "rawfork",
      "keep=500,20000", "exit=5" })
    local parent = runtime:hello()
    parent:welcome()
    runtime:reached()
    local before = #parent:drain()
    runtime:release()
    assert.are.equal(5, host:wait(10))
    assert.are.equal(before, #parent:drain())
    assert.are.equal(before, parent:counter("heap_samples"))
  end)

  it("children that end at once say nothing, and vforked ones run", function()
    local host = runtime:host({ "vforks=3", "forks=1,20", "exit=0" })
    local parent = runtime:hello()
    assert.are.equal(0, parent.hello.forked)
    assert.are.equal(0, host:wait(20))
    assert.are.equal("reaped 20\n", host:stdout())
    for vforked in function() return runtime:try_hello() end do -- what a vforked child executed speaks for itself
      assert.are.equal(0, vforked.hello.forked)
    end
  end)

  it("many threads that fork at once lose no child", function()
    local host = runtime:host({ "forks=6,40" })
    local c = runtime:hello()
    c:welcome()
    support.eventually(function()
      c:drain()
      return not host:alive()
    end, 60, "the storm to end")
    assert.are.equal(0, host.code)
    assert.are.equal("reaped 240\n", host:stdout())
  end)

  it("the real program is profiled, however it was started", function()
    local fixture = support.fixture("agent_host")
    local command = ("%s keep=300,20000 exit=4"):format(fixture)
    local starts = {
      { "sh", "-c", command },
      { "sh", "-c", command .. "; exit $?" },
      { "env", "X=1", fixture, "keep=300,20000", "exit=4" },
      { "timeout", "20", fixture, "keep=300,20000", "exit=4" },
      { "python3", "-c", ("import subprocess as s, sys; sys.exit(s.run(%q.split(), close_fds=True).returncode)")
        :format(command) },
    }
    for _, argv in ipairs(starts) do
      local host = runtime:spawn(argv)
      local open, found = {}, false
      support.eventually(function()
        local fresh = runtime:try_hello()
        if fresh then
          fresh:welcome()
          open[#open + 1] = fresh
        end
        for _, c in ipairs(open) do
          local name, _, text = c:try()
          if name == "profiled" then
            found = found or math.abs(fake_runtime.parse(text).bytes - 300 * 20480) < 600000
          end
        end
        return found
      end, 30, argv[1] .. ": the real program's profile")
      assert.are.equal(4, host:wait())
    end
  end)

  it("a program that gives up its credentials is profiled on", function()
    if ffi.C.geteuid() ~= 0 then
      pending("needs root")
      return
    end
    local meeting = runtime.open_directory()
    local host = runtime:host({ "keep=100,20000", "setuid=65534", "tell=" .. meeting .. "/here",
      "wait=" .. meeting .. "/go", "exit=4" })
    local c = runtime:hello()
    c:welcome()
    runtime:reached(meeting .. "/here")
    local text, reply = c:profile()
    assert.are.equal(0, reply.status)
    assert.is_near(100 * 20480, fake_runtime.parse(text).bytes, 500000)
    runtime:release(meeting .. "/go")
    assert.are.equal(4, host:wait())
    c:expect("profiled")
    c:expect("goodbye")
  end)

  it("a child that gives up its credentials at once is profiled too", function()
    if ffi.C.geteuid() ~= 0 then
      pending("needs root")
      return
    end
    local meeting = runtime.open_directory()
    local host = runtime:host({ "fork", "setuid=65534", "keep=100,20000", "tell=" .. meeting .. "/here",
      "wait=" .. meeting .. "/go", "exit=4" })
    runtime:hello():welcome()
    local child = runtime:hello()
    child:welcome()
    runtime:reached(meeting .. "/here")
    local text = child:profile()
    assert.is_near(100 * 20480, fake_runtime.parse(text).bytes, 500000)
    runtime:release(meeting .. "/go")
    assert.are.equal(4, host:wait())
    child:expect("profiled")
    child:expect("goodbye")
  end)

  it("a program may enter a user namespace, and is profiled inside", function()
    local inside = { "unshare", "--user", support.fixture("agent_host"), "keep=300,20000", "exit=4" }
    if support.run(inside).code ~= 4 then
      pending("this system does not allow user namespaces")
      return
    end
    for _ = 1, 10 do
      local host = runtime:spawn(inside)
      local text
      while not text do
        local c = runtime:hello()
        c:welcome()
        support.eventually(function()
          local name, _, got = c:try()
          text = text or got
          return name == "gone"
        end, 10, "a program's end")
      end
      assert.is_near(300 * 20480, fake_runtime.parse(text).bytes, 600000)
      assert.are.equal(4, host:wait())
    end
  end)

  it("a program that locks itself into a directory says why it has no heap profile, is sampled, and runs", function()
    if ffi.C.geteuid() ~= 0 then
      pending("needs root")
      return
    end
    local jail = support.temp_dir()
    local host = runtime:host({ "chroot=" .. jail, "tell=/here", "wait=/go", "exit=4" })
    local c = runtime:hello()
    c:welcome()
    runtime:reached(jail .. "/here")
    local text, reply = c:profile()
    assert.is_nil(text)
    assert.are_not.equal(0, reply.status)
    c:welcome({ cpu_hz = 100, wall_hz = 100 })
    support.eventually(function()
      for _, s in ipairs(c:drain()) do
        if s.kind == "wall" and s.depth > 0 then return c:counter("cpu_state") == fake_runtime.sampling.on end
      end
    end, 10, "a stack")
    runtime:release(jail .. "/go")
    assert.are.equal(4, host:wait())
  end)
end)

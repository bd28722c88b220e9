--- The agent's thread: it answers, it says farewell, and the program never notices it.
-- not under asan: neither the agent nor the programs that it is in are sanitized
local ffi = require("ffi")
local fake_runtime = require("spec.core.agent.fake_runtime")
local support = require("spec.support")

ffi.cdef("void *dlsym(void *library, const char *name);")

describe("the agent's thread", function()
  local runtime

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  it("says who the program is", function()
    local host = runtime:host({ runtime.wait })
    local hello = runtime:hello().hello
    local stat = support.read_file("/proc/" .. host.pid .. "/stat"):match("%) (.*)")
    local fields = {}
    for word in stat:gmatch("%S+") do fields[#fields + 1] = word end
    assert.are.same({ ffi.C.LUPE_WIRE_VERSION, host.pid, 0 }, { hello.version, hello.pid, hello.forked })
    assert.are.same({ tonumber(fields[2]), fields[20] },
      { hello.ppid, (tostring(hello.start_ticks):gsub("ULL", "")) })
    runtime:release()
    assert.are.equal(0, host:wait())
  end)

  -- Where the C library begins, in a text of mappings.
  local function libc_base(maps)
    return tonumber(maps:match("\n(%x+)%-%x+ r%-%-p 00000000 [^\n]*/libc%.so%.6\n"), 16)
  end

  it("shows what is mapped, and where libc's memory functions really are", function()
    local host = runtime:host({ runtime.wait })
    local c = runtime:hello()
    c:expect("maps")
    assert.are.equal(support.read_file("/proc/" .. host.pid .. "/maps"), c.maps)
    -- This interpreter's loader chose for the same processor. (A sanitizer's own functions come before libc's.)
    local libc = ffi.C.dlopen("libc.so.6", 2)
    local own_base, base = libc_base(support.read_file("/proc/self/maps")), libc_base(c.maps)
    for i, name in ipairs({ "memcpy", "memmove", "memset", "memcmp", "memchr", "strlen", "strcmp", "strchr" }) do
      local own = tonumber(ffi.cast("uintptr_t", ffi.C.dlsym(libc, name)))
      assert.are.equal(own - own_base, tonumber(c.hello.memory_functions[i - 1]) - base, name)
    end
    runtime:release()
    assert.are.equal(0, host:wait())
  end)

  it("leaves a copy of the mappings behind where no heap profile carries them", function()
    local host = runtime:host({ "exit=7" }, { jemalloc = false })
    local c = runtime:hello()
    c:expect("maps")
    assert.are.equal(7, host:wait())
    c.maps = nil
    c:expect("maps")
    assert.is_truthy(libc_base(c.maps))
    c:expect("goodbye")
  end)

  it("sends a last profile and a farewell at normal exit, and keeps output and exit code", function()
    local host = runtime:host({ "keep=100,20000", "print=hello", "exit=7" })
    local c = runtime:hello()
    local reply, text = c:expect("profiled")
    assert.are.same({ 0, 0 }, { tonumber(reply.serial), reply.status })
    assert.is_near(100 * 20480, fake_runtime.parse(text).bytes, 500000)
    c:expect("goodbye")
    assert.are.equal(7, host:wait())
    assert.are.equal("hello\n", host:stdout())
    c:gone()
  end)

  it("vanishes without a word when the program is killed or aborts", function()
    for command, signal in pairs({ [runtime.wait] = 9, abort = 6 }) do
      local host = runtime:host({ runtime.tell, command })
      local c = runtime:hello()
      runtime:reached()
      if signal == 9 then host:kill(9) end
      local _, got = host:wait()
      assert.are.equal(signal, got)
      c:gone()
    end
  end)

  it("leaves the program's signals to the program", function()
    local host = runtime:host({ runtime.wait })
    runtime:hello()
    host:kill(15)
    local _, signal = host:wait(5)
    assert.are.equal(15, signal)
  end)

  it("lets a program end that exits inside malloc, in a signal handler", function()
    local host = runtime:host({ "exit_in_handler=5" })
    runtime:hello():welcome()
    assert.are.equal(5, host:wait(10))
  end)

  it("does not keep a program alive whose first thread has left, nor lose its output", function()
    local host = runtime:host({ "leave", "keep=100,20000", "print=from the last thread" })
    local c = runtime:hello()
    c:welcome()
    assert.are.equal(0, host:wait(10))
    assert.are.equal("from the last thread\n", host:stdout())
    local _, text = c:expect("profiled")
    assert.is_near(100 * 20480, fake_runtime.parse(text).bytes, 500000)
    c:expect("goodbye")
  end)

  it("goes on when the first thread has left and others have not", function()
    local host = runtime:host({ "leave", runtime.tell, runtime.wait, "exit=3" })
    local c = runtime:hello()
    c:welcome()
    runtime:reached()
    local _, reply = c:profile()
    assert.are.equal(0, reply.status)
    runtime:release()
    assert.are.equal(3, host:wait(10))
  end)

  it("has no descriptor that the program could see", function()
    local bare = support.run({ support.fixture("agent_host"), "fds" })
    local host = runtime:host({ runtime.tell, runtime.wait, "fds" })
    local c = runtime:hello()
    c:welcome()
    runtime:reached()
    c:profile()
    runtime:release()
    host:wait()
    assert.are.equal(bare.out, host:stdout())
  end)

  it("survives a program that closes everything, and writes nothing into what it opens instead", function()
    local files = support.temp_dir()
    local host = runtime:host({ "closeall=" .. files, "keep=100,20000", runtime.tell, runtime.wait })
    local c = runtime:hello()
    c:welcome()
    runtime:reached()
    local text = c:profile()
    assert.is_true(fake_runtime.parse(text).bytes > 0)
    runtime:release()
    assert.are.equal(0, host:wait())
    c:expect("profiled")
    c:expect("goodbye")
    for i = 1, 60 do assert.are.equal("", support.read_file(files .. "/" .. i)) end
  end)

  it("lets the program go on, unprofiled, when the runtime dies", function()
    local host = runtime:host({ "churn=100,20000", runtime.tell, runtime.wait, "keep=5000,20000", "fork",
      "keep=100,20000", "print=done", "exit=4" })
    local c = runtime:hello()
    c:welcome()
    runtime:reached()
    local before = c:counter("heap_samples")
    assert.is_true(before > 0)
    ffi.C.close(c.fd)
    c.fd = nil
    support.eventually(function() -- its thread is gone: only the first one is left
      return support.read_file("/proc/" .. host.pid .. "/status"):match("Threads:%s+1\n")
    end, 5, "the agent's thread to end")
    runtime:release()
    assert.are.equal(4, host:wait())
    assert.are.equal("done\n", host:stdout())
    assert.are.equal(before, c:counter("heap_samples"))
  end)

  it("does no harm when the runtime dies while it is spoken to", function()
    for _ = 1, 5 do
      local host = runtime:host({ "churn=3000,20000", "exit=0" })
      local c = runtime:hello()
      c:welcome()
      for serial = 1, 20 do c:say(3, ffi.new("lupe_profile_request", { serial = serial })) end
      c:close()
      assert.are.equal(0, host:wait(10))
    end
  end)

  it("does not stop the program when the runtime hangs", function()
    local host = runtime:host({ "keep=100,20000", "exit=6" }) -- nobody accepts, reads or answers
    assert.are.equal(6, host:wait(10))
  end)

  it("leaves at a runtime that speaks another version, or nonsense", function()
    for _, talk in ipairs({
      function(c) c:welcome({ version = ffi.C.LUPE_WIRE_VERSION + 1 }) end,
      function(c) c:say(2, ffi.new("char[4]")) end,
      function(c) c:say(99) end,
      function(c) ffi.C.send(c.fd, "abc", 3, 0x4000) end,
    }) do
      runtime:meet_again()
      local host = runtime:host({ runtime.wait, "exit=2" })
      local c = runtime:hello()
      talk(c)
      c:gone()
      runtime:release()
      assert.are.equal(2, host:wait())
    end
  end)
end)

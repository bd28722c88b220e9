--- A leak proof, as the program sees it that it is made of: not at all.
-- not under asan: neither the agent nor the programs that it is in are sanitized
local ffi = require("ffi")
local fake_runtime = require("spec.core.agent.fake_runtime")
local proof_hosts = require("spec.core.agent.proof_hosts")
local support = require("spec.support")

ffi.cdef("unsigned geteuid(void);")

local outcome, SOME = proof_hosts.outcome, proof_hosts.some
local LARGE = "heap=1500000" -- a scan takes most of a second, so that a spec can be in the midst of one
local SIGKILL, SIGSTOP, SIGSYS = 9, 19, 31

describe("a leak proof under way", function()
  local runtime

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  local function guest(commands, options)
    options = options or {}
    options.conf = options.conf or SOME
    return proof_hosts.start(runtime, "proof_guest", commands, options)
  end

  local function noticed(text)
    local t = {}
    for name, value in text:gmatch("([%a ]+) (%d+)") do t[name:gsub("^ ", "")] = tonumber(value) end
    return t
  end

  local function lines(command)
    local pipe, list = assert(io.popen(command)), {}
    for line in pipe:lines() do list[#list + 1] = line end
    pipe:close()
    return list
  end

  local function signals_of(pid)
    return lines(("grep -H -E '^(Sig(Blk|Ign|Cgt)|Threads)' /proc/%d/task/*/status"):format(pid))
  end
  local function descriptors_of(pid) return lines(("ls -l --time-style=+ /proc/%d/fd"):format(pid)) end
  local function status_of(pid, name)
    return tonumber((support.read_file(("/proc/%d/status"):format(pid)) or ""):match(name .. ":%s+(%d+)"))
  end
  local function mappings_of(pid) return #lines(("cat /proc/%d/maps"):format(pid)) end

  it("sends no SIGCHLD, is nobody's child, and lets the program's own be", function()
    local host = guest({ "chld", "atfork", "forks" })
    for _ = 1, 10 do
      host:proof({ interval_ms = 0 })
      runtime:try_hello() -- of the children that the program forks meanwhile
    end
    local seen = noticed(host:finish())
    assert.is_true(seen.forked > 5, seen.forked .. " children")
    assert.are.same({ 0, 0, 1, 0 }, { seen.strangers, seen.wrong, seen.alone, seen.SIGSYS })
    assert.is_true(seen.ends <= seen.forked and seen.ends > 0)
    assert.are.equal(seen.prepared, seen["in parent"])
    assert.is_true(seen.prepared >= seen.forked + 20, "the handlers ran in the proofs' forks, too")
  end)

  it("counts no child of a program that has none", function()
    local host = guest({ "chld" })
    for _ = 1, 3 do host:proof({ interval_ms = 0 }) end
    local seen = noticed(host:finish())
    assert.are.same({ 0, 0, 1 }, { seen.ends, seen.strangers, seen.alone })
  end)

  it("is no target of its own", function()
    local host = guest({ "heap=1000" })
    for _ = 1, 3 do host:proof({ interval_ms = 0 }) end
    assert.is_nil(runtime:try_hello())
    host:finish()
    assert.is_nil(runtime:try_hello())
  end)

  it("lets locks be held and fork handlers make system calls", function()
    local host = guest({ "atfork", "locks" })
    for _ = 1, 10 do host:proof({ interval_ms = 0 }) end
    local seen = noticed(host:finish())
    assert.is_true(seen.prepared >= 20)
  end)

  it("lets a program fork whose child is another target, and is proved too", function()
    local process = runtime:spawn({ support.fixture("proof_guest"), "heap=300000", "fork", runtime.tell, runtime.wait,
      "exit=5" }, { conf = SOME })
    local parent = runtime:hello()
    parent:welcome()
    assert(parent:prove({ interval_ms = 0 })) -- the program forks amid this
    local child = runtime:hello()
    child:welcome()
    assert(child:prove({ interval_ms = 0 }))
    for _, c in ipairs({ parent, child }) do assert.are.equal(outcome.complete, c:proved(60).outcome) end
    assert.are.equal(process.pid, parent.hello.pid)
    assert.are.equal(process.pid, child.hello.ppid)
    assert.is_nil(runtime:try_hello())
    runtime:release()
    assert.are.equal(5, (process:wait()))
  end)

  it("is made while threads come and go, and counts what those that run may hold", function()
    local host, found_running = guest({ "threads", "burn" }), 0
    for _ = 1, 10 do
      local head = host:proof({ interval_ms = 0 }).head
      assert.is_true(head.threads >= 2 and head.threads <= 5)
      assert.is_true(head.registers >= 6 * head.threads and head.registers <= 15 * head.threads)
      if head.registers > 6 * head.threads then found_running = found_running + 1 end
    end
    assert.is_true(found_running > 0)
    host:finish()
  end)

  it("leaves signals, descriptors and timers as they are", function()
    local host = guest({ LARGE, "chld", "nosigsys", "timer" })
    local signals, descriptors = signals_of(host.pid), descriptors_of(host.pid)
    assert.is_true(#signals > 8 and #descriptors >= 4)
    host.c:prove({ interval_ms = 0 })
    host:child()
    assert.are.same(signals, signals_of(host.pid))
    assert.are.same(descriptors, descriptors_of(host.pid))
    local reply = host.c:proved(60)
    assert.are.same({ outcome.complete, 0 }, { reply.outcome, reply.error })
    assert.are.same(signals, signals_of(host.pid))
    assert.are.same(descriptors, descriptors_of(host.pid))
    local seen = noticed(host:finish())
    assert.is_true(seen.ticks > 20, seen.ticks .. " ticks")
  end)

  it("leaves nothing behind, a hundred times over", function()
    local host = guest({ "heap=20000", "chld" })
    for _ = 1, 10 do host:proof({ interval_ms = 0 }) end
    local mappings, descriptors = mappings_of(host.pid), descriptors_of(host.pid)
    local agents = lines(("for t in /proc/%d/task/*; do ls $t/fd | wc -l; done"):format(host.pid))
    local rss = status_of(host.pid, "VmRSS")
    for _ = 1, 100 do host:proof({ interval_ms = 0 }) end
    assert.are.equal(mappings, mappings_of(host.pid))
    assert.are.same(descriptors, descriptors_of(host.pid))
    assert.are.same(agents, lines(("for t in /proc/%d/task/*; do ls $t/fd | wc -l; done"):format(host.pid)))
    local grown = status_of(host.pid, "VmRSS") - rss
    assert.is_true(grown < 512, grown .. " KiB more")
    assert.are.equal(2, status_of(host.pid, "Threads"))
    assert.are.same({}, lines(("grep -l 'PPid:.%d$' /proc/[0-9]*/status 2>/dev/null"):format(host.pid)))
    assert.are.equal(0, noticed(host:finish()).ends)
  end)

  it("that is killed says so, and the next one is made", function()
    local host = guest({ LARGE })
    host.c:prove()
    ffi.C.kill(host:child(), SIGKILL)
    local reply = host.c:proved()
    assert.are.same({ outcome.killed, SIGKILL }, { reply.outcome, reply.error })
    host:proof({ interval_ms = 0 })
    host:finish()
  end)

  it("that stands still is ended when its time is over", function()
    local host = guest({ LARGE })
    assert(host.c:prove({ max_ms = 600 }))
    local child = host:child()
    ffi.C.kill(child, SIGSTOP)
    local reply = host.c:proved(10)
    assert.are.same({ outcome.time, 0 }, { reply.outcome, reply.error })
    proof_hosts.gone(child)
    assert.is_true(tonumber(reply.elapsed_ns) < 5e9)
    host:finish()
  end)

  it("gives up in time, and says how far it came", function()
    local host = guest({ LARGE })
    local reply
    for _, max_ms in ipairs({ 50, 100, 200, 400, 800 }) do -- until it has got so far as to read, on a busy machine too
      reply = host:prove({ max_ms = max_ms, interval_ms = 0 })
      assert.are.equal(outcome.time, reply.outcome)
      if reply.read_bytes > 0 then break end
    end
    assert.is_true(tonumber(reply.read_bytes) > 0 and tonumber(reply.read_bytes) < 1500000 * 64 * 3)
    reply = host:prove({ max_table_bytes = 1000 })
    assert.are.equal(outcome.tables, reply.outcome)
    reply = host:prove({ max_table_bytes = 2e6, interval_ms = 0 })
    assert.are.equal(outcome.tables, reply.outcome)
    assert.is_true(tonumber(reply.read_bytes) > 0)
    host:proof({ interval_ms = 0 })
    host:finish()

    host = guest({ "vast=16384" }) -- there is next to nothing to read
    reply = host:prove({ max_ms = 300 })
    assert.are.equal(outcome.time, reply.outcome)
    host:finish()
  end)

  it("ends with a program that is killed", function()
    local host = guest({ LARGE })
    host.c:prove()
    local child = host:child()
    host.process:kill(SIGKILL)
    host.process:wait()
    proof_hosts.gone(child, 2)
  end)

  it("ends with a program that exits, which takes no longer for it", function()
    local host = guest({ LARGE }, { after = { "exit=3" } })
    host.c:prove()
    local child = host:child()
    local before = support.now()
    host:finish(3)
    assert.is_true(support.now() - before < 2)
    proof_hosts.gone(child, 2)
    assert.are.equal(outcome.leaving, host.c:expect("proved").outcome)
    host.c:expect("profiled")
    host.c:expect("goodbye")
  end)

  it("ends with a program that becomes another", function()
    local host = guest({ LARGE }, { after = { "exec=/bin/true" } })
    host.c:prove()
    local child = host:child()
    host:finish()
    proof_hosts.gone(child, 2)
  end)

  it("ends with an agent that leaves before a filter for system calls", function()
    local host = guest({ LARGE }, { after = { "confine" } })
    host.c:prove()
    local child = host:child()
    assert.are.equal(1, noticed(host:finish()).alone)
    proof_hosts.gone(child, 2)
    assert.are.equal(outcome.leaving, host.c:expect("proved").outcome)
  end)

  local function keeps_all_in_reach(host)
    local block = host:proof()
    local t = proof_hosts.tally(block, 64)
    assert.are.equal(t.sum, t.reachable)
    assert.is_true(t.sum > 5)
    assert.are.equal(0, block.head.hidden)
    host:finish()
  end

  it("works in a program whose first thread has left", function()
    local host = proof_hosts.start(runtime, "agent_host", { "keep=3000,64", "leave" }, { conf = SOME })
    keeps_all_in_reach(host)
  end)

  it("works in a program that has become somebody else", function()
    if ffi.C.geteuid() ~= 0 then
      pending("only root can become somebody else")
      return
    end
    local host = proof_hosts.start(runtime, "agent_host", { "keep=3000,64", "setuid=65534" }, { conf = SOME })
    keeps_all_in_reach(host)
  end)

  it("lets a shell run its programs as ever", function()
    local script = [[
      trap 'ends=$((ends + 1))' CHLD
      for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do (exit $i) & wait $!; printf '%s ' $?; done
      sleep 0.3 & long=$!; sleep 0.2 & wait $!; echo $?
      wait $long; echo $?
      jobs
    ]]
    for _, shell in ipairs({ { "sh", "-c", script }, { "bash", "-m", "-c", script } }) do
      local bare = support.run(shell)
      local process = runtime:spawn(shell, { conf = SOME })
      local c, proofs, waits = runtime:hello(), 0, false -- waits for an answer
      c:welcome()
      support.eventually(function()
        runtime:try_hello() -- children's
        waits = waits or c:prove({ interval_ms = 0 })
        local name, reply = c:try()
        if name == "proved" then
          waits = false
          if reply.outcome == outcome.complete then proofs = proofs + 1 end
        end
        return not process:alive()
      end, 60, shell[1] .. " to end")
      assert.are.same({ 0, bare.out, bare.err }, { process.code, process:stdout(), process:stderr() })
      assert.is_true(proofs > 0, "no proof of " .. shell[1])
    end
  end)
end)

describe("a leak proof that may not be made", function()
  local runtime

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  local function refused(commands, limits, expected, options)
    options = options or {}
    options.conf = options.conf or SOME
    local host = proof_hosts.start(runtime, "proof_guest", commands, options)
    local reply = host:prove(limits, 77)
    assert.are.equal(outcome[expected], reply.outcome, expected)
    assert.are.equal(77ULL, reply.serial)
    assert.are.equal(0ULL, reply.pause_ns)
    return host
  end

  it("is refused where the program handles SIGSYS", function()
    local host = refused({ "sigsys" }, {}, "sigsys_taken")
    ffi.C.kill(host.pid, SIGSYS)
    assert.is_truthy(host:finish():match("SIGSYS 1,"))
  end)

  it("is refused where all threads block SIGSYS", function()
    refused({ "blocksigsys" }, {}, "sigsys_taken"):finish()
  end)

  it("is refused while a thread waits for its vforked child", function()
    refused({ "vfork" }, {}, "vfork"):finish()
  end)

  it("is refused where the heap is too large, or the memory too little", function()
    refused({}, { max_heap_bytes = 1 }, "heap_too_large"):finish()
    refused({}, { min_free_bytes = 2 ^ 60 }, "no_memory"):finish()
    refused({}, { min_free_share = 1e9 }, "no_memory"):finish()
  end)

  it("is refused where nothing is sampled", function()
    refused({}, {}, "no_profiling", { conf = "prof:false" }):finish()
    refused({}, {}, "no_profiling", { jemalloc = false }):finish()
  end)

  it("is refused where there is no /proc", function()
    if ffi.C.geteuid() ~= 0 then
      pending("only root can change its root")
      return
    end
    local host = runtime:spawn({ support.fixture("agent_host"), "chroot=" .. runtime.folder, "tell=/here", "wait=/go" },
      { conf = SOME })
    local c = runtime:hello()
    c:welcome()
    runtime:reached()
    assert(c:prove())
    assert.are.equal(outcome.no_proc, c:proved().outcome)
    runtime:release()
    assert.are.equal(0, (host:wait()))
  end)

  it("is refused where the agent is to be quiet", function()
    refused({}, {}, "leaving", { welcome = { enabled = false } }):finish()
  end)

  it("is refused while another one is under way", function()
    local host = proof_hosts.start(runtime, "proof_guest", { "heap=1000" }, { conf = SOME })
    host.c:prove({ interval_ms = 1000 }, 1)
    host.c:prove({}, 2)
    local reply = host.c:proved()
    assert.are.same({ outcome.busy, 2 }, { reply.outcome, tonumber(reply.serial) })
    reply = host.c:proved()
    assert.are.same({ outcome.complete, 1 }, { reply.outcome, tonumber(reply.serial) })
    host:finish()
  end)
end)

--- `lupe serve`: programs come and go, each is judged by itself, and of those that ended a report is kept.
local ffi = require("ffi")
local lupe_serve = require("spec.lupe_serve")
local support = require("spec.support")

ffi.cdef("typedef int pid_t; typedef unsigned uid_t; int close(int fd);")

local SIGINT, SIGKILL = 2, 9
local RULE = [[
return {
  api = 1, id = "spec.blocks", kind = "pattern", title = "who keeps blocks", version = "1", needs = {}, params = {},
  check = function(view)
    return { { summary = view.targets[1].name .. " with " .. #view.targets .. " of " .. view.targets[1].pid } }
  end,
}
]]

local function is_root() return tonumber(support.run({ "id", "-u" }).out) == 0 end

--- Keeps a MiB in blocks, and waits for the file `go`.
local function keeper(dir, name)
  return ("%s keep=64,16384 wait=%s/%s"):format(support.fixture("agent_host"), dir, name)
end

local function report_of(daemon, entry)
  return daemon:get(entry.url), support.http(daemon.port, entry.url .. "?format=text").body
end

describe("lupe serve", function()
  local daemon, dir

  setup(function()
    dir = support.temp_dir()
    local rules = support.temp_dir()
    support.write_file(rules .. "/blocks.lua", RULE)
    daemon = lupe_serve.start({ flags = { "--rules", rules } })
    daemon:await_ready()
  end)

  teardown(support.cleanup)

  it("takes in a program started by what preload-env prints, and keeps its report when it exits", function()
    local program = daemon:program(keeper(dir, "one"))
    local target = daemon:await_target(program.pid)
    assert.equal("agent_host", target.name)
    assert.equal("on", target.heap_state)
    assert.equal(program.pid, target.program_pid)
    assert.is_not.equal("string", type(target.report))
    support.write_file(dir .. "/one", "")
    assert.equal(0, (program:wait(20)))
    local entry = daemon:await_report(program.pid)
    assert.equal("agent_host", entry.name)
    assert.equal("exited", entry.how)
    local json, text = report_of(daemon, entry)
    assert.equal(program.pid, json.pid)
    assert.equal(1, #json.targets)
    assert.matches("not its parent", json.outcome.reason)
    assert.matches("^lupe: agent_host ran for", text)
    local dead = daemon:await_target(program.pid, function(t) return not t.live and t.report end)
    assert.equal(entry.url, dead.report)
  end)

  it("outlives a redis-server that is killed, and keeps its report from what came last", function()
    local port = support.free_port()
    local redis = daemon:program(("redis-server --port %d --save '' --dir %s"):format(port, dir))
    daemon:await_target(redis.pid)
    support.eventually(function() return (daemon:get("/api/profiling/memory?target=" .. redis.pid).rss_mb or 0) > 1 end,
      10, "redis to be measured")
    redis:kill(SIGKILL)
    redis:wait(20)
    local entry = daemon:await_report(redis.pid)
    assert.equal("redis-server", entry.name)
    assert.equal("lost", entry.how)
    local json = report_of(daemon, entry)
    assert.is_true(json.memory.rss_bytes > 2 ^ 20)
    assert.is_true(daemon.process:alive())
  end)

  it("finds in each program what is its own", function()
    local first, second = daemon:program(keeper(dir, "two")), daemon:program(keeper(dir, "two") .. " fork exit=0")
    daemon:await_target(first.pid)
    daemon:await_target(second.pid)
    local found = {}
    daemon:await("/api/findings?rule=spec.blocks&current=true", function(answer)
      found = {}
      for _, finding in ipairs(answer.findings) do found[finding.target.pid] = finding end
      return found[first.pid] and found[second.pid]
    end, 30)
    assert.equal("agent_host with 1 of " .. first.pid, found[first.pid].summary)
    assert.equal("agent_host with 1 of " .. second.pid, found[second.pid].summary)
    assert.equal("agent_host", found[second.pid].target.name)
    support.write_file(dir .. "/two", "")
    assert.equal(0, (first:wait(20)))
    assert.equal(0, (second:wait(20)))
    daemon:await_report(second.pid)
    daemon:await("/api/findings?rule=spec.blocks&current=false", function(answer)
      local over = {}
      for _, finding in ipairs(answer.findings) do over[finding.target.pid] = true end
      return over[first.pid] and over[second.pid]
    end)
  end)

  it("counts what a program's children are among it", function()
    local program = daemon:program(("sh -c '%s & %s & wait'"):format(keeper(dir, "three"), keeper(dir, "three")))
    daemon:await("/api/targets", function(answer)
      local count = 0
      for _, target in ipairs(answer.targets) do
        if target.live and target.program_pid == program.pid then count = count + 1 end
      end
      return count == 3
    end)
    support.write_file(dir .. "/three", "")
    program:wait(20)
    local json = report_of(daemon, daemon:await_report(program.pid))
    assert.equal(3, #json.targets)
    assert.equal("sh", json.name)
  end)

  it("names the functions of a program that took the place of another one at its path", function()
    local path = dir .. "/program"
    --- Starts what lies there now, and waits for a function of it.
    local function run(file, arguments, name)
      assert.equal(0, os.execute(("cp %s %s"):format(file, path)))
      local program = daemon:program(path .. " " .. arguments)
      daemon:await_target(program.pid)
      daemon:await("/api/profiling/allocations?target=" .. program.pid, function(answer)
        for _, site in ipairs(answer.top_allocators) do
          if site[1] == name then return true end
        end
      end)
      program:kill(SIGKILL)
      program:wait(20)
      daemon:await_report(program.pid) -- none is due any more when the next program comes
    end
    run(support.fixture("agent_host"), "keep=640,65536 wait=" .. dir .. "/never", "spec_leaf")
    run(support.built("examples/leaky_server"), "--self-drive 60", "remember_session")
    run(support.fixture("agent_host"), "keep=640,65536 wait=" .. dir .. "/never", "spec_leaf")
  end)

  it("goes on after garbage on its socket, and after a connection that says nothing", function()
    local core = support.core()
    support.declare("core/lupe.h")
    support.declare("core/wire/message.h")
    support.declare("core/wire/channel.h")
    local fd, quiet = ffi.new("int[1]"), ffi.new("int[1]")
    assert.equal(0, tonumber(core.lupe_channel_connect(daemon.socket, fd)))
    assert.equal(0, tonumber(core.lupe_channel_connect(daemon.socket, quiet)))
    assert.equal(0, tonumber(core.lupe_channel_send(fd[0], 1, ("x"):rep(200), 200, -1)))
    support.eventually(function() return daemon.process:stderr():find("message was refused", 1, true) end, 10,
      "the daemon to refuse it")
    local program = daemon:program(keeper(dir, "four"))
    daemon:await_target(program.pid)
    support.write_file(dir .. "/four", "")
    assert.equal(0, (program:wait(20)))
    ffi.C.close(fd[0])
    ffi.C.close(quiet[0])
  end)

  it("answers during a burst of 200 short programs, and has a report of who was there for longer", function()
    local program = daemon:program(keeper(dir, "five"))
    daemon:await_target(program.pid)
    local burst = support.spawn({ "sh", "-c", daemon:preload_env() .. "i=0; while [ $i -lt 200 ]; do "
      .. support.fixture("agent_host") .. " keep=1,1000 & i=$((i+1)); done; wait" })
    while burst:alive() do daemon:get("/api/targets") end
    -- It lives for less than ten seconds, so whoever is heard of to have ended after it could push it out.
    daemon:await("/api/targets", function(answer)
      local live = 0
      for _, target in ipairs(answer.targets) do live = live + (target.live and 1 or 0) end
      return live == 1
    end, 60)
    support.write_file(dir .. "/five", "")
    program:wait(20)
    assert.equal("exited", daemon:await_report(program.pid, 60).how) -- others wait for theirs before it
  end)

  it("refuses to be the second at its socket, and names it", function()
    local second = support.run({ support.built("lupe"), "serve", "--socket", daemon.socket, "--listen", "127.0.0.1:0" })
    assert.equal(125, second.code)
    assert.matches("another lupe takes programs in at " .. daemon.socket, second.err, 1, true)
  end)
end)

describe("a daemon that ends", function()
  local dir, daemon

  before_each(function()
    daemon = lupe_serve.start()
    dir = daemon.dir
    daemon:await_ready()
  end)

  teardown(support.cleanup)

  it("leaves the programs alone, and its reports to the next one", function()
    local gone, stays = daemon:program(keeper(dir, "gone")), daemon:program(keeper(dir, "stays"))
    daemon:await_target(gone.pid)
    daemon:await_target(stays.pid)
    support.write_file(dir .. "/gone", "")
    gone:wait(20)
    local entry = daemon:await_report(gone.pid)
    local text = select(2, report_of(daemon, entry))
    assert.equal(0, (daemon:stop()))
    assert.is_nil(io.open(daemon.socket))
    assert.is_true(stays:alive())
    daemon = lupe_serve.start({ dir = dir })
    daemon:await_ready()
    assert.is_true(daemon:await_target(stays.pid).connected) -- it came back by itself
    local again = daemon:await_report(gone.pid)
    assert.same(entry, again)
    assert.equal(text, select(2, report_of(daemon, again)))
    support.write_file(dir .. "/stays", "")
    assert.equal(0, (stays:wait(20)))
    assert.equal(0, (daemon:stop(SIGINT)))
  end)

  it("may be killed: the next one takes the place of its socket", function()
    daemon:stop(SIGKILL)
    assert.equal("socket\n", support.run({ "stat", "-c", "%F", daemon.socket }).out)
    daemon = lupe_serve.start({ dir = dir })
    daemon:await_ready()
    local program = daemon:program(keeper(dir, "after"))
    daemon:await_target(program.pid)
    support.write_file(dir .. "/after", "")
    program:wait(20)
    assert.equal(0, (daemon:stop()))
  end)
end)

describe("a program whose daemon went away", function()
  local daemon, dir

  local function start()
    daemon = lupe_serve.start()
    dir = daemon.dir
    daemon:await_ready()
  end

  before_each(start)
  teardown(support.cleanup)

  --- Starts agent_host with these commands, and once the daemon has it, kills the daemon. The program waits for "go".
  local function left_alone(before, after)
    local words = ("%s tell=%s/there wait=%s/go %s"):format(before, dir, dir, after)
    local program = daemon:program(support.fixture("agent_host") .. " " .. words)
    daemon:await_target(program.pid)
    support.eventually(function() return support.read_file(dir .. "/there") end, 10, "the program to wait")
    daemon:stop(SIGKILL)
    return program
  end

  --- The same, and once it has noticed it goes on.
  local function orphan(before, after)
    local program = left_alone(before, after)
    -- Its thread has noticed: the connection is no file of the program's, so there is nothing else to look at.
    support.sleep(0.7)
    support.write_file(dir .. "/go", "")
    return program
  end

  it("exits as ever, without a pause", function()
    -- A pause would be there each time; what the machine makes of one exit would not.
    local took
    for _ = 1, 10 do
      local program = orphan("keep=64,16384", "exit=7")
      local began = support.now()
      assert.equal(7, (program:wait(20)))
      took = support.now() - began
      if took < 0.5 then break end
      start()
    end
    assert.is_true(took < 0.5, took .. " s each time")
  end)

  it("ends with its last thread, where its first one has left", function()
    local program = orphan("keep=64,16384", "leave exit=3")
    assert.equal(3, (program:wait(20)))
  end)

  it("forks as fast as ever, and its children end as ever", function()
    local program = orphan("keep=64,16384", "forks=4,20")
    assert.equal(0, (program:wait(20)))
  end)

  it("changes its user as ever, and is killed as ever", function()
    if not is_root() then return pending("needs root") end
    local program = orphan("keep=64,16384", ("setuid=65534 wait=%s/never"):format(dir))
    support.eventually(function()
      return (support.read_file(("/proc/%d/status"):format(program.pid)) or ""):find("\nUid:%s+65534")
    end, 10, "the program to change its user")
    program:kill(15)
    assert.equal(15, select(2, program:wait(20)))
  end)

  it("has the children that it forked meanwhile seen by the next one, and theirs", function()
    local after = "fork tell=DIR/child wait=DIR/fork fork keep=64,16384 wait=DIR/end"
    local program = left_alone("", (after:gsub("DIR", dir)))
    support.write_file(dir .. "/go", "")
    support.eventually(function() return support.read_file(dir .. "/child") end, 10, "the child to wait")
    support.write_file(dir .. "/fork", "")
    daemon = lupe_serve.start({ dir = dir })
    daemon:await_ready()
    local live
    daemon:await("/api/targets", function(answer)
      live = 0
      for _, target in ipairs(answer.targets) do
        if target.live and target.connected and target.program_pid == program.pid then live = live + 1 end
      end
      return live == 3
    end, 30)
    support.write_file(dir .. "/end", "")
    assert.equal(0, (program:wait(20)))
  end)

  --- How often the agent's thread of a process has slept.
  local function sleeps_of(pid)
    for tid in support.run({ "ls", ("/proc/%d/task"):format(pid) }).out:gmatch("%d+") do
      local status = support.read_file(("/proc/%d/task/%s/status"):format(pid, tid)) or ""
      local sleeps = status:match("^Name:%s+lupe%-agent\n.*\nvoluntary_ctxt_switches:%s+(%d+)")
      if sleeps then return tonumber(sleeps) end
    end
    error("no thread of the agent's")
  end

  it("has the allocator's profiling for itself meanwhile", function()
    local program = orphan("", ("active=1 tell=%s/set wait=%s/end isactive=1"):format(dir, dir))
    support.eventually(function() return support.read_file(dir .. "/set") end, 10, "the program to go on")
    -- It sleeps for a second at most: between so many it has looked for the daemon.
    local before = sleeps_of(program.pid)
    support.eventually(function() return sleeps_of(program.pid) >= before + 4 end, 30, "its thread to look")
    support.write_file(dir .. "/end", "")
    assert.equal(0, (program:wait(20)))
  end)

  it("comes back with all its processes as the one program that it was", function()
    local program = daemon:program(("sh -c '%s & %s & wait'"):format(keeper(dir, "go"), keeper(dir, "go")))
    local function count()
      local answer, all = daemon:get("/api/targets"), 0
      for _, target in ipairs(answer.targets) do
        if target.live and target.program_pid == program.pid then all = all + 1 end
      end
      return all
    end
    support.eventually(function() return count() == 3 end, 10, "all to be there")
    for _ = 1, 3 do
      daemon:stop(SIGKILL)
      daemon = lupe_serve.start({ dir = dir })
      daemon:await_ready()
      support.eventually(function() return count() == 3 end, 20, "all to be back")
    end
    support.write_file(dir .. "/go", "")
    assert.equal(0, (program:wait(20)))
    local json = daemon:get(daemon:await_report(program.pid).url)
    assert.equal(3, #json.targets)
  end)
end)

describe("the socket of lupe serve", function()
  teardown(support.cleanup)

  local function refused(...)
    return support.run({ support.built("lupe"), "serve", "--listen", "127.0.0.1:0", ... })
  end

  it("is not made in a folder that others can write to", function()
    local dir = support.temp_dir()
    os.execute("chmod 777 " .. dir)
    local lupe = refused("--socket", dir .. "/agents")
    assert.equal(125, lupe.code)
    assert.matches("has mode 0777: others could put their own socket in the place", lupe.err)
  end)

  it("needs a folder of its own, and one around that", function()
    local dir = support.temp_dir()
    os.execute("chmod 1777 " .. dir)
    local lupe = refused("--socket", dir .. "/agents")
    assert.equal(125, lupe.code)
    assert.truthy(lupe.err:find(dir .. " is a folder that users share", 1, true), lupe.err)
    assert.truthy(lupe.err:find("expected a path such as " .. dir .. "/lupe/agents", 1, true), lupe.err)
    lupe = refused("--socket", dir .. "/some/where/agents")
    assert.equal(125, lupe.code)
    assert.truthy(lupe.err:find(dir .. "/some: No such file or directory", 1, true), lupe.err)
  end)

  it("says at start where it cannot keep reports", function()
    local file = support.write_file(support.temp_dir() .. "/state", "")
    local daemon = lupe_serve.start({ flags = { "--state-dir", file } })
    daemon:await_ready()
    assert.equal(0, (daemon:stop()))
    local said = ("no last reports can be kept: %s/reports cannot be used: "):format(file)
    assert.truthy(daemon.process:stderr():find(said, 1, true), daemon.process:stderr())
  end)

  it("does not take the place of a file", function()
    local dir = support.temp_dir()
    support.write_file(dir .. "/agents", "mine")
    local lupe = refused("--socket", dir .. "/agents")
    assert.equal(125, lupe.code)
    assert.matches("is not a socket", lupe.err)
    assert.equal("mine", support.read_file(dir .. "/agents"))
  end)

  it("needs an absolute path", function()
    local lupe = refused("--socket", "run/agents")
    assert.equal(125, lupe.code)
    assert.matches("expected an absolute path", lupe.err)
  end)

  it("is other users' only where root runs the daemon, and their names are known", function()
    local dir = support.temp_dir()
    local argv = { support.built("lupe"), "serve", "--users", "all", "--socket", dir .. "/s/agents" }
    if is_root() then
      local unknown = refused("--users", "no-such-user-here", "--socket", dir .. "/s/agents")
      assert.equal(125, unknown.code)
      assert.matches("there is no user no%-such%-user%-here", unknown.err)
      argv = { "setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", unpack(argv) }
    end
    local lupe = support.run(argv)
    assert.equal(125, lupe.code)
    assert.matches("only a lupe that root runs", lupe.err)
  end)

  it("is not taken from other users by one who connects and says nothing", function()
    if not is_root() then return pending("needs root") end
    local daemon = lupe_serve.start({ flags = { "--users", "all" } })
    daemon:await_ready()
    os.execute(("chmod 755 %s %s/run"):format(daemon.dir, daemon.dir))
    local script = support.write_file(daemon.dir .. "/hold.py", ([[
import socket, time
held = []
for i in range(300):
  s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
  while s.connect_ex(%q) != 0: time.sleep(0.01)
  held.append(s)
time.sleep(1000)
]]):format(daemon.socket))
    local function as(uid, command)
      return support.spawn({ "setpriv", "--reuid", tostring(uid), "--clear-groups", "sh", "-c", command })
    end
    local holder = as(65534, "exec python3 " .. script)
    support.eventually(function()
      local metrics = support.http(daemon.port, "/metrics").body
      return metrics:find("\nlupe_refused_connections_total 44\n", 1, true)
    end, 20, "300 - 256 connections to be refused")
    local program = as(65533, daemon:preload_env() .. ("exec %s keep=1,1000 wait=%s/go"):format(
      support.fixture("agent_host"), daemon.dir))
    daemon:await_target(program.pid)
    support.write_file(daemon.dir .. "/go", "")
    assert.equal(0, (program:wait(20)))
    holder:kill(9)
    holder:wait(20)
    assert.equal(0, (daemon:stop()))
  end)

  it("lets in the users that are named, and nobody else", function()
    if not is_root() then return pending("needs root") end
    local daemon = lupe_serve.start({ flags = { "--users", "65534" } })
    daemon:await_ready()
    os.execute(("chmod 755 %s %s/run"):format(daemon.dir, daemon.dir))
    -- As systemd does it: the environment is set for who has become that user already.
    local function as(uid)
      local line = daemon:preload_env() .. ("exec %s keep=1,1000 wait=%s/go"):format(support.fixture("agent_host"),
        daemon.dir)
      return support.spawn({ "setpriv", "--reuid", tostring(uid), "--clear-groups", "sh", "-c", line })
    end
    local named, other = as(65534), as(65533)
    daemon:await_target(named.pid)
    support.eventually(function() return daemon.process:stderr():find("not permitted", 1, true) end, 10,
      "the other one to be refused")
    for _, target in ipairs(daemon:get("/api/targets").targets) do
      assert.is_false(target.pid == other.pid)
    end
    support.write_file(daemon.dir .. "/go", "")
    assert.equal(0, (named:wait(20)))
    assert.equal(0, (other:wait(20)))
    assert.equal(0, (daemon:stop()))
  end)
end)

--- How a program is started: through shells and wrappers, with its own streams, signals and exit code.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local lupe = support.built("lupe")

local function run(flags, argv, options)
  local command = { lupe, "run", "--report", "none" }
  for _, flag in ipairs(flags) do command[#command + 1] = flag end
  command[#command + 1] = "--"
  for _, word in ipairs(argv) do command[#command + 1] = word end
  return support.run(command, options)
end

describe("lupe run", function()
  teardown(support.cleanup)

  local allocator = support.fixture("allocator")
  local through = {
    { "a shell", { "sh", "-c", allocator .. " 3 && true" } },
    { "env", { "env", "SOME=thing", allocator, 3 } },
    { "timeout", { "timeout", 60, allocator, 3 } },
    { "Python's subprocess, which closes descriptors", {
      "python3", "-c", "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:], close_fds=True))", allocator, 3,
    } },
  }
  for _, case in ipairs(through) do
    it("profiles the real program behind " .. case[1], function()
      local started = lupe_run.start(case[2], { flags = { "--sample-bytes", "16K" } })
      local report, code = started:finish(nil, 40)
      assert.equal(0, code)
      local names, sites = {}, {}
      for _, target in ipairs(report.targets) do names[target.name] = target.heap_state end
      for _, site in ipairs(report.allocators) do sites[site.name] = site.inuse_space end
      assert.equal("on", names.allocator)
      assert.is_truthy(sites.keep_blocks)
    end)
  end

  it("gives the program's exit code", function()
    assert.equal(0, run({}, { "true" }).code)
    assert.equal(41, run({}, { "sh", "-c", "exit 41" }).code)
  end)

  it("ends with 128+N where signal N ended the program", function()
    assert.equal(137, run({}, { "sh", "-c", "kill -9 $$" }).code)
    assert.equal(134, run({}, { "sh", "-c", "kill -6 $$" }).code)
  end)

  it("says 127 for a command that is not there and 126 for one that cannot be executed", function()
    local missing = run({}, { "no-such-command-here" })
    assert.equal(127, missing.code)
    assert.matches("no%-such%-command%-here: command not found", missing.err)
    local dir = support.temp_dir()
    support.write_file(dir .. "/plain", "text")
    os.execute("chmod 644 " .. dir .. "/plain")
    local plain = run({}, { dir .. "/plain" })
    assert.equal(126, plain.code)
    assert.matches("Permission denied", plain.err)
  end)

  it("answers an unknown flag with 2 and the nearest known one", function()
    local done = support.run({ lupe, "run", "--sample-byte", "64K", "--", "true" })
    assert.equal(2, done.code)
    assert.matches("%-%-sample%-byte.*did you mean %-%-sample%-bytes", done.err)
  end)

  it("leaves the three standard streams to the program", function()
    local dir = support.temp_dir()
    support.write_file(dir .. "/in", "line one\nline two\n")
    local done = run({}, { "sh", "-c", "cat; echo oops >&2" }, { stdin = dir .. "/in" })
    assert.equal("line one\nline two\n", done.out)
    assert.matches("oops\n", done.err)
  end)

  it("works where streams are closed, and leaves them closed to the program", function()
    local dir = support.temp_dir()
    for _, closed in ipairs({ "<&-", ">&-", "2>&-", "<&- >&- 2>&-" }) do
      local tell = ("%%s sh -c 'for fd in 0 1 2; do [ -e /proc/$$/fd/$fd ]; echo $?; done >%s/told' %s")
        :format(dir, closed)
      local flags = ("run --listen 127.0.0.1:%d --output %s/report"):format(support.free_port(), dir)
      support.run({ "sh", "-c", tell:format("") })
      local bare = support.read_file(dir .. "/told")
      assert.equal(0, support.run({ "sh", "-c", tell:format(("%s %s --"):format(lupe, flags)) }).code)
      assert.equal(bare, support.read_file(dir .. "/told"))
      assert.matches("lupe's own cost", support.read_file(dir .. "/report"))
      os.remove(dir .. "/report")
    end
  end)

  it("says where the report cannot be written, and keeps the program's exit code", function()
    local places = { ["/nowhere/report"] = "No such file or directory", ["/dev/full"] = "No space left on device" }
    for path, why in pairs(places) do
      local done = support.run({ lupe, "run", "--output", path, "--", "sh", "-c", "exit 9" })
      assert.equal(9, done.code)
      assert.matches(("the report could not be written to %s: %s"):format(path, why), done.err, 1, true)
    end
  end)

  it("writes the whole report to a stderr that the program left full and non-blocking", function()
    local fill = [[
import os, sys, time, urllib.error, urllib.request
# The rules run first: libuv makes stderr blocking again as it starts a process, and theirs is one.
while True:
  try:
    urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="POST")).read()
    break
  except urllib.error.HTTPError: time.sleep(0.1)
os.set_blocking(2, False)
try:
  while True: os.write(2, b"x" * 512)
except OSError: pass
]]
    local address = "127.0.0.1:" .. support.free_port()
    local command = '("$0" run --listen "$1" --rate-leak 0 -- python3 -c "$2" "http://$1/api/profiling/leak-detection")'
    local done = support.run({ "bash", "-c", command .. " 2>&1 >/dev/null | (sleep 4; cat)", lupe, address, fill })
    assert.matches("lupe's own cost", done.out)
  end)

  it("passes signals on", function()
    local dir = support.temp_dir()
    local process = support.spawn({ lupe, "run", "--report", "none", "--", "sh", "-c",
      "trap 'echo term; exit 3' TERM; trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done" }, { cwd = dir })
    support.eventually(function() return process:stdout():match("ready") end, 10, "the program to be ready")
    process:kill(10)
    support.eventually(function() return process:stdout():match("usr1") end, 10, "SIGUSR1 to arrive")
    process:kill(15)
    assert.equal(3, process:wait(10))
    assert.matches("term", process:stdout())
  end)

  it("gives the program the signal dispositions and limits that lupe was started with", function()
    local tell = "trap '' USR2; ulimit -Sn 500; %s sh -c 'ulimit -Sn; grep -E \"^Sig(Ign|Blk)\" /proc/self/status'"
    local bare = support.run({ "sh", "-c", tell:format("") })
    local under = support.run({ "sh", "-c", tell:format(lupe .. " run --report none --") })
    assert.equal("500\n", bare.out:sub(1, 4))
    local function without_real_time(text) return (text:gsub("(%x%x%x%x%x%x%x%x)(%x%x%x%x%x%x%x%x)", "%2")) end
    assert.equal(without_real_time(bare.out), without_real_time(under.out)) -- glibc keeps 32 and 33 for itself
  end)

  it("ends the program after --duration, and says so in the report", function()
    local done = support.run({ lupe, "run", "--duration", "0.5", "--", "sleep", "60" })
    assert.equal(128 + 15, done.code)
    assert.matches("duration", done.err)
  end)

  it("runs a statically linked program and says why it is not profiled", function()
    local static = support.fixture("static_program")
    local done = run({}, { static })
    assert.equal(0, done.code)
    assert.equal("static output\n", done.out)
    assert.matches("cannot be profiled: it is statically linked", done.err)
    assert.equal(125, run({ "--require" }, { static }).code)
  end)

  it("runs a setuid program and says why it is not profiled", function()
    local copy = support.temp_dir() .. "/allocator"
    os.execute(("cp %s %s && chown nobody %s 2>/dev/null; chmod u+s %s && chmod a+rx %s"):format(allocator, copy, copy,
      copy, copy:match("^(.*)/")))
    if support.run({ "stat", "-c", "%U", copy }).out ~= "nobody\n" then
      return pending("giving a file to another user takes root")
    end
    local done = run({}, { copy, 1 })
    assert.equal(0, done.code, done.err)
    assert.equal("kept 1048576 bytes\n", done.out)
    assert.matches("cannot be profiled: it changes its user", done.err)
  end)

  it("takes the next free port where 7077 is taken, and refuses where --listen was given", function()
    local first = lupe_run.start({ "sleep", "30" })
    first:await("/healthz")
    local refused = support.run({ lupe, "run", "--listen", "127.0.0.1:" .. first.port, "--", "true" })
    assert.equal(125, refused.code)
    assert.matches("cannot listen on 127.0.0.1 port " .. first.port .. ": address in use", refused.err)
    first:finish(15)
  end)

  it("refuses to listen beyond the loopback, and says why", function()
    local done = support.run({ lupe, "run", "--listen", "0.0.0.0:7077", "--", "true" })
    assert.equal(2, done.code)
    assert.matches("0%.0%.0%.0:7077 is not a loopback address", done.err)
  end)

  it("profiles nothing where the system's allocator is wanted, and says so", function()
    local started = lupe_run.start({ allocator, 3 }, { flags = { "--allocator=system" } })
    local report = started:finish()
    assert.equal("switched_off", report.targets[1].heap_state)
    assert.equal("system", report.targets[1].allocator)
    assert.equal(0, #report.allocators)
  end)
end)

local bad_rules = require("spec.core.script.bad_rules")
local support = require("spec.support")
local view_literal = require("lupe.view_literal")
local worker_process = require("spec.core.script.worker_process")

local GOOD = [[
return {
  api = 1, id = "good.largest", kind = "leak", title = "The largest site",
  params = { min = { default = 1, min = 0, unit = "bytes", doc = "smaller ones are left out" } },
  check = function(view, params)
    local findings = {}
    for site in view.heap:sites { min_inuse_space = params.min, by = "inuse_space", limit = 1 } do
      findings[1] = {
        site = site, score = site.inuse_space, verdict = "info", summary = site.name .. " is the largest",
        evidence = { before = #view.findings },
      }
    end
    return findings
  end,
}
]]

local function rule_of(id, body)
  return ('return { api = 1, id = %q, kind = "pattern", title = "t", check = function(view, params)\n%s\nend }\n')
    :format(id, body)
end

describe("the rules' worker", function()
  local worker, snapshot

  before_each(function()
    local block, size = view_literal({
      sample_period_bytes = 4096, time_ms = 1000,
      sites = {
        { name = "small", module = "/bin/app", inuse_space = 1000, inuse_objects = 10 },
        { name = "large", module = "/bin/app", inuse_space = 5000, inuse_objects = 5 },
      },
    })
    snapshot = worker_process.memfd(block, tonumber(size))
    worker = worker_process.start()
  end)

  after_each(function()
    worker:stop()
    require("ffi").C.close(snapshot)
    support.cleanup()
  end)

  local function load(...)
    local rules = {}
    for i, given in ipairs({ ... }) do rules[i] = { path = given.path, source = given.source } end
    local outcome, reply = worker:call({ op = "load", rules = rules })
    assert.are.equal("replied", outcome, tostring(reply))
    return reply
  end

  local function prepare(...)
    load({ path = "rules/good.lua", source = GOOD }, ...)
    local outcome, reply = worker:call({ op = "snapshot" }, snapshot)
    assert.are.same({ "replied", true, nil }, { outcome, reply.ok, reply.error })
  end

  --- `kill_ms`: the deadline that the runtime keeps; far away where the rule's own is to be seen at work.
  local function check(id, more, kill_ms)
    local request = { op = "check", id = id, deadline_ms = 200, instructions = 1e15 }
    for name, value in pairs(more or {}) do request[name] = value end
    return worker:call(request, -1, kill_ms or 60000)
  end

  it("runs a rule over a snapshot and gives plain findings", function()
    prepare()
    local outcome, reply = check("good.largest", { findings = { { summary = "an earlier one" } } })
    assert.are.equal("replied", outcome)
    assert.is_true(reply.ok, reply.error)
    assert.are.equal(1, #reply.findings)
    local found = reply.findings[1]
    assert.are.equal("large is the largest", found.summary)
    assert.are.equal("large", found.site.name)
    assert.are.equal(5000, found.site.inuse_space)
    assert.are.equal(1, found.evidence.before)
    assert.is_true(reply.elapsed_us > 0)
  end)

  it("answers an empty list of findings as a list", function()
    prepare()
    local answer = worker:wait(worker:send({ op = "check", id = "good.largest", params = { min = 1e9 } }))
    assert.truthy(answer.text:find('"findings":[]', 1, true), answer.text)
  end)

  it("says which rule or snapshot it was never sent", function()
    local _, reply = check("good.largest")
    assert.are.equal("no_rule", reply.kind)
    load({ path = "rules/good.lua", source = GOOD })
    _, reply = check("good.largest")
    assert.are.equal("no_snapshot", reply.kind)
  end)

  it("refuses what is no request, in words, and goes on", function()
    for _, text in ipairs({ "", "nonsense", "[", "[]", "{}", '{"op":"fly"}', '{"op":"load","rules":[1]}',
      '{"op":"load","rules":[{"path":1}]}', '{"op":7}', '"x"', ("["):rep(10000) }) do
      if text ~= "" then
        local outcome, reply = worker:call(text)
        assert.are.equal("replied", outcome, text)
        assert.is_false(reply.ok, text)
      end
    end
    assert.are.equal(1, worker:starts())
  end)

  it("names file and line of what a rule does wrong", function()
    local reply = load(
      { path = "rules/syntax.lua", source = "return {\n  api = = 1 }" },
      { path = "rules/bytecode.lua", source = string.dump(function() end) },
      { path = "rules/global.lua", source = "local x = 1\ncounter = x\nreturn {}" },
      { path = "rules/system.lua", source = "local now = os.time()\nreturn {}" },
      { path = "rules/" .. ("long"):rep(30) .. ".lua", source = "\n\nerror('x')" },
      { path = "rules/loop.lua", source = "\nwhile true do end" },
      { path = "rules/good.lua", source = GOOD })
    assert.are.equal("rules/syntax.lua:2: unexpected symbol near '='", reply.rules[1].error)
    assert.truthy(reply.rules[2].error:find("bytecode", 1, true))
    assert.are.equal("rules/global.lua:2: sets the global 'counter': write 'local counter'", reply.rules[3].error)
    assert.truthy(reply.rules[4].error:find("^rules/system.lua:1: no global 'os'"), reply.rules[4].error)
    assert.truthy(reply.rules[5].error:find("long%.lua:3: x$"), reply.rules[5].error)
    assert.are.equal("rules/loop.lua:2: more than 200000 instructions", reply.rules[6].error)
    assert.are.equal("instructions", reply.rules[6].kind)
    assert.is_true(reply.rules[7].ok, reply.rules[7].error)
    assert.are.equal("good.largest", reply.rules[7].id)
    assert.are.equal(1, reply.rules[7].params.min.default)
  end)

  it("keeps NaN and infinity out of a finding, naming the field", function()
    prepare({ path = "rules/nan.lua",
      source = rule_of("bad.nan", 'return { { summary = "x", evidence = { slope = 0/0 } } }') })
    local _, reply = check("bad.nan")
    assert.is_false(reply.ok)
    assert.truthy(reply.error:find("evidence.slope", 1, true), reply.error)
    assert.truthy(reply.error:find("rules/nan.lua", 1, true), reply.error)
  end)

  it("makes UTF-8 of what a finding says in other bytes", function()
    prepare({ path = "rules/bytes.lua", source = rule_of("a.bytes",
      [[return { {
        summary = "a\255b\192\128", evidence = { ["k\254"] = "\237\160\128" }, advice = { "\0\200" },
      } }]]) })
    local _, reply = check("a.bytes")
    local bad = "\239\191\189"
    assert.are.same({ { summary = "a" .. bad .. "b" .. bad .. bad, evidence = { ["k" .. bad] = bad:rep(3) },
      advice = { "\0" .. bad } } }, reply.findings)
  end)

  it("lets no rule see what another did to a library", function()
    prepare({ path = "rules/a.lua", source = rule_of("a.a", "string.format = nil return {}") },
      { path = "rules/b.lua", source = rule_of("a.b", 'return { { summary = string.format("%d", 7) } }') })
    local _, first = check("a.a")
    assert.truthy(first.error:find("string is read-only (field 'format')", 1, true), first.error)
    local _, second = check("a.b")
    assert.are.equal("7", second.findings[1].summary)
  end)

  it("sums up the samples of the snapshot that was sent last", function()
    load({ path = "rules/cpu.lua", source = rule_of("pattern.cpu", [[
      local f = view.profile:functions { by = "cpu_ns" }()
      return { { hotspot = f, score = f.cpu_ns, summary = f.name } }
    ]]) })
    for i, name in ipairs({ "first", "second" }) do
      local block, size = view_literal({ profile = { samples = { { stack = { name }, ns = i * 1e9 } } } })
      local descriptor = worker_process.memfd(block, tonumber(size))
      worker:call({ op = "snapshot" }, descriptor)
      require("ffi").C.close(descriptor)
      for _ = 1, 2 do
        local _, reply = check("pattern.cpu")
        assert.are.same({ name, i * 1e9, 100 }, { reply.findings[1].hotspot.name, reply.findings[1].score,
          reply.findings[1].hotspot.cpu_percent }, reply.error)
      end
    end
  end)

  it("shows a rule what it was sent to compare with, until that is another", function()
    load({ path = "rules/base.lua", source = rule_of("pattern.base", [[
      if not view.base then return { { summary = view.base_reason } } end
      local found = {}
      for change in view.heap:changes() do
        found[#found + 1] = { summary = ("%s %d"):format(change.name, change.change) }
      end
      return found
    ]]) })
    local function send(op, bytes)
      local block, size = view_literal({ sites = { { name = "f", history = { bytes } } } })
      local descriptor = worker_process.memfd(block, tonumber(size))
      local _, reply = worker:call({ op = op }, descriptor)
      require("ffi").C.close(descriptor)
      return reply
    end
    local function found()
      local _, reply = check("pattern.base")
      return reply.findings and reply.findings[1].summary or reply.error
    end
    assert.is_true(send("snapshot", 5000000).ok)
    assert.are.equal("there is no other snapshot to compare with", found())
    assert.is_true(send("base", 2000000).ok)
    assert.are.equal("f 3000000", found())
    assert.is_true(send("base", 4000000).ok)
    assert.are.equal("f 1000000", found())
    assert.is_true(send("snapshot", 6000000).ok)
    assert.are.equal("f 2000000", found())
    local fd = worker_process.memfd("x")
    local _, reply = worker:call({ op = "base" }, fd)
    require("ffi").C.close(fd)
    assert.are.same({ false, "system" }, { reply.ok, reply.kind })
    assert.are.equal("f 2000000", found())
  end)

  it("counts what is in use against the memory budget, not garbage", function()
    prepare({ path = "rules/garbage.lua", source = rule_of("a.garbage",
      'local s = ("x"):rep(1000) for i = 1, 100000 do local _ = s .. i end return {}') })
    local outcome, reply = check("a.garbage", { memory_bytes = 4 * 2 ^ 20, deadline_ms = 20000 })
    assert.are.equal("replied", outcome)
    assert.is_true(reply.ok, reply.error)
  end)

  it("forgets rules that keep too much from call to call", function()
    prepare({ path = "rules/hoard.lua", source = "local kept = {}\n" .. rule_of("a.hoard",
      'kept[#kept + 1] = ("x"):rep(30 * 2 ^ 20 + #kept) return {}') })
    local done, last = 0, nil
    while done < 10 and last ~= "no_rule" do
      local _, reply = check("a.hoard", { deadline_ms = 20000 })
      done, last = done + 1, reply.kind
    end
    assert.are.equal("no_rule", last)
    assert.is_true(done > 3, "forgotten after " .. done)
  end)

  it("stops a loop at its number of instructions, wherever that takes it", function()
    local outside = "local function outside() while true do end end\n"
    prepare({ path = "rules/loop.lua", source = rule_of("a.loop", "local n = 0\nwhile true do n = n + 1 end") },
      { path = "rules/caught.lua", source = outside .. rule_of("a.caught", "while true do pcall(outside) end") })
    for id, where in pairs({ ["a.loop"] = "rules/loop.lua:3", ["a.caught"] = "rules/caught.lua:1" }) do
      local _, reply = check(id, { instructions = 1e6, deadline_ms = 20000 })
      assert.are.same({ false, "instructions", where .. ": more than 1000000 instructions" },
        { reply.ok, reply.kind, reply.error })
    end
    local _, reply = check("good.largest", { instructions = 1e6 })
    assert.is_true(reply.ok, reply.error)
    for field, wrong in pairs({ instructions = 0, deadline_ms = -1, memory_bytes = 2 ^ 40 }) do
      _, reply = check("good.largest", { [field] = wrong })
      assert.are.same({ false, "request" }, { reply.ok, reply.kind })
      assert.truthy(reply.error:find(field .. ": expected a number from 1 to", 1, true), reply.error)
    end
  end)

  --- Loaded and checked, under limits that are soon reached: the outcome, and the reply.
  local function try(given)
    local kill_ms = given.stops == "killed" and 100 or nil
    local request = { op = "load", rules = { { path = given.path, source = given.source } } }
    local outcome, reply = worker:call(request, -1, kill_ms or 60000)
    if outcome ~= "replied" then return outcome, reply end
    if not reply.rules[1].ok then return outcome, reply.rules[1] end
    local late = given.kind == "deadline"
    return check(given.id, { memory_bytes = (late and 64 or 8) * 2 ^ 20, deadline_ms = late and 50 or 20000 }, kill_ms)
  end

  for _, given in ipairs(bad_rules) do
    it("survives the rule " .. given.name, function()
      prepare()
      local before = worker:starts()
      local outcome, reply = try(given)
      if given.stops == "killed" then
        assert.are.equal("deadline", outcome)
        assert.are.equal("the worker was killed 50 ms past the deadline of 100 ms", reply)
        assert.are.equal(1, worker:kills())
        local _, told = check("good.largest")
        assert.are.equal("no_rule", told.kind)
        prepare()
        assert.are.equal(before + 1, worker:starts())
      else
        assert.are.equal("replied", outcome, tostring(reply))
        assert.is_false(reply.ok)
        assert.are.equal(given.kind, reply.kind, reply.error)
        local where = given.line and ("%s:%d:"):format(given.path, given.line) or given.path
        assert.are.equal(where, reply.error:sub(1, #where), reply.error)
        assert.are.equal(before, worker:starts())
      end
      local _, after = check("good.largest")
      assert.is_true(after.ok, after.error)
      assert.are.equal(1, #after.findings)
    end)
  end

  it("takes a reply that was there when the loop was late, even past the deadline", function()
    prepare()
    local id = worker:send({ op = "check", id = "good.largest" }, -1, 1)
    support.sleep(0.3) -- the loop does not run meanwhile, and its timer is due before it looks at the socket
    assert.are.equal("replied", worker:wait(id).outcome)
    assert.are.equal(0, worker:kills())
  end)

  describe("on a machine that gives it no time", function()
    local function signal(name) os.execute(("kill -%s %d"):format(name, worker:pid())) end
    local function asked_while_stopped()
      prepare()
      signal("STOP")
      return worker:send({ op = "check", id = "good.largest" }, -1, 20)
    end

    it("is waited for, far past its deadline", function()
      local id, began = asked_while_stopped(), support.now()
      support.eventually(function() -- the runtime looks at it again and again
        worker:turn()
        return support.now() - began > 0.4
      end)
      signal("CONT")
      assert.are.equal("replied", worker:wait(id).outcome)
      assert.are.equal(0, worker:kills())
    end)

    it("is killed all the same after ten times as long, and that is not called late", function()
      local answer = worker:wait(asked_while_stopped())
      assert.are.equal("starved", answer.outcome)
      assert.matches("^the worker was killed: it got %d ms of CPU time within %d+ ms, and may take 20 ms$",
        answer.text)
      assert.are.equal(1, worker:kills())
    end)

    it("is not charged with time in which the loop stood still as well", function()
      local id = asked_while_stopped()
      worker:turn()
      support.sleep(1.2)
      worker:turn()
      signal("CONT")
      assert.are.equal("replied", worker:wait(id).outcome)
      assert.are.equal(0, worker:kills())
    end)
  end)

  it("answers every call of a queue in which one has to be killed", function()
    local killed
    for _, given in ipairs(bad_rules) do
      killed = killed or given.stops == "killed" and given
    end
    prepare(killed)
    local ids = {}
    for i = 1, 5 do
      ids[i] = worker:send({ op = "check", id = i == 3 and killed.id or "good.largest" }, -1, i == 3 and 100 or 60000)
    end
    local outcomes = {}
    for i, id in ipairs(ids) do
      local answer = worker:wait(id)
      outcomes[i] = answer.outcome
      if i > 3 then assert.truthy(answer.text:find('"no_rule"', 1, true)) end
    end
    assert.are.same({ "replied", "replied", "deadline", "replied", "replied" }, outcomes)
    assert.are.equal(2, worker:starts())
  end)

  it("bounds its queue", function()
    local ids, refused = {}, nil
    for _ = 1, 300 do
      local id, status = worker:send({ op = "status" })
      if not id then refused = status end
      ids[#ids + 1] = id
    end
    assert.are.equal(256, #ids)
    assert.are.equal(3, refused) -- LUPE_EFULL
    for _, id in ipairs(ids) do assert.are.equal("replied", worker:wait(id).outcome) end
  end)

  it("starts again after its process was killed from outside", function()
    prepare()
    local first = worker:pid()
    require("ffi").C.kill(first, 9)
    local answer = worker:wait(worker:send({ op = "status" }))
    if answer.outcome == "died" then -- the call was on its way already
      assert.truthy(answer.text:find("signal 9", 1, true), answer.text)
      answer = worker:wait(worker:send({ op = "status" }))
    end
    assert.are.equal("replied", answer.outcome)
    assert.are.equal(2, worker:starts())
    assert.are_not.equal(first, worker:pid())
  end)

  it("adds up the CPU time of its processes, ended ones too", function()
    prepare()
    local first = worker:cpu_ns()
    assert.is_true(first > 0)
    require("ffi").C.kill(worker:pid(), 9)
    support.eventually(function()
      worker:turn()
      return worker:pid() == 0
    end)
    -- What is known of one that was killed comes when it is reaped.
    local ended
    support.eventually(function()
      worker:turn()
      ended = worker:cpu_ns()
      return ended >= first
    end)
    prepare()
    assert.is_true(worker:cpu_ns() > ended)
  end)

  it("ends the open calls when it is closed", function()
    prepare(bad_rules[1])
    local running = worker:send({ op = "check", id = bad_rules[1].id, deadline_ms = 60000 }, -1, 60000)
    local waiting = worker:send({ op = "status" })
    worker:stop()
    assert.are.equal("closed", worker.answers[running].outcome)
    assert.are.equal("closed", worker.answers[waiting].outcome)
  end)

  it("says so when its program cannot be started, or ends at once", function()
    worker:stop()
    worker = worker_process.start({ "/nonexistent/lupe" })
    local outcome, text = worker:call({ op = "status" })
    assert.are.equal("unavailable", outcome)
    assert.truthy(text:find("/nonexistent/lupe cannot be started: no such file", 1, true), text)
    worker:stop()
    worker = worker_process.start({ "/bin/false" })
    outcome, text = worker:call({ op = "status" })
    assert.are.equal("unavailable", outcome)
    assert.are.equal("the worker died: exit code 1", text)
  end)

  it("carries requests and replies of megabytes", function()
    local text = ("x"):rep(20 * 2 ^ 20)
    local outcome, reply = worker:call({ op = text }, -1, 20000)
    assert.are.equal("replied", outcome)
    assert.are.equal(#text, #reply.error:match("x+$"))
  end)

  it("has no descriptors, no way to gain rights, and dies with its parent", function()
    worker:call({ op = "status" })
    local pid = worker:pid()
    local open = {}
    for fd in support.run({ "ls", "/proc/" .. pid .. "/fd" }).out:gmatch("%d+") do open[#open + 1] = fd end
    assert.are.same({ "0", "1", "2", "3" }, open)
    local status = support.read_file("/proc/" .. pid .. "/status")
    assert.truthy(status:find("NoNewPrivs:\t1", 1, true))
    local _, reply = worker:call({ op = "load", rules = {} })
    assert.are.equal(not support.sanitized, reply.confined)
    if reply.confined then
      assert.truthy(status:find("Seccomp:\t2", 1, true), status)
      assert.is_nil(reply.unconfined_reason)
    else
      assert.truthy(reply.unconfined_reason:find("sanitizers", 1, true))
    end
    local limits = support.read_file("/proc/" .. pid .. "/limits")
    assert.truthy(limits:find("Max core file size%s+0%s+0"))
    assert.truthy(limits:find("Max open files%s+64%s+64"))
    assert.truthy(limits:find("Max processes%s+0%s+0"))
  end)

  it("writes a snapshot as JSON to a descriptor, findings and all", function()
    prepare()
    local path = support.temp_dir() .. "/export.json"
    local ffi = require("ffi")
    local fd = ffi.C.open(path, 0x41, ffi.cast("int", 0x180)) -- O_WRONLY|O_CREAT, 0600
    assert.is_true(fd >= 0)
    local outcome, reply = worker:call({
      op = "export", findings = { { summary = "grows" } }, extra = { snapshot_id = "snapshot_1" },
    }, fd, 20000)
    ffi.C.close(fd)
    assert.are.equal("replied", outcome)
    assert.is_true(reply.ok, reply.error)
    local text = support.read_file(path)
    assert.are.equal(#text, reply.bytes)
    local export = support.json.decode(text)
    assert.are.equal("lupe-heap-snapshot", export.format)
    assert.are.equal(1, export.version)
    assert.are.equal("grows", export.findings[1].summary)
    assert.are.equal("snapshot_1", export.snapshot_id)
    local by_name = {}
    for _, site in ipairs(export.sites) do by_name[export.functions[site["function"] + 1].name] = site end
    assert.are.equal(5000, by_name.large.inuse_space)
    assert.are.equal(10, by_name.small.inuse_objects)
    for _, stack in ipairs(export.stacks) do
      for _, frame in ipairs(stack.frames) do assert.is_table(export.frames[frame + 1]) end
    end
  end)

  it("tells when an export does not fit the disk", function()
    prepare()
    local ffi = require("ffi")
    local fd = ffi.C.open("/dev/full", 1)
    local _, reply = worker:call({ op = "export" }, fd)
    ffi.C.close(fd)
    assert.are.same({ false, "system", "ENOSPC" }, { reply.ok, reply.kind, reply.code })
  end)

  it("refuses a snapshot that is none, or torn, and keeps the one it has", function()
    prepare()
    for _, bytes in ipairs({ "x", ("\0"):rep(100000), "LUPESNP1" .. ("\255"):rep(5000) }) do
      local fd = worker_process.memfd(bytes)
      local outcome, reply = worker:call({ op = "snapshot" }, fd)
      require("ffi").C.close(fd)
      assert.are.same({ "replied", false, "system" }, { outcome, reply.ok, reply.kind })
    end
    local _, reply = worker:call({ op = "snapshot" })
    assert.is_false(reply.ok)
    _, reply = check("good.largest")
    assert.is_true(reply.ok, reply.error)
  end)
end)

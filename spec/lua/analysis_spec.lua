local support = require("spec.support")
local analysis = require("lupe.analysis")
local async = require("lupe.async")
local exposition = require("lupe.exposition")
local fake = require("spec.fake_host")
local literal = require("lupe.view_literal")
local view = require("lupe.view")
local worker = require("lupe.worker")

local MIB = 2 ^ 20

-- The worker makes the methods of strings its own, for its whole process: here that is undone.
local strings = debug.getmetatable("")
local plain_index = strings.__index

--- lupe.worker in this process. `world.deadly[id]` says how the process ends when that rule is checked.
local function in_process(world)
  local address, size, handle
  local function start()
    address = nil
    world.starts = world.starts + 1
    handle = worker.new({
      guarded = function(_, _, body)
        local ok, result = pcall(body)
        return ok, result, 1500, 1400, not ok and "error" or nil
      end,
      tripped = function() end, memory = function() return 0 end, confined = function() return true end,
      map = function()
        address, size = world.sent.address, world.sent.size
        return true
      end,
      snapshot = function() return address, size end,
    })
    strings.__index, strings.__metatable = plain_index, nil
  end
  return function(request, attach, deadline_ms, callback)
    local id = request:match('"op":"check"') and request:match('"id":"([^"]*)"')
    local op = request:match('"op":"(%w+)"')
    if op ~= "try" then world.calls[#world.calls + 1] = id or op end
    if not handle then start() end
    if world.full then error("the worker takes no call: a bounded queue is full") end
    assert.is_true(deadline_ms > 0)
    world.sent = attach or world.sent
    local kind = world.deadly[id]
    if kind then handle = nil end
    local reply = not kind and handle(request)
    world.later(function()
      if kind then return callback({ kind = kind, message = "killed: " .. kind }) end
      callback(nil, reply)
    end)
  end
end

describe("an analysis", function()
  local folder, mine, world, host, logged

  local function write(name, text) return support.write_file(mine .. "/" .. name, text) end

  local function rule(name, kind, body)
    local text = "return { api = 1, id = %q, kind = %q, title = 'x', check = function(view) %s end }"
    return write(name .. ".lua", text:format(kind .. "." .. name, kind, body))
  end

  local function view_of(described)
    local address, size, owner = literal(described)
    local keepalive = { address = address, size = size, owner = owner }
    return view.from_snapshot(address, size, { keepalive = keepalive })
  end

  local function leaking()
    local history = {}
    for i = 1, 30 do history[i] = i * MIB end
    return view_of({ sites = { { name = "leak", module = "app", history = history, stack = { "leak", "main" } } } })
  end

  --- Whatever has to be waited for.
  local function settle()
    while world.pending[1] do table.remove(world.pending, 1)() end
  end

  local function make(rules_dir, suppressed)
    host = fake.new({
      log = function(_, message) logged[#logged + 1] = message end, worker = in_process(world),
    })
    host.rules_dir, host.config.rules, host.config.suppressions = rules_dir, mine, suppressed
    local self = analysis.new(host)
    settle()
    return self
  end

  local function reload(self)
    local results
    async.spawn(function() return self:reload() end, function(_, list) results = list end)
    settle()
    return results
  end

  --- Runs it to its end, whatever has to be waited for.
  local function run(self, seen, options)
    local result, failure
    async.spawn(function() return self:run(seen, options) end, function(ok, value, trace)
      if ok then
        result = value
      else
        failure = trace or value
      end
    end)
    settle()
    assert.is_nil(failure)
    return result
  end

  local function summaries(result)
    local list = {}
    for i, finding in ipairs(result.findings) do list[i] = finding.summary end
    return list
  end

  before_each(function()
    mine, folder, logged = support.temp_dir(), support.root .. "/rules", {}
    world = { calls = {}, deadly = {}, starts = 0, pending = {} }
    world.later = function(deliver) world.pending[#world.pending + 1] = deliver end
  end)
  after_each(support.cleanup)

  it("runs the shipped rules, and then those that recommend", function()
    local result = run(make(folder), leaking())
    local leak, advice
    for _, finding in ipairs(result.findings) do
      if finding.rule == "leak.steady-growth" then leak = finding end
      if finding.rule == "recommendation.growth" then advice = finding end
    end
    assert.same({ "leak", "leak", "leak" }, { leak.kind, leak.verdict, leak.component })
    assert.is_truthy(advice.summary:find("Investigate leak for potential memory leak", 1, true))
    assert.same({ "ok", {} }, { result.status, result.errors })
    assert.same({}, logged)
  end)

  it("asks for more history where the leak rule has too little", function()
    local result = run(make(folder), view_of({ sites = { { name = "a", history = { 1, 2, 3 } } } }))
    assert.same({ "insufficient_data", 10 }, { result.status, result.needed_seconds })
  end)

  it("gives the same result for the same view, and runs nothing again", function()
    local self, seen = make(folder), leaking()
    local first = run(self, seen)
    local calls = #world.calls
    assert.equal(first, run(self, seen))
    assert.equal(calls, #world.calls)
    assert.equal(first, self:latest())
    assert.not_equal(first, run(self, leaking()))
  end)

  it("runs only the rules that speak of time where asked for these, and is not the run's result then", function()
    rule("heap", "leak", "return { { summary = 'heap' } }")
    for name, need in pairs({ hot = "cpu", waits = "wall" }) do
      write(name .. ".lua", ("return { api = 1, id = 'pattern.%s', kind = 'pattern', title = 'x', needs = { %q }, "
        .. "check = function() return { { summary = %q } } end }"):format(name, need, name))
    end
    local self, seen = make(nil), leaking()
    local result = run(self, seen, { about = "time" })
    assert.same({ "hot", "waits" }, summaries(result))
    assert.same({ "time", "time" }, { result.findings[1].about, result.findings[2].about })
    assert.is_nil(self:latest())
    local all = run(self, seen)
    assert.same({ "heap", "hot", "waits" }, summaries(all))
    assert.equal("memory", all.findings[1].about)
    local calls = #world.calls
    assert.equal(all, run(self, seen, { about = "memory" }))
    assert.equal(calls, #world.calls)
  end)

  it("lets those who ask at the same time share one run, however many they are", function()
    rule("one", "leak", "return {}")
    local self, seen, done = make(nil), leaking(), 0
    local function finished(ok) done = done + (ok and 1 or 0) end
    for _ = 1, 1000 do async.spawn(function() return self:run(seen) end, finished) end
    settle()
    assert.equal(1000, done)
    assert.same({ "load", "snapshot", "leak.one" }, world.calls)
  end)

  it("keeps a failing rule from hiding what the others found", function()
    rule("bad", "leak", "local nothing; return nothing.field")
    rule("good", "leak", "return { { summary = 'found' } }")
    local result = run(make(nil), leaking())
    assert.same({ "found" }, summaries(result))
    assert.equal(1, #result.errors)
    assert.is_truthy(result.errors[1]:find("^leak.bad: .*bad.lua:1: "))
    assert.equal("ok", result.status)
  end)

  it("says that it failed where no leak rule answered", function()
    rule("bad", "leak", "error('no')")
    local result = run(make(nil), leaking())
    assert.same({ "failed", "leak.bad failed" }, { result.status, result.reason })
    local self = make(nil)
    host.config.rules_disabled = { "leak.*" }
    result = run(self, leaking())
    assert.same({ "failed", "leak.bad is switched off (rules_disabled)" }, { result.status, result.reason })
    os.remove(mine .. "/bad.lua")
    result = run(make(nil), leaking())
    assert.same({ "failed", "no rule of kind leak is in force" }, { result.status, result.reason })
  end)

  it("logs an error that repeats the 1st, 2nd, 4th and 8th time", function()
    rule("bad", "leak", "error('no', 0)")
    local self = make(nil)
    for _ = 1, 9 do run(self, leaking()) end
    assert.equal(4, #logged)
    assert.equal("rule leak.bad: no", logged[1])
    assert.equal("rule leak.bad: no (8 times in a row)", logged[4])
    assert.same({ 9, "no", "active" }, { self:rules()[1].errors, self:rules()[1].error, self:rules()[1].state })
  end)

  it("asks the rules behind a killer again in the next process", function()
    rule("a", "leak", "return { { summary = 'a' } }")
    rule("b", "leak", "return {}")
    rule("c", "leak", "return { { summary = 'c' } }")
    local self = make(nil)
    world.deadly["leak.b"] = "deadline"
    local result = run(self, leaking())
    assert.same({ "a", "c" }, summaries(result))
    assert.same({ "leak.b: killed: deadline" }, result.errors)
    assert.equal(2, world.starts)
  end)

  it("leaves a rule alone that was stopped three times in a row, until its file changes", function()
    rule("killer", "leak", "return {}")
    local self = make(nil)
    world.deadly["leak.killer"] = "died"
    for _ = 1, 5 do run(self, leaking()) end
    local asked = 0
    for _, call in ipairs(world.calls) do asked = asked + (call == "leak.killer" and 1 or 0) end
    assert.equal(3, asked)
    assert.equal("quarantined", self:rules()[1].state)
    assert.is_truthy(logged[#logged]:find("not run again until", 1, true))
    local result = run(self, leaking())
    assert.same({ "leak.killer: quarantined until its file changes: killed: died" }, result.errors)
    assert.same({ ["leak.killer"] = true }, result.failed)
    assert.same({ "failed", "leak.killer is quarantined" }, { result.status, result.reason })
    world.deadly = {}
    rule("killer", "leak", "return { { summary = 'better' } }")
    assert.same({ "loaded" }, { reload(self)[1].result })
    assert.same({ "better" }, summaries(run(self, leaking())))
    assert.equal("active", self:rules()[1].state)
  end)

  it("tells one finding per rule and site", function()
    rule("twice", "leak", "local s = view.heap:sites()() return { { site = s, summary = 'less', score = 1 }, "
      .. "{ site = s, summary = 'more', score = 2 } }")
    assert.same({ "more" }, summaries(run(make(nil), leaking())))
  end)

  it("puts what is urgent first", function()
    rule("pattern", "pattern", "return { { summary = 'p', severity = 'critical' } }")
    rule("leak", "leak", "return { { summary = 'low', severity = 'low' }, { summary = 'high', severity = 'high' } }")
    assert.same({ "high", "low", "p" }, summaries(run(make(nil), leaking())))
  end)

  it("shows recommendations what was found, and nobody else", function()
    rule("see", "leak", "return { { summary = #view.findings .. ' before' } }")
    rule("do", "recommendation", "return { { summary = 'after ' .. view.findings[1].rule } }")
    assert.same({ "0 before", "after leak.see" }, summaries(run(make(nil), leaking())))
  end)

  it("gives the operator's limits to the rule that has them as parameters", function()
    local self = make(folder)
    host.config.memory_warning_mb, host.config.memory_alert_mb = 10, 20
    local result = run(self, view_of({ memory = { { time_ms = 0, rss_bytes = 15 * MIB } } }))
    assert.equal("Resident memory 15.0 MiB is above the warning limit of 10 MiB", result.findings[1].summary)
  end)

  it("gives rules the params of the configuration, and of one request only to that", function()
    write("a.lua", [[return { api = 1, id = "leak.a", kind = "leak", title = "x", params = { n = { default = 1 } },
      check = function(_, params) return { { summary = "n is " .. params.n } } end }]])
    local self, seen = make(nil), leaking()
    host.config.rule_params = { ["leak.a"] = { n = 2 } }
    local usual = run(self, seen)
    assert.same({ "n is 2" }, summaries(usual))
    assert.same({ n = 2 }, self:rules()[1].set)
    local params = self:params_of({ ["param.NAME"] = { n = "3" } })
    assert.same({ "n is 3" }, summaries(run(self, seen, { params = params })))
    assert.equal(usual, run(self, seen))
    assert.equal(usual, self:latest())
    assert.equal("n is 2", self:known()[1].finding.summary)
    assert.equal(1, #self:known())
    host.config.rule_params = { ["leak.a"] = { n = "many" }, ["leak.b"] = {} }
    assert.same({ "n is 1" }, summaries(run(self, leaking())))
    assert.same({
      "rule_params: no rule 'leak.b' is in force, did you mean 'leak.a'?",
      "rule_params[\"leak.a\"]: field 'params.n': expected number, got string; the default stays",
    }, self:complaints())
  end)

  it("holds nothing against a rule that fails with a request's params", function()
    rule("a", "leak", "return {}")
    local self = make(nil)
    world.deadly["leak.a"] = "died"
    for _ = 1, 4 do
      assert.same({ "leak.a: killed: died" }, run(self, leaking(), { params = {} }).errors)
    end
    world.deadly = {}
    assert.same({ "active", 0 }, { self:rules()[1].state, self:rules()[1].runs })
    assert.same({}, logged)
  end)

  it("does not judge a new text by a request with params, be its answer good or bad", function()
    rule("a", "leak", "return { { summary = 'old' } }")
    local self = make(nil)
    assert.same({ "old" }, summaries(run(self, leaking())))
    write("a.lua", [[return { api = 1, id = "leak.a", kind = "leak", title = "x", params = { n = { default = 1 } },
      check = function(_, params) if params.n == 1 then error("one") end return {} end }]])
    reload(self)
    run(self, leaking(), { params = { ["leak.a"] = { n = 1 } } })
    assert.is_nil(self:rules()[1].error)
    assert.same({}, run(self, leaking(), { params = { ["leak.a"] = { n = 2 } } }).errors)
    run(self, leaking())
    assert.matches("one (kept: the last good version", self:rules()[1].error, 1, true)
    assert.same({ "old" }, summaries(run(self, leaking())))
  end)

  it("does not count the late answer of an old text against the new one", function()
    rule("a", "leak", "error('slow and wrong', 0)")
    local self, result = make(nil), nil
    async.spawn(function() return self:run(leaking()) end, function(_, value) result = value end)
    local held = world.pending
    world.pending = {}
    rule("a", "leak", "return { { summary = 'new' } }")
    assert.equal("loaded", reload(self)[1].result)
    world.pending = held
    settle()
    assert.same({ "leak.a: slow and wrong" }, result.errors)
    assert.is_nil(self:rules()[1].error)
    assert.equal(0, self:rules()[1].errors)
    assert.same({ "new" }, summaries(run(self, leaking())))
  end)

  it("tells of each finding without a place in one check, and knows it again in the next", function()
    rule("a", "pattern", "local n = view.heap.profiles return { { summary = 'thread w1 is ' .. n .. ' % busy' }, "
      .. "{ summary = 'thread w2 is ' .. n .. ' % busy' }, { summary = 'thread 3 is busy' }, "
      .. "{ summary = 'thread 4 is busy' } }")
    local self = make(nil)
    assert.equal(4, #run(self, leaking()).findings)
    assert.equal(4, #run(self, view_of({ sites = { { name = "a", history = { 1, 2, 3 } } } })).findings)
    local known = self:known()
    assert.equal(4, #known)
    for _, one in ipairs(known) do assert.same({ 2, true }, { one.times, one.current }, one.finding.summary) end
  end)

  it("does not run what is disabled, and says so", function()
    rule("a", "leak", "return { { summary = 'a' } }")
    rule("b", "pattern", "return { { summary = 'b' } }")
    local self = make(nil)
    host.config.rules_disabled = { "pattern.*" }
    assert.same({ "a" }, summaries(run(self, leaking())))
    assert.same({ "active", "disabled" }, { self:rules()[1].state, self:rules()[2].state })
    assert.same({}, self:params_of({}) or {})
  end)

  it("keeps suppressed findings from those who read and recommend, and remembers them", function()
    rule("a", "leak", "return { { site = view.heap:sites()(), summary = 'known' }, { summary = 'new' } }")
    rule("r", "recommendation", "return { { summary = 'of ' .. #view.findings } }")
    local self = make(nil, assert(require("lupe.suppressions").check("x", {
      { site = "leak", reason = "on purpose", until_date = "2027-01-31" },
    })))
    local result = run(self, leaking())
    assert.same({ "new", "of 1" }, summaries(result))
    assert.same({ "known" }, summaries({ findings = result.suppressed }))
    assert.equal(2, #self:findings())
    assert.equal(1, self:rules()[1].findings)
    local marked
    for _, known in ipairs(self:known()) do
      assert.is_true(known.current)
      marked = known.finding.suppressed or marked
    end
    assert.same({ reason = "on purpose", until_date = "2027-01-31" }, marked)
    host.clock_ms = 1801440000000 -- 2027-02-01
    self:tick({ merged = function() end })
    local text = "suppressions[1]: that of site 'leak' ended with 2027-01-31, so it is told again; the reason was: "
      .. "on purpose"
    assert.same({ text }, logged)
    assert.same({ text }, self:complaints())
    assert.equal(3, #summaries(run(self, leaking())))
  end)

  it("says once what several rules say of one site", function()
    for _, name in ipairs({ "a", "b", "c" }) do
      local body = "return { { site = view.heap:sites()(), verdict = 'leak', severity = 'high', summary = %q } }"
      rule(name, "leak", body:format("by " .. name))
    end
    local accused, observed = require("lupe.leaks").sort(run(make(nil), leaking()).findings)
    assert.same({ 1, 0 }, { #accused, #observed })
    assert.equal("leak", accused[1].component)
  end)

  it("knows whether the worker is confined once it ran", function()
    rule("a", "leak", "return {}")
    local self = make(nil)
    assert.is_nil((self:confinement()))
    run(self, leaking())
    assert.is_true((self:confinement()))
  end)

  it("names a broken file in its errors and its list", function()
    write("broken.lua", "return {\n id = \n}")
    local self = make(nil)
    assert.is_truthy(run(self, leaking()).errors[1]:find("broken.lua:3: ", 1, true))
    assert.equal("broken", self:rules()[1].state)
  end)

  it("says why where the worker takes no call", function()
    rule("a", "leak", "return {}")
    local self = make(nil)
    world.full = true
    local result = run(self, leaking())
    assert.is_truthy(result.errors[1]:find("a bounded queue is full", 1, true))
    world.full = false
    assert.same({}, run(self, leaking()).errors)
  end)

  it("remembers when something was found first and last, not for views of one process", function()
    rule("a", "leak", "return { { summary = 'a' } }")
    local self = make(nil)
    run(self, leaking(), { pid = 5 })
    assert.same({}, self:known())
    assert.is_nil(self:latest())
    run(self, leaking())
    host.clock_ms = host.clock_ms + 60000
    run(self, leaking())
    local known = self:known()
    assert.same({ 1, 2, 60000, true },
      { #known, known[1].times, known[1].last_ms - known[1].first_ms, known[1].current })
    rule("a", "leak", "return {      }")
    reload(self)
    run(self, leaking())
    assert.is_false(self:known()[1].current)
  end)

  it("remembers 500 findings, those that were there last", function()
    rule("a", "leak", "local f = {} for i = 1, 600 do f[i] = { summary = 'old ' .. i } end return f")
    local self = make(nil)
    run(self, leaking())
    assert.equal(500, #self:known())
    host.clock_ms = host.clock_ms + 1000
    rule("a", "leak", "local f = {} for i = 1, 300 do f[i] = { summary = 'new ' .. i } end return f")
    reload(self)
    run(self, leaking())
    local known, new = self:known(), 0
    for _, one in ipairs(known) do new = new + (one.finding.summary:match("^new") and 1 or 0) end
    assert.same({ 500, 300 }, { #known, new })
  end)

  --- The seconds of a run at which it checks by itself: a tick each second, views from `first` on.
  local function checks(seconds, first, body, seen)
    rule("a", "leak", body)
    local self, times = make(nil), {}
    local began_ms = host.clock_ms
    local function age() return (host.clock_ms - began_ms) / 1000 end
    local views = { merged = function()
      if age() >= first then return seen and seen(age()) or leaking() end
    end }
    for _ = 0, seconds do
      local before = #world.calls
      self:tick(views)
      settle()
      if #world.calls > before then times[#times + 1] = age() end
      host.clock_ms = host.clock_ms + 1000
    end
    assert.same({}, logged)
    return times, self
  end

  it("checks as soon as there is a view, whenever the run is twice as old, then at the configured interval", function()
    local times, self = checks(1200, 2, "return { { summary = 'a' } }")
    assert.same({ 2, 4, 8, 16, 32, 64, 128, 256, 512, 812, 1112 }, times)
    assert.equal(11, self:known()[1].times)
  end)

  it("checks when the leak rules have the history that they asked for", function()
    local function seen(age)
      local history = {}
      for i = 1, math.max(1, age - 1) do history[i] = i end
      return view_of({ interval_ms = 1000, sites = { { name = "f", module = "app", history = history } } })
    end
    local body = "if view.heap.seconds < 10 then return {}, { needed_seconds = 10 } end return { { summary = 'a' } }"
    local times, self = checks(50, 2, body, seen)
    assert.same({ 2, 12, 24, 48 }, times)
    assert.equal(3, self:known()[1].times)
  end)

  it("keeps to the interval where it is short, and tries again after a check that failed", function()
    rule("a", "leak", "return { { summary = 'a' } }")
    local self, given, times = make(nil), { leaking() }, 0
    host.config.leak_check_interval_secs = 3
    local views = { merged = function()
      times = times + 1
      if times == 2 then return setmetatable({}, { __index = function() error("no such view") end }) end
      return given[1]
    end }
    for _ = 1, 10 do
      self:tick(views)
      settle()
      host.clock_ms = host.clock_ms + 1000
    end
    assert.equal(4, times)
    assert.equal(1, #logged)
    assert.truthy(logged[1]:find("the scheduled check failed: .*no such view"), logged[1])
  end)

  it("gives a finding the same id in every run, and another one to another", function()
    rule("a", "leak", "return { { summary = 'a' }, { summary = 'b' } }")
    local ids = {}
    for i = 1, 2 do
      local self = make(nil)
      run(self, leaking())
      ids[i] = { self:known()[1].id, self:known()[2].id }
      assert.truthy(ids[i][1]:match("^%x+$") and #ids[i][1] == 16)
      assert.not_equal(ids[i][1], ids[i][2])
    end
    assert.same(ids[1], ids[2])
  end)

  it("sees within seconds that a file has changed", function()
    local self, views = make(nil), { merged = function() end }
    rule("a", "leak", "return {}")
    self:tick(views)
    settle()
    assert.equal(1, #self:rules())
    rule("b", "leak", "return {}")
    host.clock_ms = host.clock_ms + 1000
    self:tick(views)
    settle()
    assert.equal(1, #self:rules())
    host.clock_ms = host.clock_ms + 1000
    self:tick(views)
    settle()
    assert.equal(2, #self:rules())
  end)

  it("has metrics per rule", function()
    rule("a", "leak", "return { { summary = 'a' } }")
    local self = make(nil)
    run(self, leaking())
    local out = exposition.new("prometheus")
    require("lupe.rule_metrics")(self:rules(), out)
    local text = table.concat(out.lines, "\n")
    for _, line in ipairs({
      'lupe_rules{state="active"} 1', 'lupe_rule_runs_total{rule="leak.a"} 1', 'lupe_rule_findings{rule="leak.a"} 1',
      'lupe_rule_duration_seconds{rule="leak.a"} 0.0015',
    }) do
      assert.is_truthy(text:find(line, 1, true), line)
    end
  end)
end)

describe("the table of wrappers", function()
  local wrappers = require("lupe.wrappers")

  --- As the store matches them.
  local function wraps(name, module)
    for _, wrapper in ipairs(wrappers) do
      local text = wrapper.kind == "module" and module or name
      if wrapper.kind == "name" and text == wrapper.text then return true end
      if wrapper.kind ~= "name" and text:sub(1, #wrapper.text) == wrapper.text then return true end
    end
    return false
  end

  it("knows allocators by name, in whatever program", function()
    for _, name in ipairs({
      "zmalloc", "ztrymalloc_usable_internal", "sqlite3Malloc.part.0", "operator new(unsigned long)", "g_malloc0",
      "ngx_palloc", "PyObject_Malloc", "__rust_alloc", "alloc::raw_vec::RawVec<T,A>::grow_one", "CRYPTO_malloc",
      "std::vector<int, std::allocator<int> >::push_back(int const&)", "xstrdup",
      "void std::vector<int, std::allocator<int> >::_M_realloc_insert<int>(int&&)",
    }) do
      assert.is_true(wraps(name, "app"), name)
    end
  end)

  it("knows the runtimes by their module", function()
    for _, module in ipairs({
      "libjemalloc.so.2", "liblupe-agent.so", "libc.so.6", "libstdc++.so.6.0.30", "ld-linux-x86-64.so.2",
      "libgcc_s.so.1",
    }) do
      assert.is_true(wraps("anything", module), module)
    end
  end)

  it("leaves alone who allocates for itself", function()
    for _, name in ipairs({ "main", "dictAddRaw", "ngx_http_create_request", "operator newline", "std::sort<int*>",
      "mallocator_init", "allocate_session", "createStringObject", "free_list_grow", "xmalloc_stats" }) do
      if name ~= "operator newline" then assert.is_false(wraps(name, "app"), name) end
    end
    assert.is_false(wraps("f", "libcrypto.so.3"))
    assert.is_false(wraps("f", "libcurl.so.4"))
  end)

  it("has no entry twice", function()
    local seen = {}
    for _, wrapper in ipairs(wrappers) do
      local key = wrapper.kind .. " " .. wrapper.text
      assert.is_nil(seen[key], key)
      seen[key] = true
    end
    assert.is_true(#wrappers <= 4096)
  end)
end)

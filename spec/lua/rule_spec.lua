require("spec.support")
local rule = require("lupe.rule")
local view = require("lupe.view")

local NAME = "my.lua"

local function text(fields)
  local parts = {}
  local all = {
    api = "1", id = '"leak.mine"', kind = '"leak"', title = '"Mine"', check = "function() return {} end",
  }
  for name, value in pairs(fields or {}) do all[name] = value or nil end
  for name, value in pairs(all) do
    if value ~= "" then parts[#parts + 1] = name .. " = " .. value end
  end
  return "return { " .. table.concat(parts, ", ") .. " }"
end

local function load(fields) return rule.load(NAME, text(fields), {}) end

local function message(fields)
  local loaded, why = load(fields)
  assert.is_nil(loaded)
  return why
end

describe("a rule's file", function()
  it("that keeps the contract is taken", function()
    local loaded = assert(load({ version = '"3"', needs = '{ "heap.history" }', params = "{ n = { default = 1 } }" }))
    assert.equal("leak.mine", loaded.id)
    assert.equal(1, loaded.params.n.default)
  end)

  for _, case in ipairs({
    { { title = "5" }, "my.lua: field 'title': expected string, got number" },
    { { title = "" }, "my.lua: field 'title': expected string, got nothing" },
    { { api = "2" }, "my.lua: field 'api': expected 1, got 2" },
    { { check = "{}" }, "my.lua: field 'check': expected function, got table" },
    { { kind = '"leek"' }, "my.lua: field 'kind': expected one of leak, bottleneck, pattern, recommendation, alert, "
      .. "action, got 'leek' (did you mean 'leak'?)" },
    { { id = '"Leak"' }, "my.lua: field 'id': expected a name such as 'leak.steady-growth' (lower case, a dot, at most "
      .. "64 characters), got 'Leak'" },
    { { chek = "1" }, "my.lua: unknown field 'chek', did you mean 'check'?" },
    { { zebra = "1" }, "my.lua: unknown field 'zebra'; known: api, id, kind, title, version, needs, params, check" },
    { { needs = '{ "heap.histori" }' }, "my.lua: field 'needs[1]': expected one of heap, heap.history, memory, "
      .. "allocator, classes, targets, findings, cpu, wall, threads, spans, proof, got 'heap.histori' "
      .. "(did you mean 'heap.history'?)" },
    { { needs = "{ heap = true }" }, "my.lua: field 'needs': expected an array, got a table with other keys" },
    { { params = "{ n = { defualt = 1 } }" },
      "my.lua: unknown field 'params.n.defualt', did you mean 'params.n.default'?" },
    { { params = "{ n = {} }" },
      "my.lua: field 'params.n.default': expected number, string or boolean, got nothing" },
    { { params = "{ n = { default = 1, min = 2 } }" }, "my.lua: field 'params.n.default': expected at least 2, got 1" },
    { { params = "{ n = { default = 9, max = 2 } }" }, "my.lua: field 'params.n.default': expected at most 2, got 9" },
    { { params = "{ n = { default = 1, min = 'x' } }" }, "my.lua: field 'params.n.min': expected number, got string" },
    { { params = "{ n = { default = 0/0 } }" },
      "my.lua: field 'params.n.default': expected a finite number, got nan" },
    { { params = "{ n = { default = 5, min = 3, max = 2 } }" },
      "my.lua: field 'params.n.max': expected at least 3, got 2" },
    { { params = "{ n = { default = 'a', max = 2 } }" },
      "my.lua: field 'params.n.max': expected nothing where the default is a string, got number" },
    { { params = "{ n = { default = 1, doc = 5 } }" }, "my.lua: field 'params.n.doc': expected string, got number" },
    { { params = "{ n = { default = {} } }" },
      "my.lua: field 'params.n.default': expected number, string or boolean, got table" },
    { { params = "{ n = 5 }" }, "my.lua: field 'params.n': expected table, got number" },
    { { params = "{ n = { 5 } }" }, "my.lua: unknown field 'params.n.[1]'; known: default, min, max, unit, doc" },
    { { params = "{ ['a.b'] = { default = 1 } }" },
      "my.lua: field 'params': expected names such as 'min_growth' as keys, got 'a.b'" },
    { { params = "5" }, "my.lua: field 'params': expected table, got number" },
    { { needs = "'heap'" }, "my.lua: field 'needs': expected table, got string" },
    { { needs = "{ 5 }" }, "my.lua: field 'needs[1]': expected string, got number" },
    { { version = "3" }, "my.lua: field 'version': expected string, got number" },
    { { ["[5]"] = "1" }, "my.lua: unknown field '[5]'; known: api, id, kind, title, version, needs, params, check" },
    { { params = "{ 5 }" }, "my.lua: field 'params': expected names as keys, got a number" },
  }) do
    it("is refused with: " .. case[2], function() assert.equal(case[2], (message(case[1]):gsub("%-nan", "nan"))) end)
  end

  it("that does not compile is refused with its line", function()
    local _, why = rule.load(NAME, "return {\n  id =\n}", {})
    assert.is_truthy(why:find("^my%.lua:3: "))
  end)

  it("that fails when it runs is refused with its line", function()
    local _, why = rule.load(NAME, "local x\nreturn x.y", {})
    assert.is_truthy(why:find("^my%.lua:2: "))
  end)

  it("that returns no table is refused", function()
    local _, why = rule.load(NAME, "return 5", {})
    assert.equal("my.lua: expected the file to return a table, got number", why)
  end)

  it("of bytecode is refused", function()
    local _, why = rule.load(NAME, string.dump(function() return {} end), {})
    assert.equal("my.lua: bytecode is not read, only Lua text", why)
  end)

  it("with a long path goes by its name, as Lua would cut it", function()
    local path = "/" .. ("directory/"):rep(10) .. "mine.lua"
    local _, why = rule.load(path, "return {\n  id =\n}", {})
    assert.is_truthy(why:find("^mine%.lua:3: "))
    _, why = rule.load(path, text({ title = "5" }), {})
    assert.equal("mine.lua: field 'title': expected string, got number", why)
  end)
end)

describe("params", function()
  local loaded = assert(load({ params = "{ n = { default = 1, min = 0, max = 5 }, word = { default = 'a' } }" }))

  it("are the defaults, and over them what was set", function()
    assert.same({ n = 1, word = "a" }, rule.params(loaded))
    assert.same({ n = 3, word = "a" }, rule.params(loaded, { n = 3 }))
  end)

  it("are checked like the file", function()
    local function refused(overrides) return select(2, rule.params(loaded, overrides)) end
    assert.equal("leak.mine: field 'params.n': expected number, got string", refused({ n = "3" }))
    assert.equal("leak.mine: field 'params.n': expected at most 5, got 6", refused({ n = 6 }))
    assert.equal("leak.mine: unknown field 'params.wrod', did you mean 'params.word'?", refused({ wrod = "b" }))
  end)
end)

describe("a check's answer", function()
  local seen = view.from_table({ sites = { { name = "leak", history = { 1, 2, 3 }, stack = { "leak", "main" } } } })

  local function run(check)
    local loaded = assert(load())
    loaded.check = check
    return rule.run(NAME, loaded, seen)
  end

  local function refused(...)
    local results = { ... }
    local ok, why = pcall(run, function() return unpack(results) end)
    assert.is_false(ok)
    return why
  end

  it("becomes plain, its site with it", function()
    local answer = run(function(v)
      local site = v.heap:sites()()
      return { { site = site, summary = "x", score = 2, evidence = { a = 1, b = "c", d = true }, advice = { "do" } } }
    end)
    local found = answer.findings[1]
    assert.same({ "ok", "leak", 3, { "leak", "main" } },
      { answer.status, found.site.name, found.site.inuse_space, found.site.stack })
    assert.is_nil(getmetatable(found.site))
    assert.same({ a = 1, b = "c", d = true }, found.evidence)
  end)

  it("may ask for more history", function()
    local answer = run(function() return {}, { needed_seconds = 30 } end)
    assert.same({ "insufficient_data", 30 }, { answer.status, answer.needed_seconds })
  end)

  it("that breaks the contract is an error which names the finding and the field", function()
    local cases = {
      { "my.lua: check: expected it to return an array of findings, got nothing", nil },
      { "my.lua: check: expected an array of findings, got a table with other keys", { summary = "x" } },
      { "my.lua: finding 1: field 'summary': expected string, got nothing", { {} } },
      { "my.lua: finding 1: unknown field 'sumary', did you mean 'summary'?", { { sumary = "x" } } },
      { "my.lua: finding 2: expected a table, got string", { { summary = "x" }, "y" } },
      { "my.lua: finding 1: field 'confidence': expected at most 1, got 50", { { summary = "x", confidence = 50 } } },
      { "my.lua: finding 1: field 'score': expected a finite number, got inf",
        { { summary = "x", score = math.huge } } },
      { "my.lua: finding 1: field 'evidence.f': expected number, string or boolean, got function",
        { { summary = "x", evidence = { f = print } } } },
      { "my.lua: finding 1: field 'advice[1]': expected string, got number", { { summary = "x", advice = { 1 } } } },
      { "my.lua: finding 1: field 'site.name': expected string, got nothing", { { summary = "x", site = {} } } },
      { "my.lua: finding 1: field 'hotspot.name': expected string, got nothing", { { summary = "x", hotspot = {} } } },
      { "my.lua: finding 1: field 'hotspot.line': expected number, got string",
        { { summary = "x", hotspot = { name = "f", line = "12" } } } },
      { "my.lua: finding 1: field 'hotspot.cpu_percent': expected a finite number, got nan",
        { { summary = "x", hotspot = { name = "f", cpu_percent = 0 / 0 } } } },
    }
    for _, case in ipairs(cases) do assert.equal(case[1], refused(case[2])) end
    assert.equal("my.lua: check: second value: field 'needed_seconds': expected number, got nothing", refused({}, {}))
  end)

  local function run_action(action)
    local loaded = assert(load())
    loaded.kind = "action"
    loaded.check = function() return { { summary = "x", action = action } } end
    return pcall(rule.run, NAME, loaded, seen)
  end

  it("asks for an action in plain arguments", function()
    local _, answer = run_action({ name = "decay", dirty_ms = 500, pid = 7, cooldown_secs = 60 })
    assert.same({ name = "decay", dirty_ms = 500, pid = 7, cooldown_secs = 60 }, answer.findings[1].action)
    _, answer = run_action({ name = "snapshot" })
    assert.same({ name = "snapshot" }, answer.findings[1].action)
  end)

  it("that asks for what there is not is an error which says what there is", function()
    for _, case in ipairs({
      { "field 'action': expected table, got nothing", nil },
      { "field 'action.name': expected string, got nothing", {} },
      { "field 'action.name': expected one of purge, decay, snapshot, sampling, got 'purg' (did you mean 'purge'?)",
        { name = "purg" } },
      { "unknown field 'action.dirty', did you mean 'action.dirty_ms'?",
        { name = "decay", dirty_ms = 1, dirty = 1 } },
      { "field 'action': expected dirty_ms or muzzy_ms in an action 'decay', got neither", { name = "decay" } },
      { "field 'action.dirty_ms': expected at least -1, got -2", { name = "decay", dirty_ms = -2 } },
      { "field 'action.cpu_hz': expected a whole number, got 1.5", { name = "sampling", cpu_hz = 1.5 } },
      { "field 'action.wall_hz': expected at most 100, got 101", { name = "sampling", wall_hz = 101 } },
      { "field 'action.reason': expected string, got table", { name = "snapshot", reason = {} } },
      { "field 'action.cooldown_secs': expected at least 1, got 0", { name = "purge", cooldown_secs = 0 } },
    }) do
      local ok, why = run_action(case[2])
      assert.is_false(ok)
      assert.equal("my.lua: finding 1: " .. case[1], why)
    end
  end)

  it("asks for nothing in a rule of another kind", function()
    assert.equal("my.lua: finding 1: field 'action': expected nothing in a rule of kind 'leak' (only those of kind "
      .. "'action' ask for one), got table", refused({ { summary = "x", action = { name = "purge" } } }))
  end)

  it("is read once, and nothing of it is asked again later", function()
    local asked = 0
    local confidence = setmetatable({ summary = "x" }, { __index = function(_, name)
      if name ~= "confidence" then return nil end
      asked = asked + 1
      return asked <= 2 and 0.5 or {}
    end })
    assert.equal(0.5, run(function() return { confidence } end).findings[1].confidence)
  end)

  it("has bounds in all that it holds", function()
    local evidence, lines = {}, {}
    for i = 1, 65 do evidence["e" .. i], lines[i] = i, "line " .. i end
    assert.equal("my.lua: finding 1: field 'evidence': expected at most 64 entries, got more",
      refused({ { summary = "x", evidence = evidence } }))
    local answer = run(function()
      return { { summary = "x", advice = lines, evidence = { a = ("y"):rep(5000) },
        site = { name = ("n"):rep(5000), stack = { ("s"):rep(5000) } } } }
    end)
    local found = answer.findings[1]
    assert.same({ 64, 4096, 4096, 4096 },
      { #found.advice, #found.evidence.a, #found.site.name, #found.site.stack[1] })
    local long, many = ("x"):rep(4096), {}
    for i = 1, 300 do many[i] = { summary = long } end
    assert.equal("my.lua: check: more than 1048576 bytes of text in its findings", refused(many))
    for field, value in pairs({ line = {}, inuse_space = "1", module = 5, last_grown_ms = 0 / 0 }) do
      local why = refused({ { summary = "x", site = { name = "f", [field] = value } } })
      assert.truthy(why:find("my.lua: finding 1: field 'site." .. field .. "': expected ", 1, true), why)
    end
  end)

  it("becomes plain, its function of the profile with it", function()
    local described = view.from_table({ profile = { samples = { { stack = { "work", "main" } } } } })
    local given = rule.load("my.lua", [[
      return { api = 1, id = "pattern.test", kind = "pattern", title = "t", check = function(v)
        return { { hotspot = v.profile:functions()(), summary = "x" } }
      end }
    ]], getfenv())
    local hotspot = rule.run("my.lua", given, described).findings[1].hotspot
    assert.is_nil(getmetatable(hotspot))
    assert.same({ "work", "app", 100, 100, { "work", "main" } },
      { hotspot.name, hotspot.module, hotspot.cpu_percent, hotspot.cum_wall_percent, hotspot.stack })
    assert.is_nil(hotspot.calls)
  end)

  it("is bounded", function()
    local many = {}
    for i = 1, 1001 do many[i] = { summary = "x" } end
    assert.equal("my.lua: check: returned 1001 findings, at most 1000 are taken", refused(many))
    local long = run(function() return { { summary = ("x"):rep(10000) } } end)
    assert.equal(4096, #long.findings[1].summary)
  end)
end)

describe("the shipped rules", function()
  local support = require("spec.support")
  local sandbox = require("lupe.sandbox")

  it("keep the contract, have different ids, and document every parameter's unit or meaning", function()
    local ids, count = {}, 0
    for _, name in ipairs(require("lupe.ffi").list(support.root .. "/rules")) do
      local source = assert(support.read_file(support.root .. "/rules/" .. name))
      local loaded = assert(rule.load(name, source, sandbox.new(function() end)))
      assert.is_nil(ids[loaded.id])
      ids[loaded.id], count = true, count + 1
      for param, spec in pairs(loaded.params or {}) do assert.is_truthy(spec.doc or spec.unit, name .. " " .. param) end
      assert.is_truthy(source:find("^%-%-%- "), name .. " begins with what it asks")
    end
    assert.is_true(count >= 11)
  end)

  it("say nothing, and fail in nothing, where nothing is known", function()
    for _, name in ipairs(require("lupe.ffi").list(support.root .. "/rules")) do
      local source = assert(support.read_file(support.root .. "/rules/" .. name))
      local loaded = assert(rule.load(name, source, sandbox.new(function() end)))
      assert.same({}, rule.run(name, loaded, view.from_table({})).findings)
    end
  end)
end)

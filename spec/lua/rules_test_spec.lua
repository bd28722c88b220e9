--- `lupe rules list`, `check` and `test`, over a fake host.
require("spec.support")
local async = require("lupe.async")
local fake = require("spec.fake_host")
local json = require("lupe.json")
local rules_list = require("lupe.rules_list")
local rules_test = require("lupe.rules_test")
local support = require("spec.support")

local MIB = 2 ^ 20

local HOLDER = [[
return {
  api = 1, id = "spec.holder", kind = "pattern", title = "holds much", needs = { "heap" }, version = "2",
  params = { share = { default = 0.5, min = 0, max = 1 } },
  check = function(view, params)
    if view.heap.profiles == 0 then return {}, { needed_seconds = 5 } end
    local findings = {}
    for site in view.heap:sites() do
      if site.share >= params.share then
        findings[#findings + 1] = {
          site = site, verdict = "info", severity = "low", confidence = 0.75, summary = site.name .. " holds much",
        }
      end
    end
    if view.findings[1] then error("told: " .. view.findings[1].summary) end
    return findings
  end,
}
]]

describe("lupe rules", function()
  local host, folder, path

  before_each(function()
    folder = support.temp_dir()
    path = support.write_file(folder .. "/holder.lua", HOLDER)
    host = fake.new({ rules_dir = folder })
    local literal = require("lupe.view_literal")
    host.snapshot_of = function() return literal(host.made) end
  end)
  after_each(support.cleanup)

  local function cases(text) support.write_file(folder .. "/holder.test.lua", text) end

  local function in_task(body, ...)
    local results
    async.spawn(body, function(...) results = { n = select("#", ...), ... } end, host, ...)
    assert(results and results[1], results and results[2])
    return unpack(results, 2, results.n)
  end

  local function test(recordings) return in_task(rules_test.test, path, recordings or {}) end

  local function check(paths) return in_task(rules_test.check, paths) end

  --- Runs one case; the fake host's worker sees its view.
  local function test_case(view, fields)
    local made = assert(loadstring("return " .. view))()
    host.made = made
    cases(('return { { name = "a case", view = %s, %s } }'):format(view, fields))
    return test()
  end

  local VIEW = "{ sites = { { name = 'a', history = { 3 * 2 ^ 20 } }, { name = 'b', history = { 2 ^ 20 } } } }"

  local function list_rules(form) return in_task(rules_list, form) end

  it("passes a case in which the rule finds what it should", function()
    assert.same({ ([[
%s: spec.holder ok
  ok    a case
1 case, 0 failed
]]):format(path), 0 }, {
      test_case(VIEW, "expect = { { component = 'a', verdict = 'info', summary = '^a holds', confidence = 0.7 } }"),
    })
    assert.same(0, (select(2, test_case(VIEW, "expect = {}, params = { share = 0.9 }"))))
    assert.same(0, (select(2, test_case(VIEW, "params = { share = 0.1 }, expect = { { component = 'b' }, {} }"))))
  end)

  it("says of a case that fails what was expected and what came", function()
    local text, code = test_case(VIEW, "expect = { { component = 'b', confidence = 0.7 } }")
    assert.equal(1, code)
    assert.equal(([[
%s: spec.holder FAILED
  FAIL  a case
        expected component b, confidence >= 0.7
        got      a, info, low, 75 %% sure: a holds much
1 case, 1 failed
]]):format(path), text)
  end)

  it("fails a case for a finding too many, too few, less sure, or of other words", function()
    for _, fields in ipairs({
      "expect = {}", "expect = { {}, {} }", "expect = { { confidence = 0.8 } }", "expect = { { summary = 'little' } }",
      "expect = { { severity = 'high' } }", "expect = { { module = 'other' } }", "insufficient = true",
    }) do
      assert.same({ fields, 1 }, { fields, (select(2, test_case(VIEW, fields))) })
    end
  end)

  it("fails only the case whose pattern is none, and names what is wrong with it", function()
    host.made = assert(loadstring("return " .. VIEW))()
    cases(("return { { name = 'bad', view = %s, expect = { { summary = 'holds much%%' } } },\n"
      .. "{ name = 'worse', view = %s, error = '[', params = { share = 'x' } },\n"
      .. "{ name = 'good', view = %s, expect = {}, params = { share = 0.9 } } }"):format(VIEW, VIEW, VIEW))
    local text, code = test()
    assert.equal(1, code)
    assert.matches("  FAIL  bad\n        field 'summary': 'holds much%' is no Lua pattern: malformed", text, 1, true)
    assert.matches("  FAIL  worse\n        field 'error': '[' is no Lua pattern: malformed", text, 1, true)
    assert.matches("  ok    good\n3 cases, 2 failed", text, 1, true)
  end)

  it("ends a file of cases that never comes to its end, whatever it catches", function()
    for _, text in ipairs({ "while true do end", "while true do pcall(function() while true do end end) end" }) do
      cases(text)
      assert.same({ nil, folder .. "/holder.test.lua: its cases are not made within 50 million instructions" },
        { test() })
      assert.is_nil((debug.gethook()))
    end
  end)

  it("can expect the rule to ask for more history, or to fail", function()
    assert.equal(0, (select(2, test_case("{ sites = {} }", "insufficient = true"))))
    assert.equal(1, (select(2, test_case("{ sites = {} }", "insufficient = false"))))
    local told = VIEW:gsub("}$", ", findings = { { summary = 'before' } } }")
    assert.equal(0, (select(2, test_case(told, "error = 'told: before'"))))
    local text, code = test_case(told, "expect = {}")
    assert.equal(1, code)
    assert.matches("got      an error: .*told: before", text)
    assert.equal(1, (select(2, test_case(VIEW, "error = 'told'"))))
  end)

  it("names what is wrong with a file of cases", function()
    local label = folder .. "/holder.test.lua"
    for text, message in pairs({
      ["return 3"] = ": expected the file to return an array of cases, got number",
      ["return {}"] = ": expected an array of cases, and it has none",
      ["return { {} }"] = ": case 1: field 'name': expected string, got nothing",
      ["return { { name = 'x', expect = {} } }"] =
        ": case 1: field 'view': expected a literal snapshot or the path of a recording, got nothing",
      ["return { { name = 'x', view = {} } }"] =
        ": case 1: field 'expect': expected an array of findings ({} for none), got nothing",
      ["return { { name = 'x', view = {}, expected = {} } }"] =
        ": case 1: unknown field 'expected', did you mean 'expect'?",
      ["return { { name = 'x', view = {}, expect = { { verdit = 'leak' } } } }"] =
        ": case 1: expect[1]: unknown field 'verdit', did you mean 'verdict'?",
      ["return { { name = 'x', view = {}, expect = {}, at = '5' } }"] =
        ": case 1: field 'at': expected number, got string",
      ["return {"] = ":1: unexpected symbol near '<eof>'",
      ["os.exit(1)"] = ":1: no global 'os': a rule has no clock and no processes: time is view.time_ms",
    }) do
      cases(text)
      assert.same({ nil, label .. message }, { test() })
      assert.same({ label .. message .. "\n", 1 }, { check({ path }) })
    end
  end)

  it("takes no file of cases for a rule", function()
    cases("return {}")
    assert.equal(1, #json.decode((list_rules("json"))).rules)
    assert.same({ folder .. "/holder.test.lua: these are a rule's tests; give the rule's own file\n", 1 },
      { check({ folder .. "/holder.test.lua" }) })
  end)

  it("runs a rule on every frame of a recording, and tells what it finds at last", function()
    local function frame(seconds, heap)
      return { time_ms = 1e12 + seconds * 1000, notes = { now_ms = 1e12 }, heap = heap }
    end
    local heap = { sites = { { name = "a", history = { MIB } } } }
    host.recordings["run.lupe"] = {
      about = { started_ms = 1e12, command = { "x" } }, frames = { frame(1, heap), frame(2), frame(3, heap) },
    }
    assert.same({ ([[
%s: spec.holder ok
  ok    run.lupe: 3 frames, 1 finding at the last
        a, info, low, 75 %% sure: a holds much
1 case, 0 failed
]]):format(path), 0 }, { test({ "run.lupe" }) })
    host.recordings["run.lupe"].frames[2].wrong = "damaged"
    local text, code = test({ "run.lupe", "other.lupe" })
    assert.equal(1, code)
    assert.matches("FAIL  run.lupe, at 2.0 s: run.lupe: frame 2, at 2.0 s: damaged", text, 1, true)
    assert.matches("FAIL  other.lupe: No such file or directory\n2 cases, 2 failed", text, 1, true)
  end)

  it("gives a rule on a recording what a run would: others' findings, and what the operator set", function()
    local growing = {}
    for i = 1, 40 do growing[i] = i * MIB end
    host.rules_dir = support.root .. "/rules"
    host.config.rule_params = { ["recommendation.mine"] = { word = "set" } }
    path = support.write_file(folder .. "/mine.lua", [[
      return {
        api = 1, id = "recommendation.mine", kind = "recommendation", title = "x", needs = { "findings" },
        params = { word = { default = "default" } },
        check = function(view, params)
          local list = {}
          for i, found in ipairs(view.findings) do
            if found.rule == "leak.steady-growth" then
              list[#list + 1] = { summary = ("%s %s, %d MiB"):format(params.word, found.component,
                view.config.memory_warning_mb) }
            end
          end
          return list
        end,
      }]])
    local heap = { sites = { { name = "a", history = growing } }, sample_period_bytes = 65536 }
    host.recordings["run.lupe"] = {
      about = { started_ms = 1e12, command = { "x" }, config = { memory_warning_mb = 77 } },
      frames = { { time_ms = 1e12 + 40000, notes = { now_ms = 1e12 + 40000 }, heap = heap } },
    }
    local text, code = test({ "run.lupe" })
    assert.equal(0, code)
    assert.matches("run.lupe: 1 frame, 1 finding at the last\n        set a, 77 MiB\n", text, 1, true)
  end)

  it("sends all once more where the worker process has forgotten it", function()
    local worker, forgot = host.worker, 0
    host.worker = function(text, attach, deadline_ms, callback)
      if json.decode(text).op == "check" and forgot == 0 then
        forgot = forgot + 1
        return callback(nil, json.encode({ ok = false, kind = "no_rule", error = "no rule was sent to this process" }))
      end
      return worker(text, attach, deadline_ms, callback)
    end
    assert.equal(0, (select(2, test_case(VIEW, "expect = { { component = 'a' } }"))))
    assert.equal(1, forgot)
  end)

  it("runs a rule without cases on a program that is made up", function()
    host.made = require("lupe.sample_view")
    local text, code = test()
    assert.equal(0, code)
    assert.matches("ran on a made-up program: 1 finding", text, 1, true)
    support.write_file(path, (HOLDER:gsub("if view.findings.-end", "error('always')")))
    text, code = test()
    assert.equal(1, code)
    assert.matches("FAIL  .*holder.lua:14: always", text)
  end)

  it("checks files, and says exactly what is wrong with which", function()
    local other = support.write_file(folder .. "/other.lua", (HOLDER:gsub("pattern", "patern"):gsub("holder", "other")))
    local text_file = support.write_file(folder .. "/holder.txt", HOLDER)
    local text, code = check({ path, other, folder .. "/missing.lua", text_file })
    assert.equal(1, code)
    local lines = {}
    for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
    assert.equal(path .. ": ok", lines[1])
    assert.matches("other.lua: field 'kind': expected one of .*got 'patern' %(did you mean 'pattern'%?%)$", lines[2])
    assert.equal(folder .. "/missing.lua: No such file or directory", lines[3])
    assert.equal(text_file .. ": a rule's file has a name that ends in .lua", lines[4])
    assert.is_nil(lines[5])
    assert.same({ path .. ": ok\n", 0 }, { check({ path }) })
  end)

  it("lists all rules, the broken ones with their error", function()
    local user = support.temp_dir()
    host.config.rules = user
    support.write_file(user .. "/mine.lua", HOLDER)
    local broken = support.write_file(user .. "/broken.lua", "return {")
    local text, code = list_rules("text")
    assert.equal(1, code)
    assert.matches("spec.holder +pattern +2 +shadowed +holder.lua %(shipped%)\n", text)
    assert.matches("active      " .. user .. "/mine.lua\n", text, 1, true)
    assert.matches("broken      " .. broken .. "\n  " .. broken .. ":1: ", text, 1, true)
    local list = json.decode((list_rules("json"))).rules
    assert.same({ "shadowed", "broken", "active" }, { list[1].state, list[2].state, list[3].state })
    os.remove(broken)
    assert.equal(0, (select(2, list_rules("text"))))
    host.config.rules = user .. "/nowhere"
    text, code = list_rules("text")
    assert.equal(1, code)
    assert.matches(user .. "/nowhere: No such file or directory\n", text, 1, true)
  end)
end)

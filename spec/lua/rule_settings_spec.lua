require("spec.support")
local rule_settings = require("lupe.rule_settings")

local function entry(id, params) return { rule = { id = id, params = params } } end

local ENTRIES = {
  entry("alert.memory-threshold", { warning = { default = 650, min = 0 }, critical = { default = 700, min = 0 } }),
  entry("leak.steady-growth", { min_growth = { default = 5, min = 0 }, strict = { default = false } }),
  entry("pattern.polling", { min_growth = { default = 1, max = 50 }, word = { default = "a" } }),
  entry("pattern.plain"),
}

describe("what the configuration says about rules", function()
  local logged

  local function new(config)
    return rule_settings.new(config, function(level, text) logged[#logged + 1] = level .. ": " .. text end)
  end

  before_each(function() logged = {} end)

  it("is refused at start where it cannot be meant so", function()
    local function refused(check, given)
      local value, message = rule_settings[check]("f: x", given)
      assert.is_nil(value)
      return message
    end
    assert.equal("f: x: expected a table of rules' ids, got string", refused("check_params", "leak"))
    assert.equal("f: x: expected rules' ids as keys, got a number", refused("check_params", { { a = 1 } }))
    assert.equal('f: x["leak.a"]: expected a table of params, got number', refused("check_params", { ["leak.a"] = 5 }))
    assert.equal('f: x["leak.a"]: expected names as keys, got a number',
      refused("check_params", { ["leak.a"] = { 5 } }))
    assert.equal("f: x[\"leak.a\"]: field 'n': expected number, string or boolean, got table",
      refused("check_params", { ["leak.a"] = { n = {} } }))
    assert.equal("f: x: expected an array of rules' ids, got string", refused("check_disabled", "leak.a"))
    assert.equal("f: x: expected an array of rules' ids, got a table with other keys",
      refused("check_disabled", { leak = true }))
    assert.equal("f: x[2]: expected a rule's id, got number", refused("check_disabled", { "leak.a", 5 }))
  end)

  it("gives each rule its values, the limits with flags of their own among them", function()
    local set = new({
      rule_params = { ["leak.steady-growth"] = { min_growth = 10, strict = true } },
      memory_warning_mb = 10, memory_alert_mb = 20,
    })
    assert.same({ warning = 10, critical = 20 }, set:params(ENTRIES[1].rule))
    assert.same({ min_growth = 10, strict = true }, set:params(ENTRIES[2].rule))
    assert.same({}, set:params(ENTRIES[3].rule))
    assert.same({}, set:params(ENTRIES[4].rule))
    assert.same({}, set:complaints(ENTRIES))
  end)

  it("complains of what fits no rule, once in the log, and leaves the defaults", function()
    local set = new({
      rule_params = {
        ["leak.stedy-growth"] = { min_growth = 10 }, ["pattern.polling"] = { min_growth = 99, wrod = "b", word = 5 },
      },
      rules_disabled = { "patern.polling", "bottleneck.*" }, memory_warning_mb = 10, memory_alert_mb = 20,
    })
    assert.same({}, set:params(ENTRIES[3].rule))
    local expected = {
      "rule_params[\"pattern.polling\"]: field 'params.min_growth': expected at most 50, got 99; the default stays",
      "rule_params[\"pattern.polling\"]: field 'params.word': expected string, got number; the default stays",
      "rule_params[\"pattern.polling\"]: unknown field 'params.wrod', did you mean 'params.word'?; the default stays",
      "rule_params: no rule 'leak.stedy-growth' is in force, did you mean 'leak.steady-growth'?",
      "rules_disabled: no rule 'patern.polling' is in force, did you mean 'pattern.polling'?",
      "rules_disabled: no rule 'bottleneck.*' is in force",
    }
    assert.same(expected, set:complaints(ENTRIES))
    assert.same(expected, set:complaints(ENTRIES))
    assert.equal(6, #logged)
    assert.equal("warning: " .. expected[1], logged[1])
  end)

  it("disables rules by id, with a star for any text", function()
    local set = new({ rules_disabled = { "bottleneck.*", "leak.steady-growth" } })
    assert.is_true(set:disabled("bottleneck.hotspot"))
    assert.is_true(set:disabled("leak.steady-growth"))
    assert.is_false(set:disabled("leak.steady-growth2"))
    assert.is_false(set:disabled("bottlenecks"))
    assert.is_false(new({}):disabled("leak.a"))
  end)
end)

describe("a request's params", function()
  local P = 'parameter "param.'
  local function taken(given) return rule_settings.for_request(given, ENTRIES) end
  local function refused(given)
    local values, message = taken(given)
    assert.is_nil(values)
    return message
  end

  it("set a name in each rule that has it, or in one", function()
    assert.is_nil(taken(nil))
    assert.same({ ["leak.steady-growth"] = { min_growth = 7.5 }, ["pattern.polling"] = { min_growth = 7.5 } },
      taken({ min_growth = "7.5" }))
    assert.same({ ["leak.steady-growth"] = { min_growth = 99, strict = true } },
      taken({ ["leak.steady-growth.min_growth"] = "99", strict = "true" }))
    assert.same({ ["leak.steady-growth"] = { min_growth = 1 }, ["pattern.polling"] = { min_growth = 2 } },
      taken({ min_growth = "2", ["leak.steady-growth.min_growth"] = "1" }))
    assert.same({ ["pattern.polling"] = { word = "5" } }, taken({ word = "5" }))
    assert.same({ ["leak.steady-growth"] = { strict = false } }, taken({ strict = false }))
  end)

  it("are refused with what is known", function()
    assert.equal(P .. "min_grwth\": no rule that runs has a param 'min_grwth', did you mean 'min_growth'?",
      refused({ min_grwth = "1" }))
    assert.equal(P .. "zebra\": no rule that runs has a param 'zebra'; known: critical, min_growth, strict, "
      .. "warning, word", refused({ zebra = "1" }))
    assert.equal(P .. "leak.stedy-growth.min_growth\": no rule 'leak.stedy-growth' is in force, did you mean "
      .. "'leak.steady-growth'?", refused({ ["leak.stedy-growth.min_growth"] = "1" }))
    assert.equal(P .. "leak.steady-growth.word\" of leak.steady-growth: unknown field 'params.word'; known: "
      .. "min_growth, strict", refused({ ["leak.steady-growth.word"] = "1" }))
    assert.equal(P .. "min_growth\" of pattern.polling: field 'params.min_growth': expected at most 50, got 51",
      refused({ min_growth = "51" }))
    assert.equal(P .. "min_growth\" of leak.steady-growth: field 'params.min_growth': expected number, got "
      .. "'much'", refused({ min_growth = "much" }))
    assert.equal(P .. "min_growth\" of leak.steady-growth: field 'params.min_growth': expected a finite "
      .. "number, got nan", (refused({ min_growth = "nan" }):gsub("%-nan", "nan")))
    assert.equal(P .. "strict\" of leak.steady-growth: field 'params.strict': expected true or false, got "
      .. "'maybe'", refused({ strict = "maybe" }))
    assert.equal(P .. "word\" of pattern.polling: field 'params.word': expected string, got table",
      refused({ word = {} }))
    assert.equal(P .. "pattern.plain.x\" of pattern.plain: unknown field 'params.x'; known: none",
      refused({ ["pattern.plain.x"] = "1" }))
  end)
end)

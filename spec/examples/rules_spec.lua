--- The rules under examples/rules, as their readers would try them.
require("spec.support")
local rule = require("lupe.rule")
local sandbox = require("lupe.sandbox")
local support = require("spec.support")
local view = require("lupe.view")

local MIB = 2 ^ 20

local function run(name, described, params)
  local path = "examples/rules/" .. name .. ".lua"
  local source = assert(support.read_file(support.root .. "/" .. path))
  local loaded = assert(rule.load(path, source, sandbox.new(function() end)))
  return rule.run(path, loaded, view.from_table(described), params).findings
end

describe("the example rule one_holder", function()
  local program = {
    sample_period_bytes = 65536,
    sites = { { name = "cache", history = { 6 * MIB } }, { name = "parse", history = { 4 * MIB } } },
  }

  it("names the function that holds most, and how much that is", function()
    local findings = run("one_holder", program)
    assert.equal(1, #findings)
    assert.equal("cache holds 60 % of the heap", findings[1].summary)
    assert.equal("cache", findings[1].site.name)
  end)

  it("says nothing where no function holds as much as its parameter asks for", function()
    assert.same({}, run("one_holder", program, { share = 0.7 }))
    assert.same({}, run("one_holder", {}))
  end)
end)

local example = require("spec.examples.example_rule")

local MIB = 2 ^ 20

describe("the example rule one_holder", function()
  local program = {
    sample_period_bytes = 65536,
    sites = { { name = "cache", history = { 6 * MIB } }, { name = "parse", history = { 4 * MIB } } },
  }

  it("names the function that holds most, and how much that is", function()
    local findings = example.run("one_holder", program).findings
    assert.equal(1, #findings)
    assert.equal("cache holds 60 % of the heap", findings[1].summary)
    assert.equal("cache", findings[1].site.name)
  end)

  it("says nothing where no function holds as much as its parameter asks for", function()
    assert.same({}, example.summaries("one_holder", program, { share = 0.7 }))
    assert.same({}, example.summaries("one_holder", {}))
  end)
end)

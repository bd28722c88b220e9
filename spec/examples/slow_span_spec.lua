local example = require("spec.examples.example_rule")

describe("the example rule slow_span", function()
  --- So many requests, of which the given share takes a second, the others 10 ms.
  local function program(count, slow_share)
    local durations = {}
    for i = 1, count do durations[i] = i <= slow_share * count and 1000 or 10 end
    return {
      profile = { from_ms = 0, to_ms = 10000, samples = {} },
      spans = { { name = "request", durations_ms = durations } },
    }
  end

  it("tells how long the slowest twentieth takes where that is more than promised", function()
    local findings = example.run("slow_span", program(1000, 0.1)).findings
    assert.equal(1, #findings)
    assert.matches("^One of 20 requests takes longer than %d+ ms; promised are 100 ms$", findings[1].summary)
    assert.same({ 1000, 1000 }, { findings[1].evidence.max_ms, findings[1].evidence.count })
    assert.is_true(findings[1].evidence.p50_ms < 13)
  end)

  it("says nothing where fewer than a twentieth are slow", function()
    assert.same({}, example.summaries("slow_span", program(1000, 0.04)))
  end)

  it("takes any promise that it declares, and knows no time to ask for where the window has none", function()
    local finding = example.run("slow_span", program(1000, 0), { p95 = 0 }).findings[1]
    assert.matches("promised are 0 ms$", finding.summary)
    local instant = program(50, 0.5)
    instant.profile.to_ms = instant.profile.from_ms
    local answer = example.run("slow_span", instant)
    assert.same({ "ok", {} }, { answer.status, answer.findings })
  end)

  it("asks for more time where there are too few, and says nothing of spans that there are not", function()
    local answer = example.run("slow_span", program(50, 0.5))
    assert.same({ "insufficient_data", 20, {} }, { answer.status, answer.needed_seconds, answer.findings })
    assert.same({}, example.summaries("slow_span", program(1000, 0.5), { span = "flush" }))
    assert.same({}, example.summaries("slow_span", {}))
  end)
end)

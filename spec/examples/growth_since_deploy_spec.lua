local example = require("spec.examples.example_rule")

local MIB = 2 ^ 20

describe("the example rule growth_since_deploy", function()
  it("compares with the snapshot from before, where there is one", function()
    local deployed = {
      sample_period_bytes = 65536,
      sites = {
        { name = "session", inuse_space = 60 * MIB }, { name = "cache", inuse_space = 101 * MIB },
        { name = "new_index", inuse_space = 20 * MIB }, { name = "small", inuse_space = MIB },
      },
      base = {
        sample_period_bytes = 65536,
        sites = { { name = "session", inuse_space = 40 * MIB }, { name = "cache", inuse_space = 100 * MIB } },
      },
    }
    local findings = example.run("growth_since_deploy", deployed).findings
    assert.equal(2, #findings)
    local told = { findings[1].summary, findings[2].summary }
    table.sort(told)
    assert.same({
      "new_index holds 20.0 MiB more than before the deploy (0 B)",
      "session holds 20.0 MiB more than before the deploy (40.0 MiB)",
    }, told)
  end)

  it("does not take the sampling error for growth", function()
    local function grown_by(mib)
      return {
        sample_period_bytes = 4 * MIB, sites = { { name = "cache", inuse_space = (100 + mib) * MIB } },
        base = { sample_period_bytes = 4 * MIB, sites = { { name = "cache", inuse_space = 100 * MIB } } },
      }
    end
    assert.same({}, example.summaries("growth_since_deploy", grown_by(20)))
    assert.equal(1, #example.summaries("growth_since_deploy", grown_by(80)))
  end)

  it("goes by what was there some minutes after the start, where there is no such snapshot", function()
    local growing, filled = {}, {}
    for minute = 1, 30 do growing[minute], filled[minute] = minute * MIB, math.min(minute, 8) * 10 * MIB end
    local program = {
      sample_period_bytes = 65536, interval_ms = 60000,
      sites = { { name = "session", history = growing }, { name = "cache", history = filled } },
    }
    local told = { "session holds 20.0 MiB more than 20 min 0 s ago (10.0 MiB)" }
    assert.same(told, example.summaries("growth_since_deploy", program))
    assert.same({}, example.summaries("growth_since_deploy", program, { min_growth = 21 }))
    assert.equal(2, #example.summaries("growth_since_deploy", program, { settled_after = 1 }))
    assert.same({}, example.summaries("growth_since_deploy", program, { settled_after = 29 }))
  end)
end)

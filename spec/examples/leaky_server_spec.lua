--- The program that `./dev demo` shows: its report must name the leak and leave the cache and the pool alone.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

describe("the demo's leaky server", function()
  teardown(support.cleanup)

  it("is reported with its leaking function, and neither its bounded cache nor its pool", function()
    local run = lupe_run.start({ support.built("examples/leaky_server"), "--self-drive", 20 },
      { flags = { "--sample-bytes", "64K", "--heap-interval", "1" } })
    local report, code = run:finish(nil, 60)
    assert.equal(0, code)
    assert.equal("ok", report.status)
    local leaks = {}
    for i, leak in ipairs(report.potential_leaks) do leaks[i] = leak.component end
    assert.same({ "remember_session" }, leaks)
    local leak = report.potential_leaks[1]
    assert.is_true(leak.confidence > 0.5)
    assert.is_true(leak.growth_rate_mb_per_hour > 500)
    assert.matches("remember_session", report.recommendations[1])
    local sites = {}
    for _, site in ipairs(report.allocators) do sites[site.name] = true end
    assert.is_true(sites.cache_page and sites.grow_pool)
  end)
end)

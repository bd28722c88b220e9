--- The example of a pool of workers: its spans, and its memory by tags.
local support = require("spec.support")

describe("the example pool of workers", function()
  teardown(support.cleanup)

  it("is told what its jobs take, and which tenant holds its memory", function()
    local done = support.run({ support.built("examples/worker_pool"), 8 },
      { env = { LUPE_LISTEN = "127.0.0.1:" .. support.free_port(), LUPE_HEAP_INTERVAL_SECS = 0.2 }, seconds = 60 })
    assert.equal(0, done.code, done.err)
    assert.equal("", done.err)
    for _, kind in ipairs({ "render", "index" }) do
      local count, p95 = ("\n" .. done.out):match("\n" .. kind .. ": (%d+) jobs, 19 of 20 within (%S+) ms\n")
      assert.truthy(count, done.out)
      assert.is_true(tonumber(count) > 50 and tonumber(p95) > 0, done.out)
    end
    local mib = {}
    for name, value in ("\n" .. done.out):gmatch("\n(html::cache[%a ]*): (%S+) MiB") do mib[name] = tonumber(value) end
    assert.is_true(mib["html::cache"] > 3, done.out)
    assert.is_true(mib["html::cache for globex"] > 0.5 * mib["html::cache"], done.out)
    assert.is_true(mib["html::cache for acme"] < mib["html::cache for globex"], done.out)
  end)
end)

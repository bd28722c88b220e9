local support = require("spec.support")
local snapshots = require("spec.support_snapshot")

local PERIOD = 8192

--- What jemalloc's sampler gives of so many objects of one size: mean and variance of bytes and objects.
local function expectation(groups)
  local e = { bytes = 0, objects = 0, bytes_variance = 0, objects_variance = 0 }
  for _, g in ipairs(groups) do
    local seen = 1 - math.exp(-g.size / PERIOD)
    local spread = g.count * (1 - seen) / seen
    e.bytes = e.bytes + g.count * g.size
    e.objects = e.objects + g.count
    e.bytes_variance = e.bytes_variance + spread * g.size ^ 2
    e.objects_variance = e.objects_variance + spread
  end
  return e
end

describe("a heap of which every byte is known", function()
  after_each(support.cleanup)

  it("is found again, site by site, within five standard deviations of what sampling allows", function()
    local dump = support.temp_dir() .. "/known.heap"
    local program = support.run({ support.fixture("known_heap"), dump },
      { env = { MALLOC_CONF = "prof:true,lg_prof_sample:13" } })
    assert.are.equal(0, program.code, program.err)
    local truth, count = {}, 0
    for site, size, live in program.out:gmatch("(site_%S+) (%d+) (%d+)") do
      if not truth[site] then count = count + 1 end
      truth[site] = truth[site] or {}
      table.insert(truth[site], { size = tonumber(size), count = tonumber(live) })
    end
    assert.are.equal(7, count)

    local run = snapshots.run()
    run:set_wrappers { { "module", "libjemalloc" } }
    run:ingest(run:add(), assert(support.read_file(dump)))
    local built = run:snapshot()
    assert.are.equal(PERIOD, tonumber(built.header.sample_period_bytes))
    local sites = snapshots.sites(built.header)
    for name, groups in pairs(truth) do
      local e, found = expectation(groups), sites[name] or { inuse_space = 0, inuse_objects = 0 }
      local bytes_error = math.abs(found.inuse_space - e.bytes)
      -- objects of mixed sizes are corrected by their mean: that costs up to 4 %
      local objects_error = math.abs(found.inuse_objects - e.objects)
      assert.is_true(bytes_error <= 5 * math.sqrt(e.bytes_variance) + 0.01 * e.bytes,
        ("%s: %.0f bytes, found %.0f"):format(name, e.bytes, found.inuse_space))
      assert.is_true(objects_error <= 5 * math.sqrt(e.objects_variance) + 0.04 * e.objects,
        ("%s: %d objects, found %.0f"):format(name, e.objects, found.inuse_objects))
      assert.is_true(5 * math.sqrt(e.bytes_variance) <= 0.25 * e.bytes) -- or the test would prove little
    end
  end)
end)

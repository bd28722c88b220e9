--- What profiling adds to malloc and free, against jemalloc's own profiler in the same rounds.
local harness = require("bench.harness")

local ROUNDS, PAIRS = 15, 8000000       -- pairs per thread; there are two
local SAMPLED_ROUNDS, SAMPLED = 7, 20000 -- allocations that are all sampled
local PAIRS_CONF = "prof:true,prof_active:true,lg_prof_sample:19"
local SAMPLED_CONF = "prof:true,prof_active:true,lg_prof_sample:12"

local function preloaded(argv, conf)
  return harness.measure(argv, { LD_PRELOAD = harness.JEMALLOC, MALLOC_CONF = conf or false })
end

-- Runs each of `ways` once a round, in an order that moves on by one; returns name -> list of results.
local function interleave(rounds, ways)
  local results = {}
  for _, way in ipairs(ways) do results[way.name] = {} end
  for round = 1, rounds do
    for i = 1, #ways do
      local way = ways[(round + i) % #ways + 1]
      table.insert(results[way.name], way.run())
    end
  end
  return results
end

local function least(results, field)
  local values = {}
  for i, result in ipairs(results) do values[i] = result[field] end
  return harness.minimum(values)
end

local function pairs_rows(rows, details)
  local argv = { harness.program("malloc_pairs"), harness.scaled(PAIRS, 100000) }
  local results = interleave(harness.scaled(ROUNDS, 2), {
    { name = "bare", run = function() return preloaded(argv) end },
    { name = "stock", run = function() return preloaded(argv, PAIRS_CONF) end },
    { name = "lupe_512k",
      run = function() return harness.measure_under_lupe(argv, { "--sample-bytes", 512 * 1024 }) end },
    { name = "lupe_128k",
      run = function() return harness.measure_under_lupe(argv, { "--sample-bytes", 128 * 1024 }) end },
  })
  local cpu, ns = {}, {}
  for name, list in pairs(results) do
    cpu[name], ns[name] = least(list, "cpu_s"), least(list, "cpu_ns_per_pair")
  end
  local added = (cpu.lupe_512k - cpu.bare) / (cpu.stock - cpu.bare)
  rows[#rows + 1] = harness.row("malloc+free, 512 KiB: CPU added by lupe / by stock", added, "<=", 0.6)
  rows[#rows + 1] = harness.row("malloc+free: lupe at 128 KiB / stock at 512 KiB, whole CPU time",
    cpu.lupe_128k / cpu.stock, "<=", 1.05)
  details.pairs = { rounds = #results.bare, least_cpu_s = cpu, least_cpu_ns_per_pair = ns, runs = results }
end

local function sampled_rows(rows, details)
  local argv = { harness.program("sampled_allocation"), harness.scaled(SAMPLED, 1000) }
  local without = { argv[1], argv[2], "null" }
  local results = interleave(harness.scaled(SAMPLED_ROUNDS, 2), {
    { name = "bare", run = function() return preloaded(argv) end },
    { name = "stock", run = function() return preloaded(argv, SAMPLED_CONF) end },
    { name = "null", run = function() return preloaded(without, SAMPLED_CONF) end },
    { name = "lupe", run = function() return harness.measure_under_lupe(argv, { "--sample-bytes", 4096 }) end },
  })
  local ns = {}
  for name, list in pairs(results) do ns[name] = least(list, "ns_per_allocation") end
  rows[#rows + 1] = harness.row("sampled allocation, 28 frames: stock / lupe", ns.stock / ns.lupe, ">=", 8)
  -- jemalloc's own work for a sample is in both sides of that; no unwinder can save it.
  rows[#rows + 1] = harness.row("the same, beyond what jemalloc itself does for a sample",
    (ns.stock - ns.null) / (ns.lupe - ns.null), ">=", 8)
  details.sampled = { least_ns_per_allocation = ns, runs = results }
end

return {
  title = "cost of an allocation, with and without profiling",
  run = function()
    local rows, details = {}, {}
    pairs_rows(rows, details)
    sampled_rows(rows, details)
    return rows, details
  end,
}

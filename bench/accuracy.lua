--- How close the sampled sites come to what jemalloc says is allocated, on redis with 200 MB.
local harness = require("bench.harness")
local support = require("spec.support")

local DATA_MB = 200

local function measure(period)
  local redis = harness.start_redis({ "--sample-bytes", period })
  redis:fill(DATA_MB * harness.MIB)
  local filled = redis.lupe:get("/api/profiling/allocations").timestamp
  support.sleep(2) -- a profile that began before the fill ended is over by then
  local answer = support.eventually(function()
    local a = redis.lupe:get("/api/profiling/allocations")
    return a.profile_time ~= harness.json.null and a.profile_time > filled and a
  end, 60, "a heap profile of the filled redis")
  local own = tonumber(redis:command("INFO memory"):match("allocator_allocated:(%d+)"))
  redis:stop()
  return { period = period, sites_bytes = answer.profiled_bytes, allocated_bytes = answer.allocated_bytes,
    redis_allocator_allocated = own }
end

return {
  title = "sum of the sampled sites against stats.allocated, redis with 200 MB",
  run = function()
    local coarse, fine = measure(512 * 1024), measure(64 * 1024)
    local function apart(m) return math.abs(m.sites_bytes - m.allocated_bytes) end
    local bound = 3 * math.sqrt(coarse.period * coarse.allocated_bytes) / harness.MIB
    return {
      harness.row("512 KiB: sites against allocated, apart by", apart(coarse) / harness.MIB, "<=",
        math.floor(bound * 100) / 100, "MiB"),
      harness.row("64 KiB: sites against allocated, apart by", 100 * apart(fine) / fine.allocated_bytes, "<=", 5, "%"),
    }, { coarse = coarse, fine = fine }
  end,
}

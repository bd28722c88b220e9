--- Memory that profiling takes: in the profiled process, and in lupe itself.
local harness = require("bench.harness")
local support = require("spec.support")

local ROUNDS, DATA_MB, ADDED_MB, REDIS_MB, STACKS_MB = 3, 100, 6, 24, 40
local STACKS, SETTLE_SECONDS = 10000, 8

local function settled(read)
  -- A few heap profiles come and go in this time: what they need at their peak is part of the figure.
  local most, deadline = 0, support.now() + SETTLE_SECONDS * math.max(0.3, harness.scale)
  while support.now() < deadline do
    most = math.max(most, read())
    support.sleep(0.05)
  end
  return most
end

local function redis_rss(flags, own)
  local redis = harness.start_redis(flags)
  redis:fill(DATA_MB * harness.MIB)
  local rss = settled(function() return harness.rss_bytes(redis.pid) end)
  if flags then
    local pids = redis.lupe:pids()
    own.runtime = harness.rss_bytes(pids.runtime)
    own.worker_pss = pids.worker and harness.pss_bytes(pids.worker) or 0
  end
  redis:stop()
  return rss
end

local function with_stacks()
  local lupe = harness.start_under_lupe({ harness.program("many_stacks"), STACKS, 3600 },
    { "--sample-bytes", 4096 })
  lupe:await_profile()
  local pids = lupe:pids()
  local own = { runtime = settled(function() return harness.rss_bytes(pids.runtime) end) }
  own.worker_pss = pids.worker and harness.pss_bytes(pids.worker) or 0
  lupe:stop()
  return own
end

return {
  title = "memory that profiling takes",
  run = function()
    local bare, under, own = {}, {}, {}
    for round = 1, harness.scaled(ROUNDS, 1) do
      bare[round] = redis_rss()
      under[round] = redis_rss({}, own)
    end
    local stacks = with_stacks()
    local mib = harness.MIB
    return {
      harness.row(("RSS added to redis with %d MB of data"):format(DATA_MB),
        (harness.median(under) - harness.median(bare)) / mib, "<=", ADDED_MB, "MiB"),
      harness.row("RSS of lupe's runtime, profiling redis", own.runtime / mib, "<=", REDIS_MB, "MiB"),
      harness.row("the same, and its rules worker's share", (own.runtime + own.worker_pss) / mib, "<=",
        REDIS_MB, "MiB"),
      harness.row("RSS of lupe's runtime, 10,000 stacks", stacks.runtime / mib, "<=", STACKS_MB, "MiB"),
      harness.row("the same, and its rules worker's share", (stacks.runtime + stacks.worker_pss) / mib, "<=",
        STACKS_MB, "MiB"),
    }, { redis_rss_bytes = { bare = bare, lupe = under }, own_bytes = { redis = own, stacks = stacks } }
  end,
}

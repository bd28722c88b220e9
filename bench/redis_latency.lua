--- What clients of redis feel: latency at half of its capacity, bare, under lupe, and bare again.
local harness = require("bench.harness")

local ROUNDS, SECONDS, WARM_UP_SECONDS = 8, 8, 1
local QUANTILES = { "p50_us", "p95_us", "p99_us" }
local ASKED = 1.02

local function load_once(flags, rate, seconds)
  local redis = harness.start_redis(flags)
  redis:load(rate, WARM_UP_SECONDS)
  local result = redis:load(rate, seconds)
  redis:stop()
  return result
end

return {
  title = "latency of redis, 8 clients at half of its capacity",
  run = function()
    local seconds = math.max(1, SECONDS * harness.scale)
    local capacity = load_once(nil, 0, seconds).requests_per_second
    local rate = math.floor(capacity / 2)
    local rounds = {}
    for round = 1, harness.scaled(ROUNDS, 2) do
      -- The one under lupe is now the first, now the second, now the last of the three.
      local order, result = { "bare", "lupe", "again" }, {}
      for i = 1, 3 do
        local who = order[(round + i) % 3 + 1]
        result[who] = load_once(who == "lupe" and {} or nil, rate, seconds)
      end
      rounds[round] = result
    end
    local rows = {}
    for _, quantile in ipairs(QUANTILES) do
      local ratios, noise = {}, {}
      for i, result in ipairs(rounds) do
        local bare, again = result.bare[quantile], result.again[quantile]
        ratios[i], noise[i] = result.lupe[quantile] / ((bare + again) / 2), again / bare
      end
      rows[#rows + 1] = harness.row_within_noise(("redis %s, lupe / bare"):format(quantile:sub(1, 3)), ratios,
        noise, ASKED)
    end
    return rows, { capacity_per_s = capacity, paced_per_s = rate, rounds = rounds }
  end,
}

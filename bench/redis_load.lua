--- redis at full load by redis-benchmark: how much it gets done, and how much CPU time it takes for that.
local harness = require("bench.harness")
local support = require("spec.support")

local ROUNDS, REQUESTS, ASKED = 8, 600000, 1.02

local function run_once(flags, requests)
  local redis = harness.start_redis(flags)
  local before, started = harness.cpu_seconds(redis.pid), support.now()
  local ended = support.run({
    "redis-benchmark", "-p", redis.port, "-c", "8", "-n", requests, "-r", "100000", "-d", "100", "-t", "set,lpush",
    "--csv",
  }, { seconds = 600 })
  local elapsed, cpu = support.now() - started, harness.cpu_seconds(redis.pid) - before
  redis:stop()
  if ended.code ~= 0 then error("redis-benchmark: " .. ended.err) end
  return { cpu_s = cpu, requests_per_second = 2 * requests / elapsed }
end

return {
  title = "redis-benchmark set and lpush, 8 clients, full load",
  run = function()
    local requests = harness.scaled(REQUESTS, 20000)
    local rounds, cpu, throughput, noise = {}, {}, {}, {}
    local least = { bare = math.huge, lupe = math.huge, again = math.huge }
    for round = 1, harness.scaled(ROUNDS, 2) do
      local order, result = { "bare", "lupe", "again" }, {}
      for i = 1, 3 do
        local who = order[(round + i) % 3 + 1]
        result[who] = run_once(who == "lupe" and {} or nil, requests)
        least[who] = math.min(least[who], result[who].cpu_s)
      end
      local bare = (result.bare.requests_per_second + result.again.requests_per_second) / 2
      throughput[round] = bare / result.lupe.requests_per_second
      noise[round] = result.bare.requests_per_second / result.again.requests_per_second
      cpu[round] = 2 * result.lupe.cpu_s / (result.bare.cpu_s + result.again.cpu_s)
      rounds[round] = result
    end
    return {
      harness.row_within_noise("redis throughput at full load, bare / lupe", throughput, noise, ASKED),
      harness.row("redis CPU seconds, lupe / bare (medians of the rounds)", harness.median(cpu), "<=", ASKED),
    }, { requests = 2 * requests, rounds = rounds, least_cpu_s = least, least_ratio = least.lupe
      / math.min(least.bare, least.again) }
  end,
}

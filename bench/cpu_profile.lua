--- Whether the CPU profile is true: its total against getrusage, and shares that are known.
local harness = require("bench.harness")
local support = require("spec.support")

local TOTAL_SECONDS, TOTAL_HZ, SHARES_SECONDS, SHARES_HZ = 10, 99, 60, 250
local APART_PERCENT, SIGMAS = 5, 3
local THREADS = { 1, 2, 4, 8 }

--- The JSON object that a program prints, and goes on.
local function printed(lupe, pattern, seconds)
  return support.eventually(function()
    local text = lupe.process:stdout():match(pattern)
    return text and support.json.decode(text)
  end, seconds, "the program's figures")
end

local function total_of(threads, seconds)
  local lupe = harness.start_under_lupe({ harness.program("busy_threads"), threads, 0, seconds },
    { "--allocator", "system", "--cpu-hz", TOTAL_HZ })
  local truth = printed(lupe, '{"cpu_s".-}', seconds + 60)
  local sampled
  -- The last samples are on their way for up to a second.
  support.eventually(function()
    local before = sampled
    sampled = lupe:metrics().lupe_cpu_samples_total
    support.sleep(0.5)
    return sampled == before
  end, 20, "the samples to come to an end")
  lupe:stop()
  return { threads = threads, samples = sampled, cpu_s = truth.cpu_s, sampled_s = sampled / TOTAL_HZ }
end

local function shares(seconds)
  local lupe = harness.start_under_lupe({ harness.program("known_shares"), seconds },
    { "--allocator", "system", "--cpu-hz", SHARES_HZ })
  local truth = printed(lupe, '{"share_30".-}', seconds + 60)
  support.sleep(2)
  local answer = lupe:get(("/api/profiling/bottlenecks?window=%d&limit=20"):format(seconds + 30))
  lupe:stop()
  local all, found = 0, {}
  for _, ns in pairs(truth) do all = all + ns end
  for _, hotspot in ipairs(answer.hotspots) do found[hotspot.function_name] = hotspot.cpu_time_percent end
  local samples = answer.cpu_seconds * SHARES_HZ
  local worst, missing, functions = 0, 0, {}
  for name, ns in pairs(truth) do
    local share = ns / all
    local measured = found[name] and found[name] / 100
    if not measured then
      missing = missing + 1
    else
      worst = math.max(worst, math.abs(measured - share) / math.sqrt(share * (1 - share) / samples))
    end
    functions[name] = { share = share, measured = measured }
  end
  return { worst = worst, missing = missing, samples = samples, functions = functions }
end

return {
  title = "the CPU profile beside what is known",
  run = function()
    local totals, worst = {}, 0
    for i, threads in ipairs(THREADS) do
      totals[i] = total_of(threads, math.max(2, TOTAL_SECONDS * harness.scale))
      worst = math.max(worst, 100 * math.abs(totals[i].sampled_s / totals[i].cpu_s - 1))
    end
    local known = shares(harness.scaled(SHARES_SECONDS, 10))
    return {
      harness.row("profile total and getrusage, 1 to 8 threads: apart by at most", worst, "<=", APART_PERCENT, "%"),
      harness.row("ten known shares, 250 Hz: the one farthest off", known.worst, "<=", SIGMAS, "sigma"),
      harness.row("ten known shares: functions not found", known.missing, "<=", 0),
    }, { totals = totals, shares = known }
  end,
}

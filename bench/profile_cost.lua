--- What CPU and wall profiles cost: all of lupe's own CPU time, and what the program itself takes longer.
local harness = require("bench.harness")
local support = require("spec.support")

local SECONDS, SETTLE_SECONDS, ROUNDS, TURNS = 20, 15, 9, 400000000
local ASKED_PERCENT, ASKED_RATIO = 0.5, 1.005
-- Sixteen threads: two that use both cores, and fourteen that wait.
local BUSY, WAITING = 2, 14
local HANDLER = 'lupe_profiler_cpu_seconds_total{part="handler"}'

local function agent_cpu_seconds(pid)
  local pipe = assert(io.popen(("grep -l lupe-agent /proc/%d/task/*/comm"):format(pid)))
  local sum = 0
  for path in pipe:lines() do
    sum = sum + tonumber(support.read_file((path:gsub("comm$", "schedstat"))):match("^%d+")) / 1e9
  end
  pipe:close()
  return sum
end

--- Everything that runs on lupe's account in a steady state, per second.
local function accounts(seconds)
  local per_signal_ns = harness.measure({ harness.program("signal_cost") }).ns_per_signal
  local lupe = harness.start_under_lupe({ harness.program("busy_threads"), BUSY, WAITING, 3600 })
  lupe:await_profile()
  support.sleep(SETTLE_SECONDS * math.min(1, harness.scale)) -- rules are loaded, and names looked for, once
  local pids = lupe:pids()
  local function read()
    local metrics = lupe:metrics()
    return {
      runtime = harness.precise_cpu_seconds(pids.runtime),
      worker = pids.worker and harness.precise_cpu_seconds(pids.worker) or 0,
      agent = agent_cpu_seconds(pids.program), handler = metrics[HANDLER],
      samples = metrics.lupe_cpu_samples_total, program = harness.precise_cpu_seconds(pids.program),
      at = support.now(),
    }
  end
  local before = read()
  support.sleep(seconds)
  local after, spent = read(), {}
  lupe:stop()
  for name, value in pairs(after) do spent[name] = value - before[name] end
  spent.delivery = spent.samples * per_signal_ns / 1e9
  spent.per_signal_ns = per_signal_ns
  spent.sum = spent.runtime + spent.worker + spent.agent + spent.handler + spent.delivery
  spent.percent = 100 * spent.sum / math.max(spent.program, spent.at)
  return spent
end

return {
  title = "what CPU and wall profiles cost, 16 threads",
  run = function()
    local spent = accounts(math.max(5, SECONDS * harness.scale))
    local words = { harness.program("busy_threads"), BUSY, WAITING, 0, harness.scaled(TURNS, 10000000) }
    local ratios, noise, rounds = {}, {}, {}
    for i = 1, harness.scaled(ROUNDS, 2) do
      local bare = harness.measure(words).precise_cpu_s
      local lupe = harness.measure_under_lupe(words).precise_cpu_s
      local again = harness.measure(words).precise_cpu_s
      ratios[i], noise[i] = 2 * lupe / (bare + again), again / bare
      rounds[i] = { bare = bare, lupe = lupe, again = again }
    end
    return {
      harness.row("everything on, 99 Hz and 20 Hz: of max(the process's CPU, a core)", spent.percent, "<=",
        ASKED_PERCENT, "%"),
      harness.row_within_noise("the program's own CPU time, lupe / bare", ratios, noise, ASKED_RATIO),
    }, { spent = spent, rounds = rounds }
  end,
}

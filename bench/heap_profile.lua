--- What one heap profile costs: jemalloc's dump, and everything that lupe then does with it.
-- The runtime's part is CPU time by the kernel's own account, read without asking lupe anything in
-- between; it holds parsing, symbolizing, the snapshot, and whatever else the runtime does meanwhile.
local harness = require("bench.harness")
local support = require("spec.support")

local SIZES = {
  { stacks = 1000, asked_ms = 15 }, { stacks = 10000, asked_ms = 120 }, { stacks = 50000, asked_ms = 800 },
}
local INTERVAL_SECONDS = 4    -- between two profiles, unless the budget asks for more
local LATER_PROFILES = 3
local PATIENCE_SECONDS = 300  -- for those later ones
local STALL_MS = 10           -- a loop that is held longer than this was held by a profile

local function runtime_cpu_ms(lupe)
  return harness.precise_cpu_seconds(lupe.process.pid) * 1000
end

local function profiles(lupe)
  local metrics = lupe:metrics()
  return metrics.lupe_heap_profiles_total, metrics.lupe_heap_profile_seconds_total * 1000
end

-- The first profile names every function; it is due INTERVAL_SECONDS after the start.
local function first_profile(lupe, ready_at)
  local before = runtime_cpu_ms(lupe)
  support.sleep(math.max(0, ready_at + 1.8 * INTERVAL_SECONDS - support.now()))
  local after = runtime_cpu_ms(lupe)
  local count, dump_ms = profiles(lupe)
  if count ~= 1 then error(("%d profiles where one was expected: choose another interval"):format(count)) end
  return { dump_ms = dump_ms, runtime_ms = after - before, total_ms = dump_ms + after - before }
end

-- Asks /healthz every few ms until some profiles have gone by: the longest wait is the loop's worst.
local function later_profiles(lupe)
  local first_count, first_dump_ms = profiles(lupe)
  local first_cpu_ms, deadline = runtime_cpu_ms(lupe), support.now() + PATIENCE_SECONDS
  local count, dump_ms, asked, longest, cpu_ms = first_count, first_dump_ms, 0, 0, nil
  -- Quiet: nobody asks, so that the CPU time is the profiles' alone.
  while count < first_count + LATER_PROFILES and support.now() < deadline do
    support.sleep(INTERVAL_SECONDS)
    cpu_ms = runtime_cpu_ms(lupe)
    count, dump_ms = profiles(lupe)
  end
  local taken = count - first_count
  if taken < 1 then error("no later profile came in time") end
  -- And once more with someone who asks.
  deadline = support.now() + PATIENCE_SECONDS
  local until_count = count + 1
  while count < until_count and support.now() < deadline do
    for _ = 1, 200 do
      local started = support.now()
      assert(support.http(lupe.port, "/healthz"))
      longest = math.max(longest, (support.now() - started) * 1000)
      asked = asked + 1
      support.sleep(0.003)
    end
    count = profiles(lupe)
  end
  return {
    profiles = taken, dump_ms = (dump_ms - first_dump_ms) / taken, runtime_ms = (cpu_ms - first_cpu_ms) / taken,
    total_ms = (dump_ms - first_dump_ms + cpu_ms - first_cpu_ms) / taken,
    healthz_asked = asked, healthz_longest_ms = longest,
  }
end

return {
  title = "one heap profile, taken, parsed and symbolized",
  run = function()
    local rows, details = {}, {}
    for _, size in ipairs(SIZES) do
      local lupe = harness.start_under_lupe({ harness.program("many_stacks"), size.stacks, 3600 },
        { "--sample-bytes", 4096, "--heap-interval", INTERVAL_SECONDS })
      local first = first_profile(lupe, support.now())
      local later = later_profiles(lupe)
      lupe:stop()
      local of = ("%d stacks"):format(size.stacks)
      rows[#rows + 1] = harness.row("first heap profile, " .. of, first.total_ms, "<=", size.asked_ms, "ms")
      rows[#rows + 1] = harness.row("later heap profiles, " .. of, later.total_ms, "<=", size.asked_ms, "ms")
      rows[#rows + 1] = harness.row("longest wait for /healthz meanwhile, " .. of, later.healthz_longest_ms, "<=",
        STALL_MS, "ms")
      details[of] = { first = first, later = later }
    end
    return rows, details
  end,
}

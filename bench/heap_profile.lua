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

local function runtime_cpu_ms(lupe)
  return harness.precise_cpu_seconds(lupe.process.pid) * 1000
end

local function profiles(lupe)
  local metrics = lupe:metrics()
  return metrics.lupe_heap_profiles_total, metrics.lupe_heap_profile_seconds_total * 1000
end

-- The first profile names every function; it is due INTERVAL_SECONDS after the start.
local function first_profile(lupe, ready_at)
  local function wait_until(intervals)
    support.sleep(math.max(0, ready_at + intervals * INTERVAL_SECONDS - support.now()))
  end
  wait_until(0.9) -- what the runtime does while nothing happens is not the profile's
  local before = runtime_cpu_ms(lupe)
  wait_until(1.25)
  local after = runtime_cpu_ms(lupe)
  local count, dump_ms = profiles(lupe)
  if count ~= 1 then error(("%d profiles where one was expected: choose another interval"):format(count)) end
  return { dump_ms = dump_ms, runtime_ms = after - before, total_ms = dump_ms + after - before }
end

-- Quiet ones: nobody asks, so that the CPU time is the profiles' alone.
local function later_profiles(lupe)
  local first_count, first_dump_ms = profiles(lupe)
  local deadline = support.now() + PATIENCE_SECONDS
  local count, dump_ms, runtime_ms = first_count, first_dump_ms, 0
  while count < first_count + LATER_PROFILES and support.now() < deadline do
    local cpu_before = runtime_cpu_ms(lupe)
    support.sleep(INTERVAL_SECONDS)
    runtime_ms = runtime_ms + runtime_cpu_ms(lupe) - cpu_before
    count, dump_ms = profiles(lupe)
  end
  local taken = count - first_count
  if taken < 1 then error("no later profile came in time") end
  local dump = (dump_ms - first_dump_ms) / taken
  return {
    profiles = taken, dump_ms = dump, runtime_ms = runtime_ms / taken,
    total_ms = dump + runtime_ms / taken,
  }
end

-- The longest that someone who keeps asking /healthz waits while a profile is taken. On a machine whose
-- cores are all busy that is the scheduler's doing as much as lupe's, so it is told and not judged.
local function longest_wait_ms(lupe)
  local until_count, deadline, longest = profiles(lupe) + 1, support.now() + PATIENCE_SECONDS, 0
  repeat
    for _ = 1, 200 do
      local started = support.now()
      assert(support.http(lupe.port, "/healthz"))
      longest = math.max(longest, (support.now() - started) * 1000)
      support.sleep(0.003)
    end
  until profiles(lupe) >= until_count or support.now() > deadline
  return longest
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
      local wait_ms = longest_wait_ms(lupe)
      lupe:stop()
      local of = ("%d stacks"):format(size.stacks)
      rows[#rows + 1] = harness.row("first heap profile, " .. of, first.total_ms, "<=", size.asked_ms, "ms")
      rows[#rows + 1] = harness.row("later heap profiles, " .. of, later.total_ms, "<=", size.asked_ms, "ms")
      details[of] = { first = first, later = later, longest_healthz_wait_ms = wait_ms }
    end
    return rows, details
  end,
}

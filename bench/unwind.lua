--- What one stack takes: of the own thread, beside libunwind in the same process; and of a thread that waits,
-- seen by the agent's thread.
local harness = require("bench.harness")

local ROUNDS, CAPTURES = 7, 200000
local LOOK_ROUNDS, TICKS = 5, 400

local function least(results, field)
  local values = {}
  for i, result in ipairs(results) do values[i] = result[field] end
  return harness.minimum(values)
end

local function median(results, field)
  local values = {}
  for i, result in ipairs(results) do values[i] = result[field] end
  return harness.median(values)
end

local function repeated(rounds, argv)
  local results = {}
  for i = 1, harness.scaled(rounds, 2) do results[i] = harness.measure(argv) end
  return results
end

local function capture_rows(rows, details)
  local runs = repeated(ROUNDS, { harness.program("unwind_cost"), harness.scaled(CAPTURES, 1000) })
  local frames = runs[1].frames
  rows[#rows + 1] = harness.row("frames of the stack, two thirds of them libc's", frames, ">=", 30)
  rows[#rows + 1] = harness.row("capture, warm: per frame", least(runs, "ns_per_frame"), "<=", 12, "ns")
  rows[#rows + 1] = harness.row("the same / libunwind's unw_backtrace in the same run", median(runs, "ratio"),
    "<=", 1.5)
  rows[#rows + 1] = harness.row("first capture of a new thread",
    median(runs, "first_capture_of_a_thread_ns") / 1000, "<=", 20, "us")
  rows[#rows + 1] = harness.row("memory of the unwinder, 200 threads in all",
    median(runs, "resident_growth_bytes") / harness.MIB, "<=", 4, "MiB")
  details.capture = {
    frames = frames, least_ns_per_frame = least(runs, "ns_per_frame"),
    least_libunwind_ns_per_frame = least(runs, "libunwind_ns_per_frame"),
    libunwind_first_capture_of_a_thread_us = median(runs, "libunwind_first_capture_of_a_thread_ns") / 1000,
    libunwind_memory_mib = median(runs, "libunwind_resident_growth_bytes") / harness.MIB, runs = runs,
  }
end

local function look_rows(rows, details)
  local runs = repeated(LOOK_ROUNDS, { harness.program("wall_cost"), harness.scaled(TICKS, 50) })
  rows[#rows + 1] = harness.row("looks at 16 threads that stand still, 20 a second: share of a core",
    least(runs, "standing_share_of_a_core"), "<=", 0.001)
  details.looks = {
    standing_ns_per_look = least(runs, "standing_ns_per_look"),
    moving_ns_per_look = least(runs, "moving_ns_per_look"),
    moving_share_of_a_core = least(runs, "moving_share_of_a_core"), runs = runs,
  }
end

return {
  title = "cost of a stack, own or another thread's",
  run = function()
    local rows, details = {}, {}
    capture_rows(rows, details)
    look_rows(rows, details)
    return rows, details
  end,
}

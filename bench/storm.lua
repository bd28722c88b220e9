--- A storm in the process: libraries, exceptions, allocations, forks and threads at once, timers at the highest rate.
local harness = require("bench.harness")
local support = require("spec.support")

local SECONDS, THREADS, HZ, WALL_HZ, SAMPLE_BYTES = 60, 16, 1000, 100, 4096

return {
  title = "a storm of everything at once, sampled at the highest rates",
  run = function()
    local seconds = harness.scaled(SECONDS, 10)
    local storm = { support.fixture("storm"), seconds, THREADS, support.built("spec/unwind_plugin.so") }
    local flags = { "--cpu-hz", HZ, "--wall-hz", WALL_HZ, "--sample-bytes", SAMPLE_BYTES }
    local ended = support.run(harness.lupe_words(support.free_port(), flags, storm), { seconds = seconds + 120 })
    local done = {}
    for name, count in ended.out:gmatch("(%a+) (%d+)") do done[name] = tonumber(count) end
    if not done.failures then
      error(("the storm ended with %s: %s"):format(tostring(ended.code or ended.signal), ended.err))
    end
    return {
      harness.row(("storm of %d s, 16 threads: exit code"):format(seconds), ended.code or 255, "<=", 0),
      harness.row("children lost, libraries not loaded", done.failures, "<=", 0),
    }, done
  end,
}

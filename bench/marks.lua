--- What a program pays for its spans and tags: a pair, while lupe runs, beside two readings of the processor's time
-- stamp counter in the same run; and while it does not.
local harness = require("bench.harness")

local ROUNDS, TURNS = 7, 2000

local function median(runs, field)
  local values = {}
  for i, run in ipairs(runs) do values[i] = run[field] end
  return harness.median(values)
end

return {
  title = "cost of a span, and of a tag",
  run = function()
    local argv = { harness.program("marks_cost"), harness.scaled(TURNS, 100) }
    local runs, bare = {}, {}
    for i = 1, harness.scaled(ROUNDS, 2) do
      runs[i] = harness.measure_under_lupe(argv)
      assert(runs[i].counted, "no span was counted")
      bare[i] = harness.measure(argv)
      assert(not bare[i].counted, "spans were counted without lupe")
    end
    return {
      harness.row("a span's begin and end, beyond two rdtsc", median(runs, "span_beyond_ns"), "<=", 10, "ns"),
      harness.row("a tag's enter and leave", median(runs, "tag_ns"), "<=", 10, "ns"),
      harness.row("a span's begin and end, while lupe does not run", median(bare, "span_ns"), "<=", 10, "ns"),
    }, {
      two_rdtsc_ns = median(runs, "two_rdtsc_ns"), span_ns = median(runs, "span_ns"),
      bare_tag_ns = median(bare, "tag_ns"), runs = runs, bare = bare,
    }
  end,
}

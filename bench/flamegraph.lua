--- How long a flame graph of 10,000 stacks takes to draw.
local harness = require("bench.harness")
local columns_of = require("lupe.ffi").snapshot
local flamegraph = require("lupe.flamegraph")
local literal = require("lupe.view_literal")
local many_samples = require("bench.many_samples")

local STACKS, ROUNDS, ASKED_MS = 10000, 9, 100

return {
  title = "flame graphs of many stacks",
  run = function()
    local address, size, owner = literal(many_samples(harness.scaled(STACKS, 1000)))
    local columns = assert(columns_of(address, size))
    local rows, details = {}, {}
    for i, format in ipairs(flamegraph.FORMATS) do
      local times, text = {}, nil
      for round = 1, harness.scaled(ROUNDS, 3) do
        collectgarbage()
        local began = os.clock()
        text = flamegraph.render(columns, { type = "cpu", format = format, title = "bench", subtitle = "" })
        times[round] = (os.clock() - began) * 1000
      end
      rows[i] = harness.row(("flame graph of 10,000 stacks, %s"):format(format), harness.median(times), "<=",
        ASKED_MS, "ms")
      details[format] = { times_ms = times, bytes = #text }
    end
    assert(owner)
    return rows, details
  end,
}

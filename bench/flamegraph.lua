--- How long a flame graph of 10,000 stacks takes to draw.
local harness = require("bench.harness")
local columns_of = require("lupe.ffi").snapshot
local flamegraph = require("lupe.flamegraph")
local literal = require("lupe.view_literal")

local STACKS, ROUNDS, ASKED_MS = 10000, 9, 100
local FUNCTIONS, SHALLOW, DEEP = 3000, 12, 34

--- Stacks that share most of their callers, as those of a program do: each turns off from the one before it.
local function described(stacks)
  local seed = 42
  local function random(n)
    seed = (seed * 1103515245 + 12345) % 2 ^ 31
    return math.floor(seed / 2 ^ 31 * n)
  end
  local samples, path = {}, {}
  for i = 1, stacks do
    local from, depth = 3 + random(#path), SHALLOW + random(DEEP - SHALLOW)
    path[1], path[2] = "main", "event_loop"
    for at = math.min(from, #path + 1), depth do path[at] = ("handle_%d"):format(random(FUNCTIONS)) end
    for at = #path, depth + 1, -1 do path[at] = nil end
    local stack = {}
    for at = #path, 1, -1 do stack[#stack + 1] = path[at] end
    samples[i] = { stack = stack, thread = 1, state = "user", count = 1 + random(20) }
  end
  return { profile = {
    from_ms = 0, to_ms = 60000, cpu_hz = 99, wall_hz = 20, threads = { { tid = 1, name = "main" } }, samples = samples,
  } }
end

return {
  title = "flame graphs of many stacks",
  run = function()
    local address, size, owner = literal(described(harness.scaled(STACKS, 1000)))
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

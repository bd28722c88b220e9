--- Programs that are bound by one thing each, and what lupe says of them.
local harness = require("bench.harness")
local support = require("spec.support")

local KINDS = { "cpu", "io", "lock", "memory" }
local SECONDS, ASKED = 10, 80

local function bound_of(kind, seconds)
  local lupe = harness.start_under_lupe({ harness.program("bound"), kind })
  support.sleep(seconds)
  local answer = lupe:get(("/api/profiling/bottlenecks?window=%d"):format(math.max(1, seconds - 2)))
  lupe:stop()
  local shares, first = {}, KINDS[1]
  for _, name in ipairs(KINDS) do
    shares[name] = answer[name .. "_bound_percent"]
    if shares[name] > shares[first] then first = name end
  end
  return { shares = shares, first = first, hotspot = answer.hotspots[1] and answer.hotspots[1].function_name }
end

return {
  title = "programs bound by one thing",
  run = function()
    local rows, found = {}, {}
    for i, kind in ipairs(KINDS) do
      found[kind] = bound_of(kind, harness.scaled(SECONDS, 5))
      rows[i] = harness.row(("a program bound by %s: share of it (first: %s)"):format(kind, found[kind].first),
        found[kind].shares[kind], ">=", ASKED, "%")
    end
    return rows, found
  end,
}

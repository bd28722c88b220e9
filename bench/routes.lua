--- How long routes take with 1,000 and 10,000 call sites, and 8 clients that ask without a pause.
local harness = require("bench.harness")

local ROUTES = {
  "/healthz", "/readyz", "/api/targets", "/api/rules", "/api/profiling/memory", "/api/profiling/cpu",
  "/api/profiling/bottlenecks", "/api/profiling/allocations", "/api/profiling/snapshot", "/api/findings",
}
local SIZES = { { sites = 1000, asked_ms = 5 }, { sites = 10000, asked_ms = 20 } }
local CLIENTS, SECONDS = 8, 4

return {
  title = "p99 of every JSON GET route, 8 clients",
  run = function()
    local rows, details = {}, {}
    for _, size in ipairs(SIZES) do
      local lupe = harness.start_under_lupe({ harness.program("many_stacks"), size.sites, 3600 },
        { "--sample-bytes", 4096 })
      lupe:await_profile()
      for _, path in ipairs(ROUTES) do
        local result = lupe:load(path, CLIENTS, math.max(0.5, SECONDS * harness.scale))
        if result.not_200 > 0 then error(("%s: %d answers were not a 200"):format(path, result.not_200)) end
        rows[#rows + 1] = harness.row(("p99 of %s, %d sites"):format(path, size.sites), result.p99_us / 1000, "<=",
          size.asked_ms, "ms")
        details[path .. " " .. size.sites] = result
      end
      lupe:stop()
    end
    return rows, details
  end,
}

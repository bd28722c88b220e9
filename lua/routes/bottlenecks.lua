--- GET /api/profiling/bottlenecks: needs CPU samples, which this version does not take.

local problem = require("lupe.problem")
local profiling_route = require("lupe.profiling_route")

return {
  profiling_route({
    method = "GET",
    path = "/api/profiling/bottlenecks",
    summary = "Where CPU and wall time go; needs CPU sampling",
    fields = {},
    any_target = true,
    report = function()
      problem.raise(503, "cpu-sampling-off", "CPU sampling is off: lupe samples allocations only, so it knows no "
        .. "hotspots; /api/profiling/cpu has the process's figures", { title = "CPU sampling is off" })
    end,
  }),
}

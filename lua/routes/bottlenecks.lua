--- GET /api/profiling/bottlenecks: where the time went, on the CPU and off it, in the last seconds.

local bottlenecks = require("lupe.bottlenecks")
local json = require("lupe.json")
local problem = require("lupe.problem")
local profiling_route = require("lupe.profiling_route")
local rule_settings = require("lupe.rule_settings")

return {
  profiling_route({
    method = "GET",
    path = "/api/profiling/bottlenecks",
    summary = "Where CPU and wall time go: hotspots, what bounds the program, what to do",
    params = {
      { name = "window", type = "integer", min = 1, max = 600, default = 60, doc = "seconds of samples, up to now" },
      { name = "limit", type = "integer", min = 1, max = 100, default = 10, doc = "how many hotspots" },
      rule_settings.PARAMETER,
    },
    fields = bottlenecks.FIELDS,
    report = function(request, app)
      local host, params = app.host, request.params
      local began_ms = host.monotonic_ms()
      local view, missing = app.views:profile(params.target, 1000 * params.window)
      if not view then problem.raise(503, "no-profile", missing) end
      local set, wrong = app.analysis:params_of(params, "time")
      if wrong then problem.raise(400, "invalid-parameter", wrong) end
      local result = app.analysis:run(view, { pid = params.target, about = "time", params = set })
      local values = bottlenecks.describe(view, result, { limit = params.limit, seconds = params.window })
      values.analysis_duration_ms = json.round(host.monotonic_ms() - began_ms)
      return values
    end,
  }),
}

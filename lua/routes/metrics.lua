--- GET /metrics: for Prometheus and whatever reads OpenMetrics.

local exposition = require("lupe.exposition")
local metrics = require("lupe.metrics")

return {
  {
    method = "GET",
    path = "/metrics",
    summary = "All figures as OpenMetrics, or in Prometheus' older text format, as the client accepts",
    params = {},
    response = { [exposition.TYPES.prometheus] = "text", [exposition.TYPES.openmetrics] = "text" },
    handler = function(request, app)
      local out = exposition.new(exposition.negotiate(request.headers.accept))
      metrics.write(out, app)
      local text, content_type = out:text()
      return 200, { ["Content-Type"] = content_type, Vary = "Accept" }, text
    end,
  },
}

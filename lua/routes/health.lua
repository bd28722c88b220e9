--- GET /healthz: lupe itself works. GET /readyz: and a process is being profiled.

local json = require("lupe.json")
local problem = require("lupe.problem")

local SHAPE = json.shape({ "status string" })

return {
  {
    method = "GET", path = "/healthz", tag = "health", summary = "lupe answers", params = {}, rate = false,
    response = SHAPE,
    handler = function() return 200, {}, SHAPE({ status = "ok" }) end,
  },
  {
    method = "GET", path = "/readyz", tag = "health", summary = "a process is connected and profiled", params = {},
    rate = false, response = SHAPE, problems = { 503 },
    handler = function(_, app)
      if not app.config.enable_profiling then
        problem.raise(503, "profiling-off", "profiling is switched off (ENABLE_PROFILING=false)")
      end
      for _, target in ipairs(app.host.targets()) do
        if target.live and target.connected then return 200, {}, SHAPE({ status = "ready" }) end
      end
      problem.raise(503, "no-target", "no live process has connected")
    end,
  },
}

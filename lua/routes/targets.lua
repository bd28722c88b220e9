--- GET /api/targets: the processes of the run, dead ones included.
-- `program_pid` is the process that its program began with; `report` the last report of one that ended.

local json = require("lupe.json")
local targets = require("lupe.targets")
local time = require("lupe.time")

local TARGET = json.shape({
  "pid integer", "ppid integer", "name string", "live boolean", "connected boolean", "heap_state string",
  "reason string?", "allocator string", "sample_period_bytes integer?", "first_seen time", "last_seen time",
  "program_pid integer", "report string?",
})
local SHAPE = json.shape({ "timestamp time", "targets Target[]", Target = TARGET })

return {
  {
    method = "GET",
    path = "/api/targets",
    summary = "The processes of the run, and whether and why not their heap is profiled",
    params = {},
    response = SHAPE,
    handler = function(_, app)
      local list = {}
      local reports = app.host.serves and app.reports:list() or {}
      for i, target in ipairs(app.host.targets()) do
        list[i] = TARGET({
          pid = target.pid, ppid = target.ppid, name = target.name, live = target.live,
          connected = target.connected, heap_state = target.heap_state, reason = targets.heap_reason(target),
          allocator = target.allocator,
          sample_period_bytes = target.sample_period_bytes > 0 and target.sample_period_bytes or nil,
          first_seen = time.rfc3339(target.first_ms), last_seen = time.rfc3339(target.last_ms),
          program_pid = target.root_pid, report = not target.live and app.reports.url_of(target, reports) or nil,
        })
      end
      return 200, {}, SHAPE({ timestamp = time.rfc3339(app.host.now_ms()), targets = list })
    end,
  },
}

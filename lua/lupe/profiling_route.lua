--- What all routes under /api/profiling have in common: `?target=PID`, 503 where profiling is off or
-- the target gone, and the fields `timestamp` (first), `target` and `profiler` (last).
-- @module lupe.profiling_route

local json = require("lupe.json")
local problem = require("lupe.problem")
local targets = require("lupe.targets")
local time = require("lupe.time")

local MIB = 2 ^ 20

local TARGET = json.shape({ "pid integer?", "name string?", "live_processes integer" })
local PROFILER = json.shape({
  "cpu_percent number", "rss_mb number?", "rss_reason string?", "dropped_records integer", "truncated_stacks integer",
  "stack_overflows integer", "heap_mb number?",
})

local function target_of(host, selected, pid)
  local live = 0
  for _, target in ipairs(selected or host.targets()) do
    if target.live then live = live + 1 end
  end
  return TARGET({ pid = pid, name = pid and selected and selected[1].name, live_processes = live })
end

local function profiler_of(app)
  local own = app.profiler()
  return PROFILER({
    cpu_percent = json.round(own.cpu_percent),
    rss_mb = own.rss_bytes and json.round(own.rss_bytes / MIB),
    rss_reason = own.rss_reason,
    dropped_records = own.agent.dropped_records,
    truncated_stacks = own.agent.truncated_stacks,
    stack_overflows = own.stack_overflows,
    heap_mb = json.round(own.heap_bytes and own.heap_bytes / MIB),
  })
end

--- Completes a route of this group.
-- @param route { method, path, summary, params, fields, report, rate, any_target, status, problems }: `fields` are the
-- fields between `timestamp` and `target`, as in `json.shape`; `report(request, app, selected)` returns their
-- values, and optionally a status and headers; `selected` are the live targets asked for. `status` and `problems` are
-- told as in `lupe.openapi`.
-- With `any_target` the route works without a live one (and `selected` may be nil).
-- @return the route, as `lupe.router` wants it
return function(route)
  local params = { { name = "target", type = "pid", doc = "one process of the run; all live ones where absent" } }
  for _, spec in ipairs(route.params or {}) do params[#params + 1] = spec end

  local fields = { "timestamp time", SelectedTarget = TARGET, Profiler = PROFILER }
  for name, inner in pairs(route.fields) do
    if type(name) == "string" then fields[name] = inner end
  end
  for _, field in ipairs(route.fields) do fields[#fields + 1] = field end
  fields[#fields + 1] = "target SelectedTarget"
  fields[#fields + 1] = "profiler Profiler"
  local shape = json.shape(fields)

  local problems = { 404, 503 } -- targets.select
  for _, status in ipairs(route.problems or {}) do problems[#problems + 1] = status end

  return {
    method = route.method, path = route.path, summary = route.summary, params = params, rate = route.rate,
    response = shape, status = route.status, problems = problems,
    handler = function(request, app)
      local host = app.host
      if not app.config.enable_profiling then
        problem.raise(503, "profiling-off", "profiling is switched off (ENABLE_PROFILING=false)")
      end
      local pid, selected = request.params.target, nil
      if pid or not route.any_target then selected = targets.select(host, pid) end
      local values, status, headers = route.report(request, app, selected)
      values.timestamp = time.rfc3339(host.now_ms())
      values.target = target_of(host, selected, pid)
      values.profiler = profiler_of(app)
      return status or 200, headers, shape(values)
    end,
  }
end

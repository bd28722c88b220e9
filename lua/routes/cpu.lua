--- GET /api/profiling/cpu: the processor time of the process; 100 % is one core.

local cpu_usage = require("lupe.cpu_usage")
local json = require("lupe.json")
local profiling_route = require("lupe.profiling_route")
local targets = require("lupe.targets")

local LOAD = json.shape({ "one_min number", "five_min number", "fifteen_min number" })
local THREAD = json.shape({
  "pid integer", "tid integer", "name string", "cpu_usage_percent number?", "cpu_seconds number",
})
local STACKS = json.shape({ "state string", "reason string?" })

local function load_average(load)
  return LOAD({
    one_min = json.round(load.one_min, 2), five_min = json.round(load.five_min, 2),
    fifteen_min = json.round(load.fifteen_min, 2),
  })
end

local function top_threads(app, pid)
  local list = {}
  for i, thread in ipairs(app.threads(pid)) do
    list[i] = THREAD({
      pid = thread.pid, tid = thread.tid, name = thread.name, cpu_usage_percent = json.round(thread.percent),
      cpu_seconds = json.round(thread.cpu_ns / 1e9),
    })
  end
  return list
end

return {
  profiling_route({
    method = "GET",
    path = "/api/profiling/cpu",
    summary = "CPU use of the process and its busiest threads",
    fields = {
      "cpu_usage_percent number?", "user_time_percent number?", "system_time_percent number?", "load_average object",
      "window_seconds number?", "reason string?", "cores integer", "threads integer", "top_threads object[]",
      "stack_profile object",
    },
    report = function(request, app, selected)
      local host, pid = app.host, request.params.target
      local load = assert(host.load())
      local usage, reason = cpu_usage.of(host, selected)
      local user = usage and json.round(usage.user_percent)
      local system = usage and json.round(usage.system_percent)
      return {
        cpu_usage_percent = usage and user + system,
        user_time_percent = user,
        system_time_percent = system,
        load_average = load_average(load),
        window_seconds = usage and json.round(usage.window_ms / 1000),
        reason = reason,
        cores = load.cores,
        threads = targets.figures(host, pid).threads,
        top_threads = top_threads(app, pid),
        stack_profile = STACKS({ state = "off", reason = "CPU sampling is off" }),
      }
    end,
  }),
}

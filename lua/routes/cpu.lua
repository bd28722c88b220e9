--- GET /api/profiling/cpu: the processor time of the process; 100 % is one core.

local cpu_usage = require("lupe.cpu_usage")
local json = require("lupe.json")
local profiling_route = require("lupe.profiling_route")
local targets = require("lupe.targets")

local LOAD = json.shape({ "one_min number", "five_min number", "fifteen_min number" })
local THREAD = json.shape({
  "pid integer", "tid integer", "name string", "cpu_usage_percent number?", "cpu_seconds number",
  "running_percent number?", "io_percent number?", "lock_percent number?", "idle_percent number?",
  "switches_per_second number?", "states_reason string?",
})
local WALL = json.shape({ "state string", "reason string?", "hz integer?" })
local STACKS = json.shape({
  "state string", "reason string?", "hz integer?", "wall WallProfile", "total_samples integer?",
  "window_seconds number?", "threads_untimed integer?", "threads_unread integer?", WallProfile = WALL,
})

local function load_average(load)
  return LOAD({
    one_min = json.round(load.one_min, 2), five_min = json.round(load.five_min, 2),
    fifteen_min = json.round(load.fifteen_min, 2),
  })
end

--- The profile of the newest snapshot, which is there already: seconds old, and of the last minute.
local function last_minute(app, pid)
  local view, missing = app.views:newest(pid)
  return view and view.profile, missing
end

local function key_of(thread) return ("%d %d"):format(thread.pid, thread.tid) end

--- What the threads did in the window. Of several that had one number, the busiest.
local function sampled_threads(profile)
  local by_key = {}
  for _, thread in ipairs(profile and profile:threads() or {}) do
    local key = key_of(thread)
    by_key[key] = by_key[key] or thread
  end
  return by_key
end

--- Shares of the time that a thread was looked at, and why they are not known.
local function add_states(values, sampled, profile, missing)
  local looked_ns = sampled and (sampled.seconds_seen or 0) * 1e9 or 0
  if looked_ns > 0 then
    for _, state in ipairs({ "running", "io", "lock", "idle" }) do
      values[state .. "_percent"] = json.round(100 * sampled[state .. "_ns"] / looked_ns, 2)
    end
    values.switches_per_second = json.round(sampled.switches / (looked_ns / 1e9), 2)
  elseif not profile then
    values.states_reason = missing
  elseif profile.wall.state ~= "on" then
    values.states_reason = profile.wall.reason
  else
    values.states_reason = "nobody has looked at it yet"
  end
  return values
end

local function top_threads(app, pid, profile, missing)
  local list, sampled = {}, sampled_threads(profile)
  for i, thread in ipairs(app.threads(pid)) do
    list[i] = THREAD(add_states({
      pid = thread.pid, tid = thread.tid, name = thread.name, cpu_usage_percent = json.round(thread.percent),
      cpu_seconds = json.round(thread.cpu_ns / 1e9),
    }, sampled[key_of(thread)], profile, missing))
  end
  return list
end

local function stack_profile(profile, missing)
  if not profile then
    return STACKS({ state = "unknown", reason = missing, wall = WALL({ state = "unknown", reason = missing }) })
  end
  local cpu, wall = profile.cpu, profile.wall
  return STACKS({
    state = cpu.state, reason = cpu.reason, hz = cpu.hz,
    wall = WALL({ state = wall.state, reason = wall.reason, hz = wall.hz }),
    total_samples = profile.total_samples, window_seconds = json.round(profile.seconds),
    threads_untimed = profile.threads_untimed, threads_unread = profile.threads_unread,
  })
end

return {
  profiling_route({
    method = "GET",
    path = "/api/profiling/cpu",
    summary = "CPU use of the process and its busiest threads",
    fields = {
      "cpu_usage_percent number?", "user_time_percent number?", "system_time_percent number?",
      "load_average LoadAverage", "window_seconds number?", "reason string?", "cores integer", "threads integer",
      "top_threads Thread[]", "stack_profile StackProfile",
      LoadAverage = LOAD, Thread = THREAD, StackProfile = STACKS,
    },
    report = function(request, app, selected)
      local host, pid = app.host, request.params.target
      local load = assert(host.load())
      local usage, reason = cpu_usage.of(host, selected)
      local profile, missing = last_minute(app, pid)
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
        top_threads = top_threads(app, pid, profile, missing),
        stack_profile = stack_profile(profile, missing),
      }
    end,
  }),
}

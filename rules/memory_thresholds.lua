--- Resident memory is above the limits the operator set.
-- It rises above a limit at the limit, and falls below it only `hysteresis` lower, so that a figure that wavers does
-- not make the alert waver. A rule remembers nothing: it replays the series to know where it comes from.
local MIB = 2 ^ 20

local function next_state(state, rss, params)
  local keep = 1 - params.hysteresis
  if rss > params.critical or (state == "critical" and rss > params.critical * keep) then return "critical" end
  if rss > params.warning or (state ~= "normal" and rss > params.warning * keep) then return "warning" end
  return "normal"
end

return {
  api = 1,
  id = "alert.memory-threshold",
  kind = "alert",
  title = "Resident memory is above a limit",
  version = "1",
  needs = { "memory" },
  params = {
    warning = { default = 650, min = 0, unit = "MiB", doc = "PROFILING_MEMORY_WARNING_MB" },
    critical = { default = 700, min = 0, unit = "MiB", doc = "PROFILING_MEMORY_ALERT_MB" },
    hysteresis = { default = 0.05, min = 0, max = 0.5, doc = "how much lower it must fall to be normal again" },
  },
  check = function(view, params)
    local state = "normal"
    for _, row in ipairs(view.memory.rows) do state = next_state(state, row.rss_bytes / MIB, params) end
    if state == "normal" then return {} end
    local rss, limit = view.memory.latest.rss_bytes / MIB, params[state]
    local slope = view.memory:slope("rss_bytes", 60)
    local below = ("was above, and is less than %.14g %% below,"):format(100 * params.hysteresis)
    return {
      {
        score = rss / math.max(1, limit), verdict = "info", severity = state == "critical" and "critical" or "medium",
        summary = ("Resident memory %.1f MiB %s the %s limit of %.14g MiB"):format(rss,
          rss > limit and "is above" or below, state, limit),
        evidence = { rss_mib = rss, limit_mib = limit, mib_per_second = slope and slope / MIB, state = state },
      },
    }
  end,
}

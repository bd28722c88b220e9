--- What was asked of the HTTP API: requests by method, route and status, and the time they took.
-- Bounded: methods and routes come from fixed lists.
-- @module lupe.http_stats

local http_stats = {}
http_stats.__index = http_stats

function http_stats.new() return setmetatable({ requests = {}, durations = {} }, http_stats) end

--- @param route  the route's path with its {names}, or "none"
-- @param elapsed_ms from the request's arrival in Lua to its answer
function http_stats:count(method, route, status, elapsed_ms)
  local key = ("%s %s %d"):format(method, route, status)
  local entry = self.requests[key]
  if not entry then
    entry = { method = method, route = route, status = status, count = 0 }
    self.requests[key] = entry
  end
  entry.count = entry.count + 1
  local duration = self.durations[route] or { count = 0, seconds = 0 }
  self.durations[route] = duration
  duration.count, duration.seconds = duration.count + 1, duration.seconds + elapsed_ms / 1000
end

return http_stats

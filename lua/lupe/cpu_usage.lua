--- CPU percentages from cumulated times: of processes between two rows of their series, of threads
-- between two requests.
-- @module lupe.cpu_usage

local cpu_usage = {}
cpu_usage.__index = cpu_usage

local NEAREST_MS = 500        -- below this, ticks of 10 ms make a percentage coarse
local WINDOW_MS = 15000       -- how far back a first row may lie, if the series' own intervals are not longer
local MOST_THREADS = 10
local FORGET_MS = 60000

local function of_one(host, pid, now_ms, window_ms)
  local now = host.memory(pid)
  if not now then return nil end -- it has just ended
  local rows = host.series(pid, now_ms - window_ms)
  for i = #rows, 1, -1 do
    local row = rows[i]
    local elapsed_ms = now.time_ms - row.time_ms
    if elapsed_ms >= NEAREST_MS then
      return {
        user_percent = math.max(0, now.user_ns - row.user_ns) / elapsed_ms / 1e4,
        system_percent = math.max(0, now.system_ns - row.system_ns) / elapsed_ms / 1e4,
        window_ms = elapsed_ms,
      }
    end
  end
  return nil
end

--- The use of several processes together, each since its last row of the series.
-- @return { user_percent, system_percent, window_ms (the longest) }; or nil and why it is not known
function cpu_usage.of(host, selected)
  local now_ms, sum = host.now_ms(), nil
  local window_ms = math.max(WINDOW_MS, 2000 * host.config.memory_interval_secs)
  for _, target in ipairs(selected) do
    local one = of_one(host, target.pid, now_ms, window_ms)
    if one then
      sum = sum or { user_percent = 0, system_percent = 0, window_ms = 0 }
      sum.user_percent = sum.user_percent + one.user_percent
      sum.system_percent = sum.system_percent + one.system_percent
      sum.window_ms = math.max(sum.window_ms, one.window_ms)
    end
  end
  if not sum then return nil, "needs two readings, and there is one" end
  return sum
end

--- Remembers the threads of the last request, so that the next one can say what they did since.
function cpu_usage.new(host) return setmetatable({ host = host, seen = {}, seen_ms = 0 }, cpu_usage) end

--- The busiest threads: by use since the last request (where there was one), else by time in all.
-- @param pid of one process, or nil for all
-- @return array of { pid, tid, name, cpu_ns, percent or nil }, at most 10
function cpu_usage:threads(pid)
  local now_ms = self.host.monotonic_ms()
  local elapsed_ms = now_ms - self.seen_ms
  local usable = elapsed_ms >= NEAREST_MS and elapsed_ms <= FORGET_MS
  local list, seen = {}, {}
  -- All are read, so that who asks for one process does not make the others' figures unknown.
  for _, thread in ipairs(self.host.threads()) do
    local cpu_ns = thread.user_ns + thread.system_ns
    local before = usable and self.seen[thread.tid]
    local percent = before and before <= cpu_ns and (cpu_ns - before) / elapsed_ms / 1e4 or nil
    if not pid or thread.pid == pid then
      list[#list + 1] = { pid = thread.pid, tid = thread.tid, name = thread.name, cpu_ns = cpu_ns, percent = percent }
    end
    seen[thread.tid] = cpu_ns
  end
  if elapsed_ms >= NEAREST_MS then self.seen, self.seen_ms = seen, now_ms end
  table.sort(list, function(a, b)
    local left, right = a.percent or 0, b.percent or 0
    if left ~= right then return left > right end
    if a.cpu_ns ~= b.cpu_ns then return a.cpu_ns > b.cpu_ns end
    return a.tid < b.tid
  end)
  for i = #list, MOST_THREADS + 1, -1 do list[i] = nil end
  return list
end

return cpu_usage

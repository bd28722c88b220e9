--- The threads of all processes: how many there are and were, and which of them work.
-- Fields: `count` now (nil: no reading), `highest` that there were; `rows` { { time_ms, count } ... oldest first };
-- `list` those seen in the window of the samples, busiest first (see lupe.profile_threads: `pid`, `tid`, `name`,
-- `cpu_percent`, `wall_percent`, ...), and `reason` why it is empty, nil where it is not. Only wall sampling sees
-- threads that do nothing. Method: `slope(window_s)` threads more per second, as memory:slope gives it.
-- @module lupe.threads_view
-- @usage
-- local threads = view.threads
-- return threads.count, threads.highest, threads.rows[1].count, threads.list[1].name
-- --> 9, 9, 8, worker-1

local lazy = require("lupe.lazy")

--- @tparam table columns of lupe.ffi
-- @param memory lupe.memory_view
-- @param profile lupe.profile_view
return function(columns, memory, profile)
  local series, count = columns.memory, columns.count.memory

  return lazy({
    count = function() return memory.latest and memory.latest.threads end,
    highest = function()
      local most
      for i = 0, count - 1 do most = math.max(most or 0, series[i].threads) end
      return most
    end,
    rows = function()
      local rows = {}
      for i = 0, count - 1 do rows[i + 1] = { time_ms = series[i].time_ms, count = series[i].threads } end
      return rows
    end,
    list = function() return profile:threads() end,
    reason = function()
      if columns.count.threads > 0 then return nil end
      return profile.wall.reason or profile.cpu.reason or "no sample was taken in the window"
    end,
  }, { slope = function(_, window_s) return memory:slope("threads", window_s) end }, "view.threads")
end

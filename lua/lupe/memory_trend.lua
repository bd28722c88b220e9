--- How fast resident memory grows, from the rows of the memory series.
-- @module lupe.memory_trend

local stats = require("lupe.stats")

local memory_trend = {}

local FEWEST_ROWS = 3

--- Least squares over the rows.
-- @param rows array of memory figures, oldest first
-- @return bytes per second, may be negative; or nil and why it is not known
function memory_trend.rss_slope(rows)
  if #rows < FEWEST_ROWS then
    return nil, ("needs %d readings of the last minute, has %d"):format(FEWEST_ROWS, #rows)
  end
  local seconds, bytes = {}, {}
  for i, row in ipairs(rows) do
    seconds[i], bytes[i] = (row.time_ms - rows[1].time_ms) / 1000, row.rss_bytes
  end
  return (stats.linear(seconds, bytes, 1, #rows))
end

return memory_trend

--- The memory series as rules see it: readings of the whole run, summed over its live processes.
-- Fields: `latest` (a row, nil where there is none), `rows` (array, oldest first), `count`.
-- A row: `time_ms`; bytes `rss_bytes virtual_bytes shared_bytes allocated_bytes active_bytes metadata_bytes
-- resident_bytes mapped_bytes retained_bytes cached_bytes
-- sampling_bytes`; `user_ns system_ns minor_faults major_faults` since the start;
-- `threads`; `has_allocator` (boolean; without it the allocator's fields, allocated to retained, are nil).
-- Method: `memory:slope(field, window_s)`: a straight line through the last `window_s` seconds (all, where not given),
-- per second; nil and a reason where there are fewer than 3 readings, or the allocator's figures are not known.
-- @module lupe.memory_view
-- @usage
-- local slope = view.memory:slope("rss_bytes", 10)
-- return words.bytes(view.memory.latest.rss_bytes), words.bytes(slope), view.memory.latest.threads
-- --> 75.0 MiB, 1.00 MiB, 9

local lazy = require("lupe.lazy")
local options_of = require("lupe.options")
local stats = require("lupe.stats")

local PLAIN = {
  "time_ms", "rss_bytes", "virtual_bytes", "shared_bytes", "user_ns", "system_ns", "minor_faults", "major_faults",
  "threads",
}
local OF_ALLOCATOR = {
  "allocated_bytes", "active_bytes", "metadata_bytes", "resident_bytes", "mapped_bytes", "retained_bytes",
  "cached_bytes", "sampling_bytes",
}
local KIND, FIELDS = {}, {}
for _, field in ipairs(PLAIN) do KIND[field], FIELDS[#FIELDS + 1] = "plain", field end
for _, field in ipairs(OF_ALLOCATOR) do KIND[field], FIELDS[#FIELDS + 1] = "allocator", field end

local memory_view = { FIELDS = FIELDS }

--- One reading as a plain table.
function memory_view.row(figures)
  local row = {}
  for _, field in ipairs(PLAIN) do row[field] = tonumber(figures[field]) end
  row.has_allocator = tonumber(figures.has_allocator) == 1
  if row.has_allocator then
    for _, field in ipairs(OF_ALLOCATOR) do row[field] = tonumber(figures[field]) end
  end
  return row
end

--- @tparam table columns of lupe.ffi
function memory_view.new(columns)
  local series, count = columns.memory, columns.count.memory

  local function slope(_, field, window_s)
    options_of.check_word("memory:slope: no field", field, FIELDS)
    if window_s ~= nil and type(window_s) ~= "number" then
      error(("memory:slope: expected a number of seconds, got %s"):format(type(window_s)), 2)
    end
    if count == 0 then return nil, "no reading yet" end
    local newest = series[count - 1].time_ms
    local x, y, n = {}, {}, 0
    for i = count - 1, 0, -1 do
      local row = series[i]
      if window_s and newest - row.time_ms > window_s * 1000 then break end
      if KIND[field] == "plain" or row.has_allocator == 1 then
        n = n + 1
        x[n], y[n] = (row.time_ms - newest) / 1000, tonumber(row[field])
      end
    end
    if n < 3 then return nil, ("%d readings, at least 3 are needed"):format(n) end
    return (stats.linear(x, y, 1, n))
  end

  return lazy({
    latest = function()
      if count > 0 then return memory_view.row(series[count - 1]) end
    end,
    rows = function()
      local rows = {}
      for i = 0, count - 1 do rows[i + 1] = memory_view.row(series[i]) end
      return rows
    end,
  }, { count = count, slope = slope }, "view.memory")
end

return memory_view

--- The run's own past, on one time line: the heap at each of its profiles, and the readings of memory.
-- Fields named below: `inuse_space` (all live bytes of the sites), `allocated` (jemalloc's figure at that profile), and
-- every field of a row of lupe.memory_view, such as `rss_bytes`, `threads`, `user_ns`.
-- Fields: `seconds` since the run began, `from_ms`, `to_ms` of what is known (nil: nothing is).
--
-- Methods, of which the last two give nil and a reason where it is not known:
--
-- * `series(field)` two arrays, times (ms) and values, oldest first
-- * `at(field, time_ms)` the value of the last reading not after that time, and the time of it
-- * `change(field, options)` { change, first, last, from_ms, to_ms, per_second } between the first reading at or after
--   `since_ms` (of all, where not given) and the last one
-- @module lupe.history_view
-- @usage
-- local change = view.history:change("rss_bytes", { since_ms = view.time_ms - 10000 })
-- return words.bytes(change.change), (change.to_ms - change.from_ms) / 1000, view.history.seconds
-- --> 10.0 MiB, 10, 30

local lazy = require("lupe.lazy")
local memory_view = require("lupe.memory_view")
local options_of = require("lupe.options")

local FIELDS = { "inuse_space", "allocated" }
for _, field in ipairs(memory_view.FIELDS) do
  if field ~= "time_ms" then FIELDS[#FIELDS + 1] = field end
end

--- The index of the last time not after `time_ms`; 0: there is none.
local function last_before(times, time_ms)
  local low, high = 0, #times
  while low < high do
    local middle = math.ceil((low + high) / 2)
    if times[middle] <= time_ms then
      low = middle
    else
      high = middle - 1
    end
  end
  return low
end

--- @tparam table columns of lupe.ffi
-- @param heap lupe.heap_view
-- @param memory lupe.memory_view
return function(columns, heap, memory)
  local function readings(field)
    local rows = (field == "inuse_space" or field == "allocated") and heap.ticks or memory.rows
    local times, values = {}, {}
    for _, row in ipairs(rows) do
      if row[field] then times[#times + 1], values[#values + 1] = row.time_ms, row[field] end
    end
    return times, values
  end

  local function series(_, field)
    options_of.check_word("history:series: no field", field, FIELDS)
    return readings(field)
  end

  local function at(_, field, time_ms)
    options_of.check_word("history:at: no field", field, FIELDS)
    if type(time_ms) ~= "number" then
      error(("history:at: expected a time in ms, got %s"):format(type(time_ms)), 2)
    end
    local times, values = readings(field)
    local i = last_before(times, time_ms)
    if i == 0 then return nil, #times == 0 and "no reading yet" or "no reading is as old as that" end
    return values[i], times[i]
  end

  local function change(_, field, options)
    options_of.check_word("history:change: no field", field, FIELDS)
    local since = options_of.check("history:change", options, { since_ms = "number" }).since_ms
    local times, values = readings(field)
    local first, last = 1, #times
    while since and first <= last and times[first] < since do first = first + 1 end
    if last - first < 1 then
      return nil, ("%d readings, at least 2 are needed"):format(math.max(0, last - first + 1))
    end
    local difference = values[last] - values[first]
    return {
      change = difference, first = values[first], last = values[last], from_ms = times[first], to_ms = times[last],
      per_second = difference / (times[last] - times[first]) * 1000,
    }
  end

  local function edge(pick, index)
    return function()
      local a, b = heap.ticks[index(heap.profiles)], memory.rows[index(memory.count)]
      if a and b then return pick(a.time_ms, b.time_ms) end
      return (a or b or {}).time_ms
    end
  end
  return lazy({
    from_ms = edge(math.min, function() return 1 end),
    to_ms = edge(math.max, function(count) return count end),
  }, {
    seconds = (columns.time_ms - columns.started_ms) / 1000, series = series, at = at, change = change,
  }, "view.history")
end

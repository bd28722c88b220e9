--- The heap as rules see it: sites, the history of the whole, and top-N without sorting everything.
-- Fields: `total_inuse_space`, `total_inuse_objects`, `total_alloc_space` (sums over the sites),
-- `site_count`, `profiles`, `seconds` (how far the history reaches), `interval_ms`,
-- `ticks` { { time_ms, inuse_space, allocated } ... oldest first; allocated nil: not known }.
-- Methods: `sites`, `trend`.
-- @module lupe.heap_view

local lazy = require("lupe.lazy")
local nearest = require("lupe.nearest")
local site = require("lupe.site")
local trend = require("lupe.trend")

local MIB = 2 ^ 20

--- a goes before b in the result: larger key, then lower index, so that order never depends on chance.
local function before(keys, a, b)
  local ka, kb = keys[a], keys[b]
  return ka > kb or (ka == kb and a < b)
end

local function sift_down(heap, keys, at, size)
  while true do
    local child = 2 * at
    if child > size then return end
    if child < size and before(keys, heap[child], heap[child + 1]) then child = child + 1 end
    if not before(keys, heap[at], heap[child]) then return end
    heap[at], heap[child] = heap[child], heap[at]
    at = child
  end
end

--- The `limit` first of `count` candidates, in order. A heap with the last of them on top: most
-- candidates cost one comparison.
local function top(candidates, count, keys, limit)
  local size = math.min(limit, count)
  local heap = {}
  for i = 1, size do heap[i] = candidates[i] end
  for at = math.floor(size / 2), 1, -1 do sift_down(heap, keys, at, size) end
  for i = size + 1, count do
    if before(keys, candidates[i], heap[1]) then
      heap[1] = candidates[i]
      sift_down(heap, keys, 1, size)
    end
  end
  for last = size, 2, -1 do
    heap[1], heap[last] = heap[last], heap[1]
    sift_down(heap, keys, 1, last - 1)
  end
  return heap, size
end

local OPTIONS = { "by", "limit", "min_growth", "min_inuse_space" }
local KEYS = { "inuse_space", "inuse_objects", "alloc_space", "alloc_objects", "growth" }

local function one_of(list, word)
  for _, known in ipairs(list) do
    if known == word then return true end
  end
  local near = nearest(tostring(word), list)
  return false, ("'%s'%s; known: %s"):format(tostring(word), near and (", did you mean '%s'?"):format(near) or "",
    table.concat(list, ", "))
end

local function check_options(options)
  for name in pairs(options) do
    local ok, message = one_of(OPTIONS, name)
    if not ok then error("sites: unknown option " .. message, 3) end
  end
  if options.by ~= nil then
    local ok, message = one_of(KEYS, options.by)
    if not ok then error("sites: cannot order by " .. message, 3) end
  end
end

--- @tparam table columns of lupe.ffi
return function(columns)
  local site_count, ticks = columns.count.sites, columns.tick_count
  local objects, totals = {}, {}
  local state = { columns = columns, totals = totals }

  for _, column in ipairs({ "inuse_space", "inuse_objects", "alloc_space" }) do
    local values, sum = columns["site_" .. column], 0
    for i = 0, site_count - 1 do sum = sum + values[i] end
    totals[column] = sum
  end

  local by_site
  function state.stacks_of(index)
    if not by_site then
      by_site = {}
      for stack = 0, columns.count.stacks - 1 do
        local owner = columns.stack_site[stack]
        local list = by_site[owner]
        if not list then
          list = {}
          by_site[owner] = list
        end
        list[#list + 1] = stack
      end
    end
    return by_site[index] or {}
  end

  local growth
  local function growth_of_all()
    if not growth then
      growth = {}
      if ticks >= trend.FEWEST and columns.count.site_history_space >= site_count * ticks then
        trend.screen(columns.tick_time_ms, columns.site_history_space, ticks, site_count, growth)
      else
        for i = 0, site_count - 1 do growth[i] = 0 end
      end
    end
    return growth
  end

  --- The sites that pass, as an iterator. Options, all optional:
  -- `min_inuse_space` bytes; `by` "inuse_space", "inuse_objects", "alloc_space", "alloc_objects" or "growth"
  -- (least squares slope of the live bytes): largest first; without it in no meaningful order;
  -- `min_growth` MiB/h of that slope; `limit` at most so many.
  local function sites(_, options)
    options = options or {}
    check_options(options)
    local smallest = options.min_inuse_space or 0
    local space = columns.site_inuse_space
    local candidates, count = {}, 0
    local slopes = (options.min_growth or options.by == "growth") and growth_of_all()
    local steepness = slopes and (options.min_growth or 0) * MIB / 3600
    for i = 0, site_count - 1 do
      if space[i] >= smallest and (not slopes or slopes[i] >= steepness) then
        count = count + 1
        candidates[count] = i
      end
    end
    if options.by then
      local keys = slopes
      if options.by ~= "growth" then keys = columns["site_" .. options.by] end
      candidates, count = top(candidates, count, keys, options.limit or count)
    elseif options.limit then
      count = math.min(count, options.limit)
    end
    local at = 0
    return function()
      at = at + 1
      if at > count then return nil end
      local index = candidates[at]
      local object = objects[index]
      if not object then
        object = site.new(state, index)
        objects[index] = object
      end
      return object
    end
  end

  --- The trend of all live bytes (see lupe.trend), or nil and a reason. Options: `since_ms`.
  local function whole_trend(_, options)
    return trend.measure(columns.tick_time_ms, columns.tick_inuse_space, 0, ticks, columns.sample_period_bytes, nil,
      options and options.since_ms)
  end

  return lazy({
    ticks = function()
      local list = {}
      for i = 0, ticks - 1 do
        local allocated = columns.tick_allocated[i]
        list[i + 1] = {
          time_ms = columns.tick_time_ms[i], inuse_space = columns.tick_inuse_space[i],
          allocated = allocated > 0 and allocated or nil,
        }
      end
      return list
    end,
    seconds = function()
      return ticks > 1 and (columns.tick_time_ms[ticks - 1] - columns.tick_time_ms[0]) / 1000 or 0
    end,
  }, {
    sites = sites, trend = whole_trend,
    total_inuse_space = totals.inuse_space, total_inuse_objects = totals.inuse_objects,
    total_alloc_space = totals.alloc_space, site_count = site_count, profiles = ticks,
    interval_ms = columns.heap_interval_ms,
  }, "view.heap")
end

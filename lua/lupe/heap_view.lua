--- The heap as rules see it: sites, the history of the whole, and top-N without sorting everything.
-- Fields: `total_inuse_space`, `total_inuse_objects`, `total_alloc_space` (sums over the sites),
-- `site_count`, `profiles`, `seconds` (how far the history reaches), `interval_ms`,
-- `ticks` { { time_ms, inuse_space, allocated } ... oldest first; allocated nil: not known }.
-- Methods: `sites`, `trend`.
-- @module lupe.heap_view

local largest = require("lupe.largest")
local lazy = require("lupe.lazy")
local options_of = require("lupe.options")
local site = require("lupe.site")
local trend = require("lupe.trend")

local MIB = 2 ^ 20

local OPTIONS = { "by", "limit", "min_growth", "min_inuse_space" }
local KEYS = { "inuse_space", "inuse_objects", "alloc_space", "alloc_objects", "growth" }

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
    options_of.check("sites", options, OPTIONS)
    if options.by ~= nil then options_of.check_word("sites: cannot order by", options.by, KEYS) end
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
      candidates, count = largest(candidates, count, keys, options.limit or count)
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

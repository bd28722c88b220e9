--- The heap as rules see it: sites, the history of the whole, what changed against another snapshot.
-- Fields: `total_inuse_space`, `total_inuse_objects`, `total_alloc_space` (sums over the sites),
-- `site_count`, `profiles`, `seconds` (how far the history reaches), `interval_ms`,
-- `ticks` { { time_ms, inuse_space, allocated } ... oldest first; allocated nil: not known }.
--
-- Methods:
--
-- * `sites(options)` an iterator over lupe.site. Options, all optional: `group` "function" (where not given), "stack",
--   "module" or "tag"; `through` only stacks with a function of this name anywhere in them, and no bytes of others;
--   `min_inuse_space` bytes; `by` "inuse_space", "inuse_objects", "alloc_space", "alloc_objects" or "growth" (slope
--   of a straight line through the live bytes; none that shrink): largest first; without it in no meaningful order;
--   `min_growth` MiB/h of that line; `limit` at most so many
-- * `trend(options)` of all live bytes (see lupe.trend), or nil and a reason. Options: `since_ms`
-- * `changes(options)` an iterator over what grew and shrank since view.base, see lupe.heap_changes
-- @module lupe.heap_view
-- @usage
-- local found = {}
-- for site in view.heap:sites { by = "inuse_space", min_inuse_space = 2 ^ 20 } do
--   found[#found + 1] = site.name .. " " .. words.bytes(site.inuse_space)
-- end
-- return table.concat(found, "; ")
-- --> remember_session 30.0 MiB; load_page 20.0 MiB; inflate 2.00 MiB
-- @usage
-- local found = {}
-- for site in view.heap:sites { group = "tag", by = "inuse_space" } do
--   found[#found + 1] = site.name .. " " .. words.bytes(site.inuse_space)
-- end
-- return table.concat(found, "; ")
-- --> acme 15.0 MiB; globex 5.00 MiB
-- @usage
-- for site in view.heap:sites { group = "stack", through = "on_timer", by = "alloc_space" } do
--   return words.bytes(site.alloc_space), table.concat(site.stack, " < ")
-- end
-- --> 64.0 MiB, format_line < on_timer < main

local changes = require("lupe.heap_changes")
local largest = require("lupe.largest")
local lazy = require("lupe.lazy")
local numbers = require("lupe.ffi").numbers
local options_of = require("lupe.options")
local site = require("lupe.site")
local site_groups = require("lupe.site_groups")
local trend = require("lupe.trend")

local MIB = 2 ^ 20

local OPTIONS = {
  by = { "inuse_space", "inuse_objects", "alloc_space", "alloc_objects", "growth" },
  group = site_groups.KINDS, limit = "number", min_growth = "number", min_inuse_space = "number", through = "string",
}

--- Those that pass, as an array of indexes from 1, and how many.
local function candidates_of(group, options)
  local smallest, space = options.min_inuse_space or 0, group.inuse_space
  local slopes = (options.min_growth or options.by == "growth") and group.slopes()
  local steepness = (options.min_growth or 0) * MIB / 3600
  local list, count = numbers(group.count + 1), 0
  for i = 0, group.count - 1 do
    if space[i] >= smallest and (not slopes or slopes[i] >= steepness) then
      count = count + 1
      list[count] = i
    end
  end
  local limit = math.max(0, math.floor(math.min(options.limit or count, count)))
  if not options.by then return list, limit end
  return largest(list, count, options.by == "growth" and slopes or group[options.by], limit)
end

local function ticks_of(columns)
  local list = {}
  for i = 0, columns.tick_count - 1 do
    local allocated = columns.tick_allocated[i]
    list[i + 1] = {
      time_ms = columns.tick_time_ms[i], inuse_space = columns.tick_inuse_space[i],
      allocated = allocated > 0 and allocated or nil,
    }
  end
  return list
end

local heap_view = {}

--- @tparam table shared of lupe.site_groups
-- @tparam[opt] table base the same of the snapshot to compare with
function heap_view.new(shared, base)
  local columns = shared.columns
  local ticks = columns.tick_count
  local objects = {} -- kind -> index -> site

  local function sites(_, options)
    options = options_of.check("sites", options, OPTIONS)
    local kind = options.group or "function"
    local group = shared.group(kind, options.through)
    local candidates, count = candidates_of(group, options)
    local made = not options.through and objects[kind] or {}
    if not options.through then objects[kind] = made end
    local at = 0
    return function()
      at = at + 1
      if at > count then return nil end
      local index = candidates[at]
      local object = made[index]
      if not object then
        object = site.new(shared, group, index)
        made[index] = object
      end
      return object
    end
  end

  local function whole_trend(_, options)
    options = options_of.check("heap:trend", options, { since_ms = "number" })
    return trend.measure(columns.tick_time_ms, columns.tick_inuse_space, 0, ticks, columns.sample_period_bytes, nil,
      options.since_ms)
  end

  local function changed(_, options)
    return changes.iterator(shared, base, options_of.check("changes", options, changes.OPTIONS))
  end

  return lazy({
    ticks = function() return ticks_of(columns) end,
    seconds = function()
      return ticks > 1 and (columns.tick_time_ms[ticks - 1] - columns.tick_time_ms[0]) / 1000 or 0
    end,
  }, {
    sites = sites, trend = whole_trend, changes = changed,
    total_inuse_space = shared.totals.inuse_space, total_inuse_objects = shared.totals.inuse_objects,
    total_alloc_space = shared.totals.alloc_space, site_count = columns.count.sites, profiles = ticks,
    interval_ms = columns.heap_interval_ms,
  }, "view.heap")
end

return heap_view

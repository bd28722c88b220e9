--- Spans: pieces of work that the program marks by name, such as "request" (LUPE_SPAN of lupe.h), in the last minute,
-- or what other window the profile is of.
-- Fields: `list` array of spans, largest `total_ns` first, each name once for all processes; `reason` why the list is
-- empty, nil where it is not; `seconds` of the window; `names_lost`, `spans_lost` since the run began, for want of
-- room.
-- Methods: `named(name)` the span of that name, or nil and a reason; `begun_in(name, module)` the only span that is
-- begun in the function of this name and module (its file's name), as a table { name, count, mean_ns } of those that
-- are, or nil and a reason; `totals()` { { name, count, total_ns } ... } since the run began, in the order in which
-- names came.
--
-- A span: `name`; `count` that ended in the window; ns `total_ns`, `mean_ns`, `p50_ns`, `p95_ns`, `p99_ns`, `max_ns`;
-- `per_second` of them; `function_name`, `module` where it is begun, nil where not known, or in several places; method
-- `quantile(q)` (0..1) ns. Quantiles are within a quarter of the true figure, as durations
-- are counted in buckets (lupe.span_buckets); `max_ns` is exact.
-- @module lupe.span_view
-- @usage
-- local span = view.spans:named("request")
-- return span.count, words.duration(span.p95_ns / 1e6)
-- --> 100, 38 ms

local buckets = require("lupe.span_buckets")
local lazy = require("lupe.lazy")
local numbers = require("lupe.ffi").numbers

local NEVER = "the program marks no spans"
local NOT_NOW = "no span ended in the window"

local function span_of(name, sum, seconds)
  local function quantile(q) return buckets.quantile(sum.counts, sum.buckets, q, sum.max_ns) end
  return lazy({
    p50_ns = function() return quantile(0.5) end,
    p95_ns = function() return quantile(0.95) end,
    p99_ns = function() return quantile(0.99) end,
  }, {
    name = name, count = sum.count, total_ns = sum.total_ns, max_ns = sum.max_ns,
    function_name = sum.place and sum.place.name or nil, module = sum.place and sum.place.module or nil,
    mean_ns = sum.count > 0 and sum.total_ns / sum.count or nil,
    per_second = seconds > 0 and sum.count / seconds or nil,
    quantile = function(_, q)
      if type(q) ~= "number" or not (q >= 0 and q <= 1) then
        error(("span:quantile: expected a number from 0 to 1, got %s"):format(tostring(q)), 2)
      end
      return quantile(q)
    end,
  }, "a span")
end

--- The function that begins a row's spans: { name, module }, nil where it is not known.
local function place_of(columns, row)
  local index = row["function"]
  if index >= columns.count.functions then return nil end
  local f = columns.functions[index]
  local path = f.module < columns.count.modules and columns.text(columns.modules[f.module].path) or ""
  return { name = columns.text(f.name), module = path:match("[^/]*$") }
end

local function key_of(place) return place.name .. "\0" .. place.module end

--- Of each function that begins spans, by name and module: by their name { count, total_ns }.
local function sums_by_function(columns)
  local by_function = {}
  for i = 0, columns.count.spans - 1 do
    local row = columns.spans[i]
    local place = place_of(columns, row)
    if place then
      local names = by_function[key_of(place)] or {}
      by_function[key_of(place)] = names
      local name = columns.text(row.name)
      local sum = names[name] or { name = name, count = 0, total_ns = 0 }
      names[name] = sum
      sum.count, sum.total_ns = sum.count + row.count, sum.total_ns + row.total_ns
    end
  end
  return by_function
end

local function only_one(names)
  local name, sum = next(names)
  if next(names, name) ~= nil then return nil, "it begins spans of several names" end
  if sum.count <= 0 then return nil, NOT_NOW end
  return { name = name, count = sum.count, mean_ns = sum.total_ns / sum.count }
end

local function totals_of(columns)
  local list = {}
  for i = 0, columns.count.span_totals - 1 do
    local row = columns.span_totals[i]
    list[i + 1] = { name = columns.text(row.name), count = row.count, total_ns = row.total_ns }
  end
  return list
end

--- One sum per name, over the processes.
local function sums_of(columns)
  local by_name, names = {}, {}
  local each = columns.count.spans > 0 and columns.count.span_buckets / columns.count.spans or 0
  for i = 0, columns.count.spans - 1 do
    local row = columns.spans[i]
    local name = columns.text(row.name)
    local sum = by_name[name]
    if not sum then
      sum = { count = 0, total_ns = 0, max_ns = 0, buckets = each, counts = numbers(each) }
      by_name[name], names[#names + 1] = sum, name
    end
    local place = place_of(columns, row)
    if place and sum.place ~= false then
      local same = not sum.place or key_of(sum.place) == key_of(place)
      sum.place = same and place -- false: in several
    end
    sum.count, sum.total_ns, sum.max_ns = sum.count + row.count, sum.total_ns + row.total_ns,
      math.max(sum.max_ns, row.max_ns)
    for b = 0, each - 1 do sum.counts[b] = sum.counts[b] + columns.span_buckets[i * each + b] end
  end
  table.sort(names, function(a, b)
    if by_name[a].total_ns ~= by_name[b].total_ns then return by_name[a].total_ns > by_name[b].total_ns end
    return a < b
  end)
  return by_name, names
end

--- @tparam table columns of lupe.ffi
return function(columns)
  local seconds = (columns.span_to_ms - columns.span_from_ms) / 1000
  local spans, by_function
  local none = columns.count.spans == 0 and (columns.count.span_totals == 0 and NEVER or NOT_NOW) or nil
  local function all()
    if not spans then
      local by_name, names = sums_of(columns)
      spans = { list = {}, named = {} }
      for i, name in ipairs(names) do
        local span = span_of(name, by_name[name], seconds)
        spans.list[i], spans.named[name] = span, span
      end
    end
    return spans
  end
  return lazy({ list = function() return all().list end }, {
    reason = none, seconds = seconds, names_lost = columns.mark_names_lost, spans_lost = columns.spans_lost,
    named = function(_, name)
      local span = all().named[name]
      if span then return span end
      return nil, none or ("no span '%s' ended in the window"):format(tostring(name))
    end,
    begun_in = function(_, name, module)
      by_function = by_function or sums_by_function(columns)
      local names = by_function[key_of({ name = name, module = module })]
      if not names then return nil, "it begins no span" end
      return only_one(names)
    end,
    totals = function() return totals_of(columns) end,
  }, "view.spans")
end

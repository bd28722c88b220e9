--- Spans: pieces of work that the program marks by name, such as "request", in the window of the samples.
-- Fields: `list` array of spans, largest `total_ns` first, each name once for all processes; `reason` why the list is
-- empty, nil where it is not. Method: `named(name)` the span of that name, or nil and a reason.
--
-- A span: `name`; `count` that ended in the window; ns `total_ns`, `mean_ns`, `p50_ns`, `p95_ns`, `p99_ns`, `max_ns`;
-- `per_second` of them; method `quantile(q)` (0..1) ns. Quantiles are within a quarter of the true figure, as durations
-- are counted in buckets (lupe.span_buckets); `max_ns` is exact.
-- @module lupe.span_view
-- @usage
-- local span = view.spans:named("request")
-- return span.count, words.duration(span.p95_ns / 1e6)
-- --> 100, 38 ms

local buckets = require("lupe.span_buckets")
local lazy = require("lupe.lazy")
local numbers = require("lupe.ffi").numbers

local NONE = "the program marks no spans: none can in this version"

local function span_of(name, sum, seconds)
  local function quantile(q) return buckets.quantile(sum.counts, sum.buckets, q, sum.max_ns) end
  return lazy({
    p50_ns = function() return quantile(0.5) end,
    p95_ns = function() return quantile(0.95) end,
    p99_ns = function() return quantile(0.99) end,
  }, {
    name = name, count = sum.count, total_ns = sum.total_ns, max_ns = sum.max_ns,
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
  local seconds = (columns.profile_to_ms - columns.profile_from_ms) / 1000
  local spans
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
    reason = columns.count.spans == 0 and NONE or nil,
    named = function(_, name)
      local span = all().named[name]
      if span then return span end
      return nil, columns.count.spans == 0 and NONE or ("no span '%s' ended in the window"):format(tostring(name))
    end,
  }, "view.spans")
end

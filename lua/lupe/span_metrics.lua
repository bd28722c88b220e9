--- Spans in `/metrics`: a summary for each name, and what was lost.
-- @module lupe.span_metrics

local MOST_NAMES = 100 -- the first to come, so that a series stays; what is further is one more
local OTHERS = "(others)"
local QUANTILES = { { "0.5", "p50_ns" }, { "0.95", "p95_ns" }, { "0.99", "p99_ns" } }

--- Sums since the run began, of bounded number: { name, count, total_ns } in the order of their coming.
local function bounded(totals)
  local list, others = {}, nil
  for _, total in ipairs(totals) do
    if total.name ~= OTHERS and #list < MOST_NAMES then
      list[#list + 1] = total
    else
      others = others or { name = OTHERS, count = 0, total_ns = 0 }
      others.count, others.total_ns = others.count + total.count, others.total_ns + total.total_ns
    end
  end
  list[#list + 1] = others
  return list
end

local function samples_of(spans)
  local samples = {}
  for _, total in ipairs(bounded(spans.totals())) do
    local label = { "span", total.name }
    local recent = total.name ~= OTHERS and spans:named(total.name)
    for _, quantile in ipairs(recent and QUANTILES or {}) do
      samples[#samples + 1] = { recent[quantile[2]] / 1e9, labels = { label, { "quantile", quantile[1] } } }
    end
    samples[#samples + 1] = { total.count, suffix = "_count", labels = { label } }
    samples[#samples + 1] = { total.total_ns / 1e9, suffix = "_sum", labels = { label } }
  end
  return samples
end

--- @param out what `lupe.exposition` made, @param view the merged one, or nil
return function(out, view)
  if not view then return end
  out:add("lupe_span_duration_seconds", "summary",
    "Pieces of work that the program marks: how many since the run began, and how long; quantiles of the last minute.",
    samples_of(view.spans))
  out:add("lupe_mark_names_lost", "counter", "Names of spans and tags that came when there was no room for more.",
    view.spans.names_lost)
  out:add("lupe_spans_lost", "counter", "Spans that were not counted, for want of room.", view.spans.spans_lost)
end

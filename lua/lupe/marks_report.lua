--- What the program marks, in the report at exit: its spans with most time, and its tags.
-- @module lupe.marks_report

local format = require("lupe.format")
local json = require("lupe.json")

local marks_report = {}

local MOST_SPANS, MOST_TAGS, MOST_LINES = 20, 20, 5
local INDENT = "  "

local SPAN = json.shape({
  "name string", "count number", "per_second number?", "total_seconds number", "mean_us number", "p50_us number",
  "p95_us number", "p99_us number", "max_us number", "function_name string?", "module string?",
})
local TAG = json.shape({
  "name string", "inuse_space integer?", "cpu_seconds number?", "cpu_percent number?",
})

local function whole(number) return math.floor(number + 0.5) end
local function micros(ns) return json.round(ns / 1000) end

--- @return array of SPAN, most time first
function marks_report.spans(view)
  local list = json.array()
  for i, span in ipairs(view.spans.list) do
    if i > MOST_SPANS then break end
    if span.count > 0 then
      list[#list + 1] = SPAN({
        name = span.name, count = span.count, per_second = span.per_second and json.round(span.per_second),
        total_seconds = json.round(span.total_ns / 1e9, 6), mean_us = micros(span.mean_ns),
        p50_us = micros(span.p50_ns), p95_us = micros(span.p95_ns), p99_us = micros(span.p99_ns),
        max_us = micros(span.max_ns), function_name = span.function_name, module = span.module,
      })
    end
  end
  return list
end

--- @return array of TAG: those with most live memory, then those with most CPU time
function marks_report.tags(view)
  local list, known = json.array(), {}
  local function tag(name)
    if not known[name] and #list < MOST_TAGS then
      known[name] = { name = name }
      list[#list + 1] = known[name]
    end
    return known[name] or {}
  end
  for site in view.heap:sites({ group = "tag", by = "inuse_space", limit = MOST_TAGS }) do
    tag(site.name).inuse_space = whole(site.inuse_space)
  end
  for _, time in ipairs(view.profile:tags()) do
    local of = tag(time.name)
    of.cpu_seconds, of.cpu_percent = json.round(time.cpu_ns / 1e9), json.round(time.cpu_percent, 2)
  end
  for i, one in ipairs(list) do list[i] = TAG(one) end
  return list
end

--- Why the figures of marks are not whole; nil where they are.
function marks_report.lost(view)
  local spans, parts = view.spans, {}
  if spans.names_lost > 0 then parts[1] = format.plural(spans.names_lost, "name") .. " of spans or tags" end
  if spans.spans_lost > 0 then parts[#parts + 1] = format.plural(spans.spans_lost, "span") end
  if not parts[1] then return nil end
  return table.concat(parts, " and ") .. " found no room and could not be told apart or counted"
end

-- In words ----------------------------------------------------------------------------------

--- "850 ns", "12.3 us", "4.56 ms", or seconds as elsewhere.
local function duration(us)
  local function digits(x, unit)
    return (x < 9.995 and "%.2f %s" or x < 99.95 and "%.1f %s" or "%.0f %s"):format(x, unit)
  end
  if us < 0.9995 then return ("%.0f ns"):format(us * 1000) end
  if us < 999.5 then return digits(us, "us") end
  if us < 999500 then return digits(us / 1000, "ms") end
  return format.duration(us / 1000)
end

local function more(out, list)
  if #list <= MOST_LINES then return end
  out:line(INDENT .. ("... and %d more; --report json has them"):format(#list - MOST_LINES))
end

local function spans_text(out, list)
  if #list == 0 then return end
  out:heading("Spans", "most time first")
  local columns = INDENT .. "%12s  %9s  %9s  %9s  %9s  "
  local head = columns:format("count", "mean", "p95", "p99", "max")
  out:line(out:paint("dim", head .. "name"))
  for i = 1, math.min(#list, MOST_LINES) do
    local span = list[i]
    out:line(columns:format(format.count(span.count), duration(span.mean_us), duration(span.p95_us),
      duration(span.p99_us), duration(span.max_us)) .. out.fit(span.name, out.width - #head))
  end
  more(out, list)
end

local function tags_text(out, list)
  if #list == 0 then return end
  out:heading("Tags")
  local columns = INDENT .. "%10s  %6s  %9s  "
  local head = columns:format("live", "cpu", "cpu time")
  out:line(out:paint("dim", head .. "name"))
  for i = 1, math.min(#list, MOST_LINES) do
    local tag = list[i]
    out:line(columns:format(tag.inuse_space and format.bytes(tag.inuse_space) or "-",
      tag.cpu_percent and format.percent(tag.cpu_percent) or "-",
      tag.cpu_seconds and format.duration(1000 * tag.cpu_seconds) or "-") .. out.fit(tag.name, out.width - #head))
  end
  more(out, list)
end

--- @param out lupe.page, @param report { spans, tags } as above
function marks_report.text(out, report)
  spans_text(out, report.spans)
  tags_text(out, report.tags)
end

return marks_report

--- Where the time goes, as the API and the report tell it: hotspots, what bounds the program, what to do. The rules
-- judge (`bottleneck.hotspot` and its kin); this only sorts and writes down.
-- @module lupe.bottlenecks

local format = require("lupe.format")
local json = require("lupe.json")
local places = require("lupe.places")
local time = require("lupe.time")

local bottlenecks = {}

local MOST_FRAMES, MOST_TEXTS = 32, 20
local HOTSPOT_RULE = "bottleneck.hotspot"

local CALLS_UNKNOWN = "samples tell how long a function ran, not how often it was called"
local MEMORY_BASIS = "CPU time in memcpy, memset and their kind and in the allocator; cache misses in other code are "
  .. "not seen, and count as cpu"

local HOTSPOT = json.shape({
  "function_name string", "file_location string?", "line_number integer?", "cpu_time_percent number?",
  "wall_time_percent number?", "call_count integer?", "average_duration_us number?", "impact_score number?",
  "cum_cpu_percent number?", "cum_wall_percent number?", "definition_line integer?", "call_count_source string",
  "call_count_reason string?", "location_reason string?", "module string", "samples integer?", "threads integer?",
  "advice string[]", "stack string[]", "span string?",
})
local FAULTS = json.shape({
  "minor integer?", "major integer?", "minor_per_second number?", "major_per_second number?", "reason string?",
})
local PROFILE = json.shape({ "state string", "reason string?", "hz integer" })

--- The fields of an answer, as in `json.shape`: the seed's in its order, then the added ones.
bottlenecks.FIELDS = {
  "analysis_duration_ms number", "hotspots Hotspot[]", "cpu_bound_percent number?", "io_bound_percent number?",
  "memory_bound_percent number?", "recommendations string[]",
  "reason string?", "lock_bound_percent number?", "bound_reason string?", "idle_percent number?",
  "total_samples integer", "cpu_seconds number?", "window_seconds number", "profile_from time?",
  "profile_to time?", "patterns string[]", "memory_bound_basis string", "page_faults PageFaults",
  "cpu_profile ProfileState", "wall_profile ProfileState", "rule_errors string[]", "hotspots_reason string?",
  Hotspot = HOTSPOT, PageFaults = FAULTS, ProfileState = PROFILE,
}

local function about_time(finding) return finding.about == "time" end

--- @return whether time on the CPU, and whether waiting is known of the profile's window
local function known(profile)
  local sampled = profile.total_samples > 0
  return sampled and profile.cpu.state == "on", sampled and profile.wall.state == "on"
end

-- Hotspots ----------------------------------------------------------------------------------

--- Wall time is CPU time and waits: with one of the two missing its shares are not known. Calls are counted where the
-- function begins spans of one name: one for each.
local function described(finding, spans, cpu_known, wall_known)
  local hotspot = finding.hotspot
  local span = spans:begun_in(hotspot.name, hotspot.module or "")
  wall_known = wall_known and cpu_known
  return HOTSPOT({
    function_name = hotspot.name,
    file_location = hotspot.file,
    line_number = hotspot.line,
    cpu_time_percent = cpu_known and json.round(hotspot.cpu_percent, 2) or nil,
    wall_time_percent = wall_known and json.round(hotspot.wall_percent, 2) or nil,
    call_count = span and span.count,
    average_duration_us = span and json.round(span.mean_ns / 1000),
    impact_score = json.round(finding.score),
    cum_cpu_percent = cpu_known and json.round(hotspot.cum_cpu_percent, 2) or nil,
    cum_wall_percent = wall_known and json.round(hotspot.cum_wall_percent, 2) or nil,
    definition_line = hotspot.definition_line,
    call_count_source = span and "span" or "unknown",
    call_count_reason = not span and CALLS_UNKNOWN or nil,
    location_reason = places.missing(hotspot),
    module = hotspot.module or "",
    samples = hotspot.samples,
    threads = hotspot.threads,
    advice = finding.advice or {},
    stack = json.first(hotspot.stack or {}, MOST_FRAMES),
    span = span and span.name,
  })
end

local function by_impact(a, b)
  if (a.score or 0) ~= (b.score or 0) then return (a.score or 0) > (b.score or 0) end
  return a.hotspot.name < b.hotspot.name
end

local function hotspots_of(findings, spans, limit, cpu_known, wall_known)
  local found, list = {}, json.array()
  for _, finding in ipairs(findings) do
    if finding.rule == HOTSPOT_RULE and finding.hotspot then found[#found + 1] = finding end
  end
  table.sort(found, by_impact)
  for i = 1, math.min(#found, limit) do list[i] = described(found[i], spans, cpu_known, wall_known) end
  return list
end

--- Why there are none although there are samples; nil where there are some.
local function no_hotspots(list, result, profile)
  if list[1] or profile.total_samples == 0 then return nil end
  local needed = result.lacking and result.lacking[HOTSPOT_RULE]
  if needed then
    return ("there are too few samples yet to tell functions apart; at this pace that takes %s"):format(
      format.duration(1000 * needed))
  end
  if result.errors[1] then return "not all rules gave an answer: see rule_errors" end
  return "the rules found no function that stands out"
end

-- What bounds it ----------------------------------------------------------------------------

local PARTS = { "cpu", "io", "memory", "lock" }

--- Ratios as percentages of two decimals whose sum is 100: the largest takes what rounding left.
local function percentages(bound)
  local shares, largest, sum = {}, nil, 0
  for _, part in ipairs(PARTS) do
    shares[part] = json.round(100 * bound[part], 2)
    sum = sum + shares[part]
    if not largest or shares[part] > shares[largest] then largest = part end
  end
  shares[largest] = json.round(shares[largest] + 100 - sum, 2)
  return shares
end

--- @return shares by part, empty where they are not known; and why not
local function bound_of(profile, cpu_known, wall_known)
  if not cpu_known and not wall_known then return {}, nil end
  if not cpu_known then return {}, "the time on the CPU is not known: " .. profile.cpu.reason end
  if not wall_known then return {}, "what threads wait for is not known: " .. profile.wall.reason end
  if not profile.bound then return {}, "no thread did anything but wait for work" end
  return percentages(profile.bound), nil
end

-- Page faults -------------------------------------------------------------------------------

--- Of the series in the window: cumulated counts of the live processes, which fall when one of them ends.
local function faults_of(view, from_ms)
  local rows = view.memory.rows
  local last, begin = rows[#rows], nil
  for _, row in ipairs(rows) do
    if not begin or row.time_ms <= from_ms then begin = row end
  end
  if not last or begin == last then return FAULTS({ reason = "needs two readings, and there are less" }) end
  local seconds = (last.time_ms - begin.time_ms) / 1000
  local minor, major = last.minor_faults - begin.minor_faults, last.major_faults - begin.major_faults
  if minor < 0 or major < 0 then return FAULTS({ reason = "a process ended meanwhile, and its faults with it" }) end
  return FAULTS({
    minor = minor, major = major, minor_per_second = json.round(minor / seconds, 2),
    major_per_second = json.round(major / seconds, 2),
  })
end

-- What to do --------------------------------------------------------------------------------

local function collect(list, seen, text)
  if text and not seen[text] and #list < MOST_TEXTS then
    seen[text] = true
    list[#list + 1] = text
  end
end

--- What to do about time: recommendations first, then the advice of what no recommendation speaks of.
-- @param findings as `lupe.analysis` gives them
function bottlenecks.recommendations(findings)
  local list, seen, spoken_of = json.array(), {}, {}
  for _, finding in ipairs(findings) do
    if about_time(finding) and finding.kind == "recommendation" then
      collect(list, seen, finding.summary)
      if finding.hotspot then spoken_of[finding.hotspot.name] = true end
    end
  end
  for _, finding in ipairs(findings) do
    if about_time(finding) and finding.kind ~= "recommendation" and finding.rule ~= HOTSPOT_RULE
      and not (finding.hotspot and spoken_of[finding.hotspot.name]) then
      for _, text in ipairs(finding.advice or {}) do collect(list, seen, text) end
    end
  end
  return list
end

--- The summaries of what was found about time, of one kind.
function bottlenecks.summaries(findings, kind)
  local list, seen = json.array(), {}
  for _, finding in ipairs(findings) do
    if about_time(finding) and finding.kind == kind then collect(list, seen, finding.summary) end
  end
  return list
end

--- What bounds the program, in the words of the rules that found it.
function bottlenecks.bounds(findings)
  local list, seen = json.array(), {}
  for _, finding in ipairs(findings) do
    if about_time(finding) and finding.kind == "bottleneck" and finding.rule ~= HOTSPOT_RULE then
      collect(list, seen, finding.summary)
    end
  end
  return list
end

-- All together ------------------------------------------------------------------------------

local function profile_state(part) return PROFILE({ state = part.state, reason = part.reason, hz = part.hz }) end

--- Why there is nothing to tell, or nil where there is.
local function missing(profile, seconds)
  local cpu, wall = profile.cpu, profile.wall
  if cpu.state ~= "on" and wall.state ~= "on" then
    return ("neither the time on the CPU nor waits were sampled: %s"):format(
      cpu.reason == wall.reason and cpu.reason or cpu.reason .. "; " .. wall.reason)
  end
  if profile.total_samples == 0 then
    return ("no samples in the last %.14g s: no thread has run or waited yet, or the first are still on their way")
      :format(seconds)
  end
  return nil
end

--- @param view of a window, as `views:profile` gives it
-- @param result what `lupe.analysis` found in it
-- @param options { limit: hotspots at most; seconds: the window asked for }
-- @return the values of FIELDS but `analysis_duration_ms`
function bottlenecks.describe(view, result, options)
  local profile = view.profile
  local cpu_known, wall_known = known(profile)
  local shares, bound_reason = bound_of(profile, cpu_known, wall_known)
  local all_ns = wall_known and cpu_known and profile.busy_ns + profile.idle_ns or 0
  local sampled = profile.total_samples > 0
  local hotspots = hotspots_of(result.findings, view.spans, options.limit, cpu_known, wall_known)
  return {
    hotspots = hotspots,
    cpu_bound_percent = shares.cpu,
    io_bound_percent = shares.io,
    memory_bound_percent = shares.memory,
    recommendations = bottlenecks.recommendations(result.findings),
    reason = missing(profile, options.seconds),
    lock_bound_percent = shares.lock,
    bound_reason = bound_reason,
    idle_percent = all_ns > 0 and json.round(100 * profile.idle_ns / all_ns, 2) or nil,
    total_samples = profile.total_samples,
    cpu_seconds = cpu_known and json.round(profile.cpu_ns / 1e9) or nil,
    window_seconds = json.round(options.seconds),
    profile_from = sampled and time.rfc3339(profile.from_ms) or nil,
    profile_to = sampled and time.rfc3339(profile.to_ms) or nil,
    patterns = bottlenecks.summaries(result.findings, "pattern"),
    memory_bound_basis = MEMORY_BASIS,
    page_faults = faults_of(view, view.time_ms - 1000 * options.seconds),
    cpu_profile = profile_state(profile.cpu),
    wall_profile = profile_state(profile.wall),
    rule_errors = result.errors,
    hotspots_reason = no_hotspots(hotspots, result, profile),
  }
end

return bottlenecks

--- Findings as the API tells them: leaks in order of urgency, what was seen and judged harmless,
-- patterns, and what to do. Judging is the rules' business; this only sorts and writes down.
-- @module lupe.leaks

local json = require("lupe.json")
local places = require("lupe.places")
local proof_report = require("lupe.proof_report")
local time = require("lupe.time")
local urgency = require("lupe.rule").urgency

local leaks = {}

local MOST_FRAMES = 32
local ACCUSED = { leak = true, growing = true }

leaks.LEAK = json.shape({
  "component string", "allocation_count integer", "total_size_bytes integer", "average_size_bytes number?",
  "growth_rate_mb_per_hour number?", "severity critical|high|medium|low|info", "first_seen time?",
  "last_seen time?", "confidence number?", "verdict leak|growing|saturating|bounded|info", "module string?",
  "evidence object", "reasons string[]", "advice string[]", "summary string", "rule string", "stack string[]",
  "file_location string?", "line_number integer?", "location_reason string?", "proof LeakProof?",
  "proof_reason string?", LeakProof = proof_report.LEAK,
})

local function whole(number) return math.floor((number or 0) + 0.5) end

local function described(finding, unproven)
  local site, evidence = finding.site, finding.evidence or {}
  local objects = whole(site.inuse_objects)
  return leaks.LEAK({
    component = site.name,
    allocation_count = objects,
    total_size_bytes = whole(site.inuse_space),
    average_size_bytes = objects > 0 and json.round(whole(site.inuse_space) / objects, 1) or nil,
    growth_rate_mb_per_hour = json.round(evidence.slope_mib_per_hour),
    severity = finding.severity or "low",
    first_seen = time.rfc3339(site.first_seen_ms),
    last_seen = time.rfc3339(site.last_grown_ms),
    confidence = json.round(finding.confidence),
    verdict = finding.verdict,
    module = site.module,
    evidence = json.shortened(evidence),
    reasons = finding.reasons or {},
    advice = finding.advice or {},
    summary = finding.summary,
    rule = finding.rule,
    stack = json.first(site.stack or {}, MOST_FRAMES),
    file_location = site.file,
    line_number = site.line,
    location_reason = places.missing(site),
    proof = proof_report.leak(site.proof),
    proof_reason = not site.proof and unproven or nil,
  })
end

local function more_urgent(a, b)
  if a.verdict ~= b.verdict and (a.verdict == "leak" or b.verdict == "leak") then return a.verdict == "leak" end
  local left, right = urgency(a), urgency(b)
  if left ~= right then return left < right end
  local slope_a, slope_b = a.growth_rate_mb_per_hour or 0, b.growth_rate_mb_per_hour or 0
  if slope_a ~= slope_b then return slope_a > slope_b end
  if a.total_size_bytes ~= b.total_size_bytes then return a.total_size_bytes > b.total_size_bytes end
  return a.component < b.component
end

--- Sorts findings of kind leak. One component is told once, by its most urgent finding.
-- @param findings array as `lupe.analysis` gives it
-- @param[opt] view that they were found in: it tells why those without a leak proof have none
-- @return array of accused sites (leak, growing), and of observed ones (saturating, bounded, info)
function leaks.sort(findings, view)
  local accused, observed, unproven = {}, {}, proof_report.missing(view)
  for _, finding in ipairs(findings) do
    if finding.kind == "leak" and finding.site then
      local list = ACCUSED[finding.verdict] and accused or observed
      list[#list + 1] = described(finding, unproven)
    end
  end
  table.sort(accused, more_urgent)
  table.sort(observed, more_urgent)
  local told = {}
  local function once(list)
    local kept = json.array()
    for _, leak in ipairs(list) do
      local key = (leak.module or "") .. "\0" .. leak.component
      if not told[key] then
        told[key] = true
        kept[#kept + 1] = leak
      end
    end
    return kept
  end
  accused = once(accused)
  return accused, once(observed)
end

local function collect(list, seen, text, most)
  if text and not seen[text] and #list < most then
    seen[text] = true
    list[#list + 1] = text
  end
end

-- What is about time is told elsewhere: see lupe.bottlenecks.
local function about_memory(finding) return finding.about ~= "time" end

--- The summaries of all findings of one kind.
function leaks.summaries(findings, kind)
  local list, seen = json.array(), {}
  for _, finding in ipairs(findings) do
    if finding.kind == kind and about_memory(finding) then collect(list, seen, finding.summary, 100) end
  end
  return list
end

--- The summaries of patterns, and of findings of kind leak that name no site: no table of leaks has a row for these.
function leaks.patterns(findings)
  local list, seen = json.array(), {}
  for _, finding in ipairs(findings) do
    local siteless = finding.kind == "leak" and not finding.site
    if siteless or finding.kind == "pattern" and about_memory(finding) then
      collect(list, seen, finding.summary, 100)
    end
  end
  return list
end

--- What to do: recommendations first, then the advice of what no recommendation speaks of.
-- @param findings as above
-- @param skipped optional set of rules' ids whose recommendations belong elsewhere
function leaks.recommendations(findings, skipped)
  skipped = skipped or {}
  local list, seen, spoken_of = json.array(), {}, {}
  for _, finding in ipairs(findings) do
    if finding.kind == "recommendation" and about_memory(finding) then
      if not skipped[finding.rule] then collect(list, seen, finding.summary, 20) end
      if finding.site then spoken_of[finding.site.name] = true end
    end
  end
  for _, finding in ipairs(findings) do
    local told = not about_memory(finding) or skipped[finding.rule] or finding.site and spoken_of[finding.site.name]
    if finding.kind ~= "recommendation" and not told then
      for _, text in ipairs(finding.advice or {}) do collect(list, seen, text, 20) end
    end
  end
  return list
end

return leaks

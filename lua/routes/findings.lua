--- GET /api/findings: what the checks found so far, with first and last time.

local json = require("lupe.json")
local places = require("lupe.places")
local proof_report = require("lupe.proof_report")
local rule = require("lupe.rule")
local time = require("lupe.time")

local MOST, MOST_FRAMES = 500, 32

local ALERT = json.shape({ "state raised|clearing", "since time", "notified time?" })
local TARGET = json.shape({ "pid integer", "name string" })
local SUPPRESSED = json.shape({ "reason string", "until_date string" })
local FINDING = json.shape({
  "rule string", "kind " .. table.concat(rule.KINDS, "|"), "component string?", "module string?",
  "verdict " .. table.concat(rule.VERDICTS, "|") .. "?", "severity " .. table.concat(rule.SEVERITIES, "|") .. "?",
  "confidence number?", "summary string", "evidence object", "advice string[]", "first_found time", "last_found time",
  "times integer", "current boolean", "id string", "about memory|time", "score number?", "reasons string[]",
  "stack string[]", "file_location string?", "line_number integer?", "location_reason string?",
  "suppressed Suppressed?", "alert Alert?", "proof LeakProof?",
  "proof_reason string?", "target FoundIn?", Suppressed = SUPPRESSED, Alert = ALERT, FoundIn = TARGET,
  LeakProof = proof_report.LEAK,
})
local LIST = json.shape({
  "timestamp time", "checked_at time?", "findings Finding[]", "total integer", Finding = FINDING,
})

local function first(list, count)
  local cut = {}
  for i = 1, math.min(#list, count) do cut[i] = list[i] end
  return cut
end

--- @param known of lupe.known_findings; @param alert what lupe.alerts says of it, or nil
local function described(known, alert)
  local finding = known.finding
  local place = finding.site or finding.hotspot
  return FINDING({
    rule = finding.rule, kind = finding.kind, component = finding.component, module = place and place.module,
    verdict = finding.verdict, severity = finding.severity, confidence = json.round(finding.confidence),
    summary = finding.summary, evidence = json.shortened(finding.evidence) or {}, advice = finding.advice or {},
    first_found = time.rfc3339(known.first_ms), last_found = time.rfc3339(known.last_ms), times = known.times,
    current = known.current, id = known.id, about = finding.about, score = json.round(finding.score),
    reasons = finding.reasons or {}, stack = first(place and place.stack or {}, MOST_FRAMES),
    file_location = place and place.file, line_number = place and place.line,
    location_reason = place and places.missing(place) or not place and "it is about no single function" or nil,
    suppressed = finding.suppressed and SUPPRESSED(finding.suppressed),
    alert = alert and ALERT({
      state = alert.state, since = time.rfc3339(alert.since_ms), notified = time.rfc3339(alert.notified_ms),
    }),
    proof = finding.site and proof_report.leak(finding.site.proof),
    proof_reason = not finding.site and "it is about no function that allocates"
      or not finding.site.proof and "no leak proof had anything of it when it was found" or nil,
    target = finding.target and TARGET(finding.target),
  })
end

--- Whether a finding is one of those that the request asks for.
local function wanted(known, params, since_ms)
  local finding = known.finding
  return (not params.kind or finding.kind == params.kind) and (not params.rule or finding.rule == params.rule)
    and (not params.verdict or finding.verdict == params.verdict)
    and (params.current == nil or known.current == params.current) and (not since_ms or known.last_ms >= since_ms)
end

return {
  {
    method = "GET",
    path = "/api/findings",
    summary = "What the rules found in this run, the newest first",
    params = {
      { name = "kind", type = "choice", values = rule.KINDS, doc = "of rules of this kind" },
      { name = "rule", type = "text", doc = "of the rule with this id" },
      { name = "verdict", type = "choice", values = rule.VERDICTS, doc = "with this verdict" },
      { name = "current", type = "boolean", doc = "true: the last check found it too; false: it did not" },
      { name = "since", type = "moment", doc = "last found at that time or later: RFC 3339, or seconds up to now" },
      { name = "limit", type = "integer", min = 1, max = MOST, default = MOST, doc = "at most so many" },
    },
    response = LIST,
    handler = function(request, app)
      local params, now_ms = request.params, app.host.now_ms()
      local since = params.since
      local since_ms = since and (since.unix_ms or now_ms - since.ago_ms)
      local list, total = {}, 0
      for _, known in ipairs(app.analysis:known()) do
        if wanted(known, params, since_ms) then
          total = total + 1
          if total <= params.limit then list[total] = described(known, app.alerts:of(known.finding)) end
        end
      end
      local checked_ms = app.analysis.checked_ms
      return 200, {}, LIST({
        timestamp = time.rfc3339(now_ms), checked_at = checked_ms and time.rfc3339(checked_ms), findings = list,
        total = total,
      })
    end,
  },
}

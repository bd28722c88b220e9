--- A finding as the API tells it: of /api/findings, and to the program that lupe is a part of.
-- @module lupe.finding_json

local json = require("lupe.json")
local places = require("lupe.places")
local proof_report = require("lupe.proof_report")
local rule = require("lupe.rule")
local time = require("lupe.time")

local MOST_FRAMES = 32

local ALERT = json.shape({ "state raised|clearing", "since time", "notified time?" })
local TARGET = json.shape({ "pid integer", "name string" })
local SUPPRESSED = json.shape({ "reason string", "until_date string" })

local finding_json = {}

finding_json.SHAPE = json.shape({
  "rule string", "kind " .. table.concat(rule.KINDS, "|"), "component string?", "module string?",
  "verdict " .. table.concat(rule.VERDICTS, "|") .. "?", "severity " .. table.concat(rule.SEVERITIES, "|") .. "?",
  "confidence number?", "summary string", "evidence object", "advice string[]", "first_found time", "last_found time",
  "times integer", "current boolean", "id string", "about memory|time", "score number?", "reasons string[]",
  "stack string[]", "file_location string?", "line_number integer?", "location_reason string?",
  "suppressed Suppressed?", "alert Alert?", "proof LeakProof?",
  "proof_reason string?", "target FoundIn?", Suppressed = SUPPRESSED, Alert = ALERT, FoundIn = TARGET,
  LeakProof = proof_report.LEAK,
})

--- @param known of lupe.known_findings; @param alert what lupe.alerts says of it, or nil
function finding_json.of(known, alert)
  local finding = known.finding
  local place = finding.site or finding.hotspot
  return finding_json.SHAPE({
    rule = finding.rule, kind = finding.kind, component = finding.component, module = place and place.module,
    verdict = finding.verdict, severity = finding.severity, confidence = json.round(finding.confidence),
    summary = finding.summary, evidence = json.shortened(finding.evidence) or {}, advice = finding.advice or {},
    first_found = time.rfc3339(known.first_ms), last_found = time.rfc3339(known.last_ms), times = known.times,
    current = known.current, id = known.id, about = finding.about, score = json.round(finding.score),
    reasons = finding.reasons or {}, stack = json.first(place and place.stack or {}, MOST_FRAMES),
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

return finding_json

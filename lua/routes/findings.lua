--- GET /api/findings: what the checks found so far, with first and last time.

local json = require("lupe.json")
local time = require("lupe.time")

local FINDING = json.shape({
  "rule string", "kind string", "component string?", "module string?", "verdict string?", "severity string?",
  "confidence number?", "summary string", "evidence object", "advice string[]", "first_found string",
  "last_found string", "times integer", "current boolean",
  "alert object?",
})
local ALERT = json.shape({ "state string", "since string", "notified string?" })
local LIST = json.shape({ "timestamp string", "checked_at string?", "findings object[]" })

--- Where the finding is an alert that is raised.
local function alert_of(app, finding)
  local alert = app.alerts:of(finding)
  return alert and ALERT({
    state = alert.state, since = time.rfc3339(alert.since_ms), notified = time.rfc3339(alert.notified_ms),
  })
end

return {
  {
    method = "GET",
    path = "/api/findings",
    summary = "All findings of the run, the newest first; `current` are those of the last check",
    params = {},
    response = LIST,
    handler = function(_, app)
      local list = {}
      for i, known in ipairs(app.analysis:known()) do
        local finding = known.finding
        list[i] = FINDING({
          rule = finding.rule, kind = finding.kind, component = finding.component,
          module = (finding.site or finding.hotspot or {}).module,
          verdict = finding.verdict, severity = finding.severity,
          confidence = json.round(finding.confidence), summary = finding.summary,
          evidence = json.shortened(finding.evidence) or {}, advice = finding.advice or {},
          first_found = time.rfc3339(known.first_ms),
          last_found = time.rfc3339(known.last_ms), times = known.times, current = known.current,
          alert = alert_of(app, finding),
        })
      end
      local latest = app.analysis:latest()
      return 200, {}, LIST({
        timestamp = time.rfc3339(app.host.now_ms()), checked_at = latest and time.rfc3339(latest.time_ms),
        findings = list,
      })
    end,
  },
}

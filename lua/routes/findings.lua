--- GET /api/findings: what the checks found so far, with first and last time.

local finding_json = require("lupe.finding_json")
local json = require("lupe.json")
local rule = require("lupe.rule")
local time = require("lupe.time")

local MOST = 500

local LIST = json.shape({
  "timestamp time", "checked_at time?", "findings Finding[]", "total integer", Finding = finding_json.SHAPE,
})

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
          if total <= params.limit then list[total] = finding_json.of(known, app.alerts:of(known.finding)) end
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

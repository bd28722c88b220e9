--- POST /api/profiling/leak-detection: runs the rules over the heap's history, now.

local json = require("lupe.json")
local leaks = require("lupe.leaks")
local problem = require("lupe.problem")
local profiling_route = require("lupe.profiling_route")
local proof_report = require("lupe.proof_report")
local rule_settings = require("lupe.rule_settings")
local targets = require("lupe.targets")
local time = require("lupe.time")

local NOT_ABOUT_GROWTH = { ["recommendation.allocations"] = true }

--- Has the processes that were asked for proved.
-- @return what lupe.prover gave, and a view that has it; or nil twice, and why there is no view
local function prove(app, selected, pid)
  if not app.prover:allowed() then
    problem.raise(403, "proof-off", "leak proofs are switched off (--proof=never, LUPE_PROOF)")
  end
  local view, missing = app.views:newest(pid)
  if not view then return nil, nil, missing end
  local asked = app.prover:run(selected)
  view, missing = app.views:renew()
  if pid then view, missing = app.views:of(pid) end
  return asked, view, missing
end

return {
  profiling_route({
    method = "POST",
    path = "/api/profiling/leak-detection",
    summary = "Which call sites leak, which only grew, and what to do",
    rate = "leak",
    problems = { 403 },
    params = {
      {
        name = "proof", type = "boolean", default = false,
        doc = "true: has a leak proof run first, for which each process is stopped twice for the time of a fork",
      },
      rule_settings.PARAMETER,
    },
    fields = {
      "analysis_duration_ms number", "potential_leaks Leak[]", "growth_rate_mb_per_hour number?",
      "highest_risk_component string?", "suspicious_patterns string[]", "recommendations string[]",
      "status ok|insufficient_data|unprofiled|failed", "reason string?", "needed_seconds number?",
      "growth_rate_reason string?", "observed Leak[]", "rule_errors string[]", "profile_time time?",
      "history_seconds number", "suppressed integer", "proof Proof?", "proof_reason string?",
      Leak = leaks.LEAK, Proof = proof_report.VIEW,
    },
    report = function(request, app, selected)
      local host, pid = app.host, request.params.target
      local asked, view, missing
      if request.params.proof then
        asked, view, missing = prove(app, selected, pid)
      else
        view, missing = app.views:newest(pid)
      end
      local began_ms = host.monotonic_ms()
      if not view then problem.raise(503, "no-profile", missing) end
      local _, reason = targets.allocator(selected)
      local params, wrong = app.analysis:params_of(request.params)
      if wrong then problem.raise(400, "invalid-parameter", wrong) end
      local result = app.analysis:run(view, { pid = pid, params = params, occasion = "leak_check" })
      local accused, observed = leaks.sort(result.findings, view)
      local trend, unknown = view.heap:trend()
      local proof, unproven = proof_report.of(view, asked)
      return {
        potential_leaks = accused,
        growth_rate_mb_per_hour = trend and json.round(trend.slope),
        highest_risk_component = accused[1] and accused[1].component,
        suspicious_patterns = leaks.patterns(result.findings),
        recommendations = leaks.recommendations(result.findings, NOT_ABOUT_GROWTH),
        status = reason and "unprofiled" or result.status,
        reason = reason or result.reason,
        needed_seconds = not reason and result.needed_seconds or nil,
        growth_rate_reason = not trend and (reason or unknown) or nil,
        observed = observed,
        rule_errors = result.errors,
        profile_time = time.rfc3339(view.time_ms),
        history_seconds = json.round(view.heap.seconds),
        suppressed = #result.suppressed,
        proof = proof,
        proof_reason = unproven,
        analysis_duration_ms = json.round(host.monotonic_ms() - began_ms),
      }
    end,
  }),
}

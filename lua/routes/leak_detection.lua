--- POST /api/profiling/leak-detection: runs the rules over the heap's history, now.

local json = require("lupe.json")
local leaks = require("lupe.leaks")
local problem = require("lupe.problem")
local profiling_route = require("lupe.profiling_route")
local rule_settings = require("lupe.rule_settings")
local targets = require("lupe.targets")
local time = require("lupe.time")

local NOT_ABOUT_GROWTH = { ["recommendation.allocations"] = true }

return {
  profiling_route({
    method = "POST",
    path = "/api/profiling/leak-detection",
    summary = "Which call sites leak, which only grew, and what to do",
    rate = "leak",
    params = { rule_settings.PARAMETER },
    fields = {
      "analysis_duration_ms number", "potential_leaks Leak[]", "growth_rate_mb_per_hour number?",
      "highest_risk_component string?", "suspicious_patterns string[]", "recommendations string[]",
      "status ok|insufficient_data|unprofiled|failed", "reason string?", "needed_seconds number?",
      "growth_rate_reason string?", "observed Leak[]", "rule_errors string[]", "profile_time time?",
      "history_seconds number", "suppressed integer", Leak = leaks.LEAK,
    },
    report = function(request, app, selected)
      local host, pid = app.host, request.params.target
      local began_ms = host.monotonic_ms()
      local view, missing = app.views:newest(pid)
      if not view then problem.raise(503, "no-profile", missing) end
      local _, reason = targets.allocator(selected)
      local params, wrong = app.analysis:params_of(request.params)
      if wrong then problem.raise(400, "invalid-parameter", wrong) end
      local result = app.analysis:run(view, { pid = pid, params = params, occasion = "leak_check" })
      local accused, observed = leaks.sort(result.findings)
      local trend, unknown = view.heap:trend()
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
        analysis_duration_ms = json.round(host.monotonic_ms() - began_ms),
      }
    end,
  }),
}

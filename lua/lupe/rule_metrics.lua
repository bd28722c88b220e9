--- The metrics of rules: how many files are what, and how each rule in force fares.
-- @module lupe.rule_metrics

local STATES = { "active", "shadowed", "disabled", "broken", "quarantined" }

--- @param list as lupe.analysis has the rules
-- @param out lupe.exposition
return function(list, out)
  local runs, errors, seconds, found, states = {}, {}, {}, {}, {}
  local count_of = {}
  for _, state in ipairs(STATES) do count_of[state] = 0 end
  for _, entry in ipairs(list) do
    count_of[entry.state] = count_of[entry.state] + 1
    if entry.id and not entry.shadowed_by then
      local labels = { { "rule", entry.id } }
      runs[#runs + 1] = { entry.runs, labels = labels }
      errors[#errors + 1] = { entry.errors, labels = labels }
      seconds[#seconds + 1] = { (entry.elapsed_us or 0) / 1e6, labels = labels }
      found[#found + 1] = { entry.findings, labels = labels }
    end
  end
  for _, state in ipairs(STATES) do
    states[#states + 1] = { count_of[state], labels = { { "state", state } } }
  end
  out:add("lupe_rules", "gauge", "Files of rules by what became of them.", states)
  out:add("lupe_rule_runs", "counter", "Times that a rule was run.", runs)
  out:add("lupe_rule_errors", "counter", "Runs of a rule that failed.", errors)
  out:add("lupe_rule_duration_seconds", "gauge", "What the rule's last run took.", seconds)
  out:add("lupe_rule_findings", "gauge", "What the rule's last run found.", found)
end

--- A part of the program holds more memory than its budget allows.
local budgets = require("budgets")

return {
  api = 1, id = "alert.component-budget", kind = "alert", needs = { "heap" },
  title = "A part of the program holds more than its budget allows",
  params = { slack = { default = 0.1, min = 0, max = 1, doc = "so much more is not worth a word" } },
  check = function(view, params)
    local findings = {}
    for _, row in ipairs(budgets.held(view)) do
      if row.live_mib > row.budget_mib * (1 + params.slack) then
        findings[#findings + 1] = {
          site = row.site, score = row.live_mib / row.budget_mib, severity = "high",
          summary = ("The %s holds %s, and may hold %s"):format(row.part, words.bytes(row.live_mib * 2 ^ 20),
            words.bytes(row.budget_mib * 2 ^ 20)),
          evidence = { part = row.part, live_mib = row.live_mib, budget_mib = row.budget_mib },
        }
      end
    end
    return findings
  end,
}

--- Every part of the program with its budget, and what it holds.
local budgets = require("budgets")

return {
  api = 1, method = "GET", path = "/api/x/budgets",
  summary = "What each part of the program holds, and may hold",
  response = { "parts object[]" },
  handler = function()
    local view, why_not = lupe.view()
    if not view then return 503, nil, why_not .. "\n" end
    local parts = {}
    for i, row in ipairs(budgets.held(view)) do
      parts[i] = { part = row.part, live_mib = row.live_mib, budget_mib = row.budget_mib }
    end
    return 200, nil, { parts = parts }
  end,
}

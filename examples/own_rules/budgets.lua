--- How much memory each part of the program may hold: for the rule and the route.
local MIB = 2 ^ 20
local budgets = {
  list = {
    { part = "page cache", holder = "cache_page", mib = 8 },
    { part = "word index", holder = "index_word", mib = 8 },
  },
}

--- Each part with what it holds now: { part, budget_mib, live_mib, site }, site nil where it holds nothing.
function budgets.held(view)
  local rows = {}
  for i, budget in ipairs(budgets.list) do
    rows[i] = { part = budget.part, budget_mib = budget.mib, live_mib = 0 }
    for site in view.heap:sites { min_inuse_space = 1 } do
      if site.name == budget.holder then
        rows[i].live_mib, rows[i].site = rows[i].live_mib + site.inuse_space / MIB, site
      end
    end
  end
  return rows
end

return budgets

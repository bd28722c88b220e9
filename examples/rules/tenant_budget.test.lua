-- Cases for tenant_budget.lua: lupe rules test examples/rules/tenant_budget.lua
local MIB = 2 ^ 20
local program = {
  sites = {
    {
      name = "load_page", inuse_space = 110 * MIB, stacks = {
        { stack = { "load_page", "[tag]!acme", "main" }, inuse_space = 70 * MIB },
        { stack = { "load_page", "[tag]!globex", "main" }, inuse_space = 40 * MIB },
      },
    },
  },
}

return {
  { name = "tells who is above the budget", view = program, expect = { { component = "acme", severity = "medium" } } },
  { name = "goes by the budget", view = program, params = { budget = 30 }, expect = { {}, {} } },
  {
    name = "finds tenants in functions' names",
    view = { sites = { { name = "load_acme_page", inuse_space = 70 * MIB } } }, params = { pattern = "^load_(%w+)_" },
    expect = { { component = "load_acme_page", summary = "^Tenant acme holds 70.0 MiB" } },
  },
}

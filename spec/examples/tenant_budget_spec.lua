local example = require("spec.examples.example_rule")

local MIB = 2 ^ 20

describe("the example rule tenant_budget", function()
  local tagged = {
    sites = {
      {
        name = "load_page", inuse_space = 110 * MIB, stacks = {
          { stack = { "load_page", "[tag]!acme", "main" }, inuse_space = 70 * MIB },
          { stack = { "load_page", "[tag]!globex", "main" }, inuse_space = 40 * MIB },
        },
      },
      { name = "load_index", inuse_space = 90 * MIB, stack = { "load_index", "[tag]!acme", "main" } },
      { name = "boot", inuse_space = 500 * MIB },
    },
  }

  it("adds up what each tag holds, and tells those above the budget", function()
    local findings = example.run("tenant_budget", tagged).findings
    assert.equal(1, #findings)
    assert.equal("Tenant acme holds 160 MiB, and may hold 64.0 MiB", findings[1].summary)
    assert.same({ "acme", "tag", "acme" }, { findings[1].site.name, findings[1].site.group, findings[1].site.tag })
    assert.equal("high", findings[1].severity)
    assert.same({ "Evict what acme keeps, most of it by load_index" }, findings[1].advice)
  end)

  it("goes by the budget that it is given", function()
    assert.equal(2, #example.summaries("tenant_budget", tagged, { budget = 30 }))
    assert.same({}, example.summaries("tenant_budget", tagged, { budget = 160 }))
    assert.equal("Tenant acme holds 160 MiB, and may hold 0 B",
      example.summaries("tenant_budget", tagged, { budget = 0 })[1])
  end)

  it("finds tenants in the names of functions where there are no tags", function()
    local named = {
      sites = {
        { name = "load_acme_page", inuse_space = 40 * MIB }, { name = "load_acme_index", inuse_space = 30 * MIB },
        { name = "load_globex_page", inuse_space = 60 * MIB }, { name = "boot", inuse_space = 500 * MIB },
      },
    }
    assert.same({}, example.summaries("tenant_budget", named))
    local findings = example.run("tenant_budget", named, { pattern = "^load_(%w+)_" }).findings
    assert.equal(1, #findings)
    assert.equal("Tenant acme holds 70.0 MiB, and may hold 64.0 MiB", findings[1].summary)
    assert.equal("load_acme_page", findings[1].site.name)
  end)
end)

--- A tenant holds more memory than its budget allows.
-- Tenants are tags. A program that sets none may have a function per tenant: then `pattern` finds the tenant in the
-- function's name, such as "^load_(%w+)_page$" in load_acme_page.
local MIB = 2 ^ 20

local function add(tenants, list, name, site)
  local tenant = tenants[name]
  if not tenant then
    tenant = { name = name, bytes = 0, site = site }
    tenants[name], list[#list + 1] = tenant, tenant
  end
  tenant.bytes = tenant.bytes + site.inuse_space
  if site.inuse_space > tenant.site.inuse_space then tenant.site = site end
end

local function tenants_of(view, pattern)
  local tenants, list = {}, {}
  local group = pattern == "" and "tag" or "function"
  for site in view.heap:sites { group = group, min_inuse_space = 1, by = "inuse_space" } do
    local name = pattern == "" and site.name or site.name:match(pattern)
    if name then add(tenants, list, name, site) end
  end
  return list
end

return {
  api = 1, id = "alert.tenant-budget", kind = "alert", needs = { "heap" },
  title = "A tenant holds more memory than its budget allows",
  params = {
    budget = { default = 64, min = 0, unit = "MiB", doc = "live memory of one tenant, at most" },
    pattern = { default = "", doc = "captures the tenant in a function's name; empty: tenants are tags" },
  },
  check = function(view, params)
    local findings = {}
    for _, tenant in ipairs(tenants_of(view, params.pattern)) do
      local over = tenant.bytes / MIB - params.budget
      if over > 0 then
        findings[#findings + 1] = {
          site = tenant.site, score = over, severity = over > params.budget and "high" or "medium",
          summary = ("Tenant %s holds %s, and may hold %s"):format(tenant.name, words.bytes(tenant.bytes),
            words.bytes(params.budget * MIB)),
          evidence = { tenant = tenant.name, bytes = tenant.bytes, budget_bytes = params.budget * MIB },
          advice = { ("Evict what %s keeps, most of it by %s"):format(tenant.name, tenant.site.stack[1]) },
        }
      end
    end
    return findings
  end,
}

require("spec.support")
local rule_health = require("lupe.rule_health")

describe("a rule's health", function()
  local health, entry, logged

  before_each(function()
    logged = {}
    health = rule_health.new(function(_, message) logged[#logged + 1] = message end)
    entry = { path = "rules/mine.lua", source = "return {}", loaded = { id = "leak.mine" } }
  end)

  local function fail(...)
    for _, kind in ipairs({ ... }) do health:failed(entry, kind, "rules/mine.lua:2: " .. kind, 1) end
  end

  it("ends in quarantine after any three stops in a row", function()
    fail("instructions", "memory")
    assert.is_false(health:of(entry).quarantined)
    fail("deadline")
    assert.is_true(health:of(entry).quarantined)
    assert.equal("rule leak.mine: stopped 3 times in a row, not run again until rules/mine.lua changes",
      logged[#logged])
  end)

  it("does not where something else came between", function()
    fail("died", "died")
    health:succeeded(entry, 1, 0)
    fail("died", "died", "error", "died", "died", "system", "died", "starved")
    assert.is_false(health:of(entry).quarantined)
    for _ = 1, 20 do fail("error") end -- what only fails costs nothing
    assert.is_false(health:of(entry).quarantined)
  end)

  it("is new with the file's text, and not with its time", function()
    fail("memory", "memory", "memory")
    entry = { path = "rules/mine.lua", source = "return {}", loaded = entry.loaded }
    assert.is_true(health:of(entry).quarantined)
    entry.source = "return { }"
    assert.same({ false, 0, 3 }, { health:of(entry).quarantined, health:of(entry).strikes, health:of(entry).errors })
    fail("memory", "memory")
    assert.is_false(health:of(entry).quarantined)
  end)

  it("is each file's own, also where two have the same id", function()
    fail("memory", "memory", "memory")
    local other = { path = "mine/other.lua", source = "return {}", loaded = entry.loaded }
    assert.is_false(health:of(other).quarantined)
    health:keep({ ["mine/other.lua"] = true })
    assert.is_false(health:of(entry).quarantined)
  end)
end)

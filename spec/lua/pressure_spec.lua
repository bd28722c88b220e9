local fake = require("spec.fake_host")
require("spec.support")
local pressure = require("lupe.pressure")

local MIB = 2 ^ 20

describe("how near memory is to its limits", function()
  local function group(used)
    return { limit_bytes = 1000 * MIB, used_bytes = used * MIB, reclaimable_bytes = 50 * MIB }
  end

  it("rises by steps with the thresholds, and with what the control group cannot take back", function()
    local shares = { near = 0.7, very_near = 0.9 }
    assert.same({ 0, 1, 2 }, { pressure("normal"), pressure("warning"), pressure("critical") })
    assert.same({ 0, 1, 2 }, {
      pressure("normal", group(740), shares), pressure("normal", group(760), shares),
      pressure("normal", group(960), shares),
    })
    assert.equal(2, pressure("critical", group(760), shares))
  end)

  it("does not mind the control group where no rule does, or one that has no such shares", function()
    assert.equal(0, pressure("normal", group(1000)))
    assert.equal(0, pressure("normal", group(1000), { near = "soon" }))
    assert.equal(0, pressure("normal", { used_bytes = 5 }, { near = 0.7, very_near = 0.9 }))
  end)

  it("goes by what the operator set for the rule about the control group", function()
    local function params_with(settings)
      local server = fake.server()
      for name, value in pairs(settings) do server.host.config[name] = value end
      return server.app.analysis:params_in_force("alert.cgroup-limit")
    end
    local usual = params_with({})
    assert.same({ 0.85, 0.95 }, { usual.near, usual.very_near })
    local moved = params_with({ rule_params = { ["alert.cgroup-limit"] = { near = 0.7 } } })
    assert.same({ 0.7, 0.95 }, { moved.near, moved.very_near })
    assert.is_nil(params_with({ rules_disabled = { "alert.cgroup-limit" } }))
  end)
end)

require("spec.support")
local capture = require("lupe.capture")
local fake = require("spec.fake_host")

describe("capture", function()
  local host, rules

  before_each(function()
    host, rules = fake.new(), {}
  end)

  local function new() return capture.new(host, function() return rules end) end
  local function rule(state, ...) rules[#rules + 1] = { state = state, needs = { ... } } end

  it("takes the samples that a rule needs, at the usual rates", function()
    rule("active", "heap", "cpu")
    local self = new()
    assert.same({ 99, 0 }, host.rates)
    assert.same({ wall = "no rule needs it; --wall-hz 20 has it all the same" }, self.off_because)
    rule("active", "wall")
    self:update()
    assert.same({ 99, 20 }, host.rates)
    assert.same({}, self.off_because)
    assert.same({ "info: wall samples: 20 a second" }, host.logged)
  end)

  it("looks at waiting threads for a rule that wants to see threads", function()
    rule("active", "memory", "threads")
    new()
    assert.same({ 0, 20 }, host.rates)
  end)

  it("does not count rules that are not in force", function()
    for _, state in ipairs({ "shadowed", "quarantined", "disabled" }) do rule(state, "cpu", "wall") end
    new()
    assert.same({ 0, 0 }, host.rates)
  end)

  it("takes all while nothing is known of the rules, or of one of them", function()
    rules = nil
    local self = new()
    assert.same({ 99, 20 }, host.rates)
    rules = {}
    self:update()
    assert.same({ 0, 0 }, host.rates)
    rules = { { state = "broken" } }
    self:update()
    assert.same({ 99, 20 }, host.rates)
  end)

  it("stops when the last rule that needs it is gone, and says why", function()
    rule("active", "cpu")
    local self = new()
    rules = {}
    self:update()
    assert.same({ 0, 0 }, host.rates)
    assert.same({ "info: cpu samples: 0 a second, since no rule needs it; --cpu-hz 99 has it all the same" },
      host.logged)
  end)

  it("tells the agents only where a rate has changed", function()
    local times = 0
    host.set_rates = function() times = times + 1 end
    rule("active", "cpu")
    local self = new()
    for _ = 1, 5 do self:update() end
    assert.equal(1, times)
  end)

  it("does what the operator asked for, whatever rules need", function()
    host.config.cpu_hz, host.config.sources.cpu_hz = 250, "flag"
    host.config.wall_hz, host.config.sources.wall_hz = 0, "environment"
    rule("active", "wall")
    local self = new()
    assert.same({ 250, 0 }, host.rates)
    assert.same({ wall = "--wall-hz 0 has switched it off" }, self.off_because)
  end)

  it("keeps what an action chose", function()
    rule("active", "cpu", "wall")
    local self = new()
    self:choose({ cpu_hz = 499 })
    assert.same({ 499, 20 }, host.rates)
    self:choose({ wall_hz = 0 })
    rules = {}
    self:update()
    assert.same({ 499, 0 }, host.rates)
    assert.same({ wall = "an action of a rule has switched it off" }, self.off_because)
  end)
end)

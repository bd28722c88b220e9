require("spec.support")
local threshold = require("lupe.threshold")

local function statuses(rss_list)
  local one, list = threshold.new(650, 700), {}
  for i, rss_mb in ipairs(rss_list) do list[i] = one:update("all", rss_mb) end
  return list
end

describe("the memory threshold", function()
  it("rises above the limits, not at them", function()
    assert.same({ "normal", "warning", "warning", "critical" }, statuses({ 650, 650.1, 700, 700.1 }))
  end)

  it("falls back only below 95 % of a limit", function()
    assert.same({ "warning", "warning", "normal" }, statuses({ 660, 620, 617 }))
    assert.same({ "critical", "critical", "warning", "normal" }, statuses({ 720, 670, 660, 610 }))
  end)

  it("names figure and limit in its warning", function()
    local one = threshold.new(650, 700)
    local _, warnings = one:update("all", 660)
    assert.same({ "rss_mb 660.0 is above the warning limit of 650 MiB" }, warnings)
    _, warnings = one:update("all", 640)
    assert.same({ "rss_mb 640.0 was above the warning limit of 650 MiB, and is not 5 % below it yet" }, warnings)
    _, warnings = one:update("all", 1)
    assert.same({}, warnings)
  end)

  it("knows one process from another, and only so many", function()
    local one = threshold.new(650, 700)
    assert.equal("critical", one:update(1, 800))
    assert.equal("normal", one:update(2, 1))
    for pid = 3, 2000 do one:update(pid, 1) end
    assert.is_true(one.count <= 256)
  end)
end)

require("spec.support")
local fake = require("spec.fake_host")
local totals = require("lupe.totals")

describe("the totals of a run", function()
  it("never fall when a process ends", function()
    local figures = {
      [1] = fake.figures({ user_ns = 10 }), [2] = fake.figures({ user_ns = 5 }),
    }
    local list = { fake.target({ pid = 1 }), fake.target({ pid = 2 }) }
    local sums = totals.new(fake.new({
      target_list = list, memory = function(pid) return figures[pid] end,
    }))
    assert.equal(15, sums:update().user_ns)
    list[2].live = false
    figures[1] = fake.figures({ user_ns = 12 })
    assert.equal(17, sums:update().user_ns)
    assert.equal(17, sums:update().user_ns)
  end)

  it("take a reused pid for another process", function()
    local figures = fake.figures({ user_ns = 10 })
    local sums = totals.new(fake.new({ memory = function() return figures end }))
    assert.equal(10, sums:update().user_ns)
    figures = fake.figures({ user_ns = 3 })
    assert.equal(13, sums:update().user_ns)
  end)
end)

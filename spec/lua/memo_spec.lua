require("spec.support")
local memo = require("lupe.memo")

describe("a figure that is remembered", function()
  it("is read again only when it is old, for each key by itself", function()
    local now, reads = 0, 0
    local figure = memo(function() return now end, 100, function(key)
      reads = reads + 1
      return { key, reads }
    end)
    assert.same({ nil, 1 }, figure())
    assert.same({ 7, 2 }, figure(7))
    now = 99
    assert.same({ nil, 1 }, figure())
    now = 100
    assert.same({ nil, 3 }, figure())
    for key = 1, 1000 do figure(key) end
    assert.equal(1003, reads)
  end)
end)

require("spec.support")
local async = require("lupe.async")
local fake = require("spec.fake_host")
local views = require("lupe.views")

local HEAP = { sites = { { name = "f", history = { 100 } } } }

describe("views of snapshots", function()
  local host, all, taken

  before_each(function()
    taken = 0
    host = fake.new({ heap = HEAP })
    local take = host.take_snapshot
    host.take_snapshot = function(...)
      taken = taken + 1
      take(...)
    end
    all = views.new(host)
  end)

  local function of(pid)
    local got
    async.spawn(function() return all:of(pid) end, function(_, view) got = view end)
    while host.run_pending() > 0 do end
    return got
  end

  it("are made once per round", function()
    local merged, single = all:merged(), of(1)
    assert.equal(merged, all:merged())
    assert.equal(single, of(1))
    assert.equal(1, taken)
    all:clear()
    assert.not_equal(merged, all:merged())
    assert.not_equal(single, of(1))
    assert.equal(2, taken)
  end)

  it("of single processes are few", function()
    for pid = 1, 5 do of(pid) end
    of(5)
    assert.equal(5, taken)
    of(1)
    assert.equal(6, taken)
  end)

  it("are not kept where a newer round came in while one was made", function()
    host.immediate = false
    local late
    async.spawn(function() return all:of(1) end, function(_, view) late = view end)
    all:clear()
    while host.run_pending() > 0 do end
    assert.is_not_nil(late)
    assert.not_equal(late, of(1))
    assert.equal(2, taken)
  end)

  it("say why there is none", function()
    host.heap = nil
    local view, reason = all:merged()
    assert.is_nil(view)
    assert.equal("no heap profile was taken yet", reason)
  end)
end)

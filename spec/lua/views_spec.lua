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
    all = views.new(host, { of = function() return {} end })
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

  it("can be made anew between two rounds, for all who ask then", function()
    local before, fresh = all:merged(), nil
    async.spawn(function() return all:renew() end, function(_, view) fresh = view end)
    assert.not_equal(before, fresh)
    assert.equal(fresh, all:merged())
    assert.equal(1, taken)
    all:clear()
    assert.not_equal(fresh, all:merged())
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

  it("of one process are built once for all who ask meanwhile", function()
    host.immediate = false
    local got = {}
    for i = 1, 5 do
      async.spawn(function() return all:of(1) end, function(_, view) got[i] = view end)
    end
    while host.run_pending() > 0 do end
    assert.equal(1, taken)
    assert.is_not_nil(got[1])
    for i = 2, 5 do assert.equal(got[1], got[i]) end
  end)

  it("fail for all who waited for one, and the next one tries again", function()
    local refuse = true
    host.immediate = false
    local take = host.take_snapshot
    host.take_snapshot = function(...)
      if refuse then
        local callback = select(select("#", ...), ...)
        host.later(function() callback("no memory") end)
      else
        take(...)
      end
    end
    local reasons = {}
    for i = 1, 2 do
      async.spawn(function() return all:of(1) end, function(_, _, reason) reasons[i] = reason end)
    end
    while host.run_pending() > 0 do end
    assert.same({ "no memory", "no memory" }, reasons)
    refuse = false
    assert.is_not_nil(of(1))
  end)

  describe("of a window", function()
    local asked

    before_each(function()
      asked = {}
      local take = host.take_snapshot
      host.take_snapshot = function(pid, window_ms, callback)
        asked[#asked + 1] = { pid or "all", window_ms }
        take(pid, window_ms, callback)
      end
    end)

    local function window(pid, window_ms)
      local got
      async.spawn(function() return all:profile(pid, window_ms) end, function(_, view) got = view end)
      while host.run_pending() > 0 do end
      return got
    end

    it("are good for a second, whatever heap profiles come in", function()
      local first = window(nil, 60000)
      all:clear()
      host.clock_ms = host.clock_ms + 999
      assert.equal(first, window(nil, 60000))
      host.clock_ms = host.clock_ms + 1
      assert.not_equal(first, window(nil, 60000))
      assert.same({ { "all", 60000 }, { "all", 60000 } }, asked)
    end)

    it("are told apart by process and length", function()
      local views_made = { window(nil, 60000), window(nil, 5000), window(100, 60000) }
      assert.same({ { "all", 60000 }, { "all", 5000 }, { 100, 60000 } }, asked)
      assert.not_equal(views_made[1], views_made[2])
      assert.equal(views_made[3], window(100, 60000))
    end)

    it("are few, and gone with the round after their second", function()
      for seconds = 1, 5 do window(nil, seconds * 1000) end
      window(nil, 5000)
      assert.equal(5, #asked)
      window(nil, 1000)
      assert.equal(6, #asked)
      assert.equal(4, #all.windows)
      host.clock_ms = host.clock_ms + 1000
      all:clear()
      assert.equal(0, #all.windows)
    end)

    it("are built once for all who ask meanwhile", function()
      host.immediate = false
      local got = {}
      for i = 1, 3 do
        async.spawn(function() return all:profile(nil, 60000) end, function(_, view) got[i] = view end)
      end
      while host.run_pending() > 0 do end
      assert.equal(1, #asked)
      assert.equal(got[1], got[2])
      assert.equal(got[1], got[3])
    end)
  end)

  it("say why there is none", function()
    host.heap = nil
    local view, reason = all:merged()
    assert.is_nil(view)
    assert.equal("no heap profile was taken yet", reason)
  end)
end)

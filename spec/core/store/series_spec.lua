local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/store/series.h")
local core = support.core()

local function series_of(capacity)
  local out = ffi.new("lupe_series *[1]")
  assert.are.equal(0, tonumber(core.lupe_series_create(out, capacity)))
  return ffi.gc(out[0], core.lupe_series_free)
end

local function append(s, time, may_grow)
  return core.lupe_series_append(s, ffi.new("lupe_memory_figures", { time_ms = time }), may_grow ~= false)
end

local function times(s, capacity)
  local rows = ffi.new("lupe_memory_figures[?]", capacity)
  local found = {}
  for i = 1, tonumber(core.lupe_series_copy(s, rows, capacity)) do found[i] = rows[i - 1].time_ms end
  return found
end

describe("a series", function()
  it("keeps the newest rows, oldest first", function()
    local s = series_of(1000)
    for i = 1, 2500 do append(s, i) end
    local all = times(s, 2000)
    assert.are.equal(1000, #all)
    assert.are.equal(1501, all[1])
    assert.are.equal(2500, all[1000])
    for i = 2, 1000 do assert.are.equal(all[i - 1] + 1, all[i]) end
  end)

  it("gives fewer rows than it has from its newer end", function()
    local s = series_of(10)
    for i = 1, 7 do append(s, i) end
    assert.are.same({ 5, 6, 7 }, times(s, 3))
    assert.are.same({}, times(series_of(5), 3))
  end)

  it("takes memory as rows come, and none where it may not", function()
    local s = series_of(1000)
    assert.is_false(append(s, 1, false))
    assert.are.equal(0, tonumber(core.lupe_series_room(s)))
    for i = 1, 16 do append(s, i) end
    assert.are.equal(16, tonumber(core.lupe_series_room(s)))
    for i = 17, 30 do append(s, i, false) end -- now the oldest makes room
    assert.are.equal(16, tonumber(core.lupe_series_room(s)))
    append(s, 31)
    assert.are.same({ 15, 16, 17 }, { unpack(times(s, 100), 1, 3) })
    assert.are.equal(17, tonumber(core.lupe_series_count(s)))
  end)

  it("has room for at least one row", function()
    local out = ffi.new("lupe_series *[1]")
    assert.are.equal(core.LUPE_EINVAL, core.lupe_series_create(out, 0))
  end)
end)

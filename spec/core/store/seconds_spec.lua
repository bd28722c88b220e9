local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/store/seconds.h")
ffi.cdef("typedef struct spec_second { int64_t second; uint32_t what; char more[20]; } spec_second;")
local core = support.core()
local OK, MOST = 0, tonumber(core.LUPE_SECONDS_MAX)
local NOW = 1700000000

describe("the ring of seconds", function()
  local seconds, dropped
  local drop = ffi.cast("void (*)(void *, void *)", function(_, record)
    dropped[#dropped + 1] = ffi.cast("spec_second *", record).what
  end)
  -- These call back into Lua, so none of their callers may be compiled.
  local function add(second, what)
    local record = ffi.cast("spec_second *", core.lupe_seconds_add(seconds, NOW + second))
    if record == nil then return nil end
    local fresh = { tonumber(record.second) - NOW, record.what }
    record.what = what or second
    return fresh
  end
  jit.off(add)
  local function drop_oldest() core.lupe_seconds_drop_oldest(seconds) end
  jit.off(drop_oldest)
  local function free() core.lupe_seconds_free(seconds) end
  jit.off(free)

  before_each(function()
    dropped = {}
    local out = ffi.new("lupe_seconds *[1]")
    assert(core.lupe_seconds_create(out, ffi.sizeof("spec_second"), drop, nil) == OK)
    seconds = out[0]
  end)
  after_each(free)
  teardown(function() drop:free() end)

  --- What the records say, oldest first.
  local function all()
    local found = {}
    for i = 1, tonumber(core.lupe_seconds_count(seconds)) do
      local record = ffi.cast("spec_second *", core.lupe_seconds_at(seconds, i - 1))
      found[i] = record.what
      assert.is_true(i == 1 or record.second > ffi.cast("spec_second *", core.lupe_seconds_at(seconds, i - 2)).second)
    end
    return found
  end

  local function find(second)
    local record = ffi.cast("spec_second *", core.lupe_seconds_find(seconds, NOW + second))
    return record ~= nil and record.what or nil
  end

  local function from() return tonumber(core.lupe_seconds_from(seconds)) end

  it("keeps a record for each second, in whatever order they come", function()
    for _, second in ipairs { 50, 3, 49, 4, 20 } do assert.same({ second, 0 }, add(second)) end
    assert.same({ 3, 4, 20, 49, 50 }, all())
    assert.same({}, dropped)
    assert.equal(-2 ^ 63, from())
  end)

  it("finds the first that is not before a second", function()
    assert.is_nil(find(0))
    for _, second in ipairs { 3, 4, 20 } do add(second) end
    assert.same({ 3, 3, 4, 20, 20 }, { find(-1000), find(3), find(4), find(5), find(20) })
    assert.is_nil(find(21))
  end)

  it("lets go of what is ten minutes older than the newest, and says from when on it is whole", function()
    for second = 1, MOST + 10 do assert.same({ second, 0 }, add(second)) end -- the places are used again
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, dropped)
    assert.equal(NOW + 11, from())
    assert.same({ MOST, 11, MOST + 10 }, { #all(), all()[1], all()[MOST] })
    add(2 * MOST + 9)
    assert.same({ MOST + 10, 2 * MOST + 9 }, all())
    assert.equal(NOW + MOST + 10, from())
  end)

  it("takes nothing that is ten minutes older than the newest", function()
    add(MOST)
    assert.is_nil(add(0))
    assert.same({ 1, 0 }, add(1))
    assert.same({ 1, MOST }, all())
    assert.same({}, dropped)
  end)

  it("makes room between two when it has gone round", function()
    for second = 0, MOST + MOST / 2, 2 do add(second) end
    assert.same({ MOST + 1, 0 }, add(MOST + 1))
    assert.same({ MOST - 1, 0 }, add(MOST - 1))
    local found = {}
    for i, what in ipairs(all()) do
      if what >= MOST - 2 and what <= MOST + 2 then found[#found + 1] = what end
      assert.is_true(i > 1 or what == MOST / 2 + 2)
    end
    assert.same({ MOST - 2, MOST - 1, MOST, MOST + 1, MOST + 2 }, found)
  end)

  it("drops the oldest when it is told to, and the rest at the end", function()
    for second = 1, 3 do add(second) end
    drop_oldest()
    assert.same({ 1 }, dropped)
    assert.equal(NOW + 2, from())
    free()
    assert.same({ 1, 2, 3 }, dropped)
    seconds = nil -- freeing nothing is nothing
  end)
end)

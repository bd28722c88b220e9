local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/store/stack_table.h")
local core = support.core()

local function table_of(limit)
  local out = ffi.new("lupe_stack_table *[1]")
  assert.are.equal(0, tonumber(core.lupe_stack_table_create(out, limit or 8 * 1024 * 1024)))
  return ffi.gc(out[0], core.lupe_stack_table_free)
end

local function intern(t, frames)
  local raw, id = ffi.new("uint64_t[?]", #frames + 1, frames), ffi.new("uint32_t[1]")
  assert.are.equal(0, tonumber(core.lupe_stack_table_intern(t, raw, #frames, id)))
  return id[0]
end

local function frames_of(t, id)
  local indexes, depth = ffi.new("const uint32_t *[1]"), ffi.new("size_t[1]")
  assert.are.equal(0, tonumber(core.lupe_stack_table_get(t, id, indexes, depth)))
  local frames = {}
  for i = 1, tonumber(depth[0]) do
    frames[i] = tonumber(core.lupe_stack_table_frame(t, indexes[0][i - 1]))
  end
  return frames, indexes[0]
end

describe("the stack table", function()
  it("gives one id to equal stacks and different ones to all others", function()
    local t = table_of()
    local a, b = intern(t, { 10, 20, 30 }), intern(t, { 10, 30, 20 })
    assert.are_not.equal(a, b)
    assert.are_not.equal(a, intern(t, { 10, 20 }))
    assert.are.equal(a, intern(t, { 10, 20, 30 }))
    assert.are.same({ 10, 30, 20 }, (frames_of(t, b)))
    assert.are.equal(4, core.lupe_stack_table_stacks(t)) -- with the overflow stack
  end)

  it("keeps every distinct frame once", function()
    local t = table_of()
    for i = 1, 1000 do intern(t, { i % 7 + 100, i % 5 + 200, i % 3 + 300 }) end
    assert.are.equal(1 + 7 + 5 + 3, core.lupe_stack_table_frames(t))
    assert.are.equal(1 + 105, core.lupe_stack_table_stacks(t))
  end)

  it("gives back all of 20,000 stacks, at places that stay while it grows", function()
    local t = table_of()
    local first = intern(t, { 1, 2, 3 })
    local _, where = frames_of(t, first)
    local ids = {}
    for i = 1, 20000 do ids[i] = intern(t, { i, i % 100, i % 1000, 7 }) end
    for i = 1, 20000, 371 do assert.are.same({ i, i % 100, i % 1000, 7 }, (frames_of(t, ids[i]))) end
    local _, later = frames_of(t, first)
    assert.are.equal(where, later)
    assert.are.same({ 1, 2, 3 }, (frames_of(t, first)))
    -- 4 words, an entry and its slots, a frame and its slots: below 60 bytes a stack with new frames
    assert.is_true(tonumber(core.lupe_stack_table_bytes(t)) < 2.5 * 1024 * 1024)
  end)

  it("shares one stack among all that find no room, counts them, and still knows the others", function()
    local t = table_of(65536)
    local first, overflowed = intern(t, { 5, 6 }), 0
    for i = 1, 20000 do
      if intern(t, { i, i + 1, i + 2 }) == core.LUPE_STACK_OVERFLOW then overflowed = overflowed + 1 end
    end
    assert.is_true(overflowed > 10000)
    assert.are.equal(overflowed, tonumber(core.lupe_stack_table_overflows(t)))
    assert.is_true(tonumber(core.lupe_stack_table_bytes(t)) <= 131072)
    assert.are.equal(first, intern(t, { 5, 6 }))
    assert.are.same({ 1 }, (frames_of(t, core.LUPE_STACK_OVERFLOW)))
  end)

  it("takes stacks of 1 to 128 frames", function()
    local t = table_of()
    local raw, id = ffi.new("uint64_t[129]"), ffi.new("uint32_t[1]")
    assert.are.equal(0, tonumber(core.lupe_stack_table_intern(t, raw, 128, id)))
    assert.are.equal(core.LUPE_EINVAL, core.lupe_stack_table_intern(t, raw, 129, id))
    assert.are.equal(core.LUPE_EINVAL, core.lupe_stack_table_intern(t, raw, 0, id))
  end)

  it("knows no id or frame that it did not give out", function()
    local t = table_of()
    local indexes, depth = ffi.new("const uint32_t *[1]"), ffi.new("size_t[1]")
    assert.are.equal(core.LUPE_ENOENT, core.lupe_stack_table_get(t, 77, indexes, depth))
    assert.are.equal(0, tonumber(core.lupe_stack_table_frame(t, 77)))
    local out = ffi.new("lupe_stack_table *[1]")
    assert.are.equal(core.LUPE_EINVAL, core.lupe_stack_table_create(out, 100))
  end)
end)

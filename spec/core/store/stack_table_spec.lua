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

  local function intern_sample(t, frames)
    local raw, id = ffi.new("uint64_t[?]", #frames + 1, frames), ffi.new("uint32_t[1]")
    assert.are.equal(0, tonumber(core.lupe_stack_table_intern_sample(t, raw, #frames, id)))
    return id[0]
  end

  it("keeps what it is asked to, in the same order, and has room for others", function()
    local t = table_of()
    local stacks, ids = {}, {}
    for i = 1, 20000 do
      stacks[i] = { i % 300 + 10, math.floor(i / 300) + 1000 }
      for k = 3, 3 + i * 7 % 40 do stacks[i][k] = 7 end
      ids[i] = intern(t, stacks[i])
    end
    local before = tonumber(core.lupe_stack_table_bytes(t))
    local frames = core.lupe_stack_table_frames(t)
    for round = 1, 2 do -- all that are left, the second time
      local kept = ffi.new("uint32_t[?]", core.lupe_stack_table_stacks(t))
      for i = 3, 20000, 3 do kept[ids[i]] = 1 end
      core.lupe_stack_table_keep(t, kept)
      assert.are.equal(1 + 6666, core.lupe_stack_table_stacks(t))
      local last = core.LUPE_STACK_OVERFLOW
      for i = 3, 20000, 3 do
        ids[i] = kept[ids[i]]
        assert.is_true(ids[i] == last + 1, round)
        last = ids[i]
        assert.are.same(stacks[i], (frames_of(t, ids[i])))
        assert.are.equal(ids[i], intern(t, stacks[i]))
      end
    end
    assert.are.same({ 1 }, (frames_of(t, core.LUPE_STACK_OVERFLOW)))
    assert.is_true(tonumber(core.lupe_stack_table_bytes(t)) < before - 20000 * 20 * 4 / 2)
    assert.are.equal(frames, core.lupe_stack_table_frames(t))
    for i = 1, 20000 do assert.are.same(stacks[i], (frames_of(t, intern(t, stacks[i])))) end
    assert.are.equal(1 + 20000, core.lupe_stack_table_stacks(t))
    assert.are.equal(before, tonumber(core.lupe_stack_table_bytes(t)))
    core.lupe_stack_table_keep(t, ffi.new("uint32_t[?]", 20001))
    assert.are.equal(1, core.lupe_stack_table_stacks(t))
    assert.are.equal(1, intern(t, stacks[5]))
  end)

  it("leaves room for others where samples have none any more", function()
    for _, depth in ipairs { 3, 60 } do -- entries run out first, or what stacks are kept in
      local limit = depth == 3 and 3 * 1024 * 1024 or 2 * 1024 * 1024
      local t = table_of(limit)
      local function stack(i)
        local frames = { i % 500 + 10, math.floor(i / 500) + 1000 }
        for k = 3, depth do frames[k] = 7 end
        return frames
      end
      local n = 0
      repeat n = n + 1 until intern_sample(t, stack(n)) == core.LUPE_STACK_OVERFLOW
      assert.is_true(tonumber(core.lupe_stack_table_bytes(t)) <= limit / 16 * 13)
      local found = 0
      for i = 0, 300000 do
        if intern(t, stack(i)) == core.LUPE_STACK_OVERFLOW then break end
        assert.are.equal(core.LUPE_STACK_OVERFLOW, intern_sample(t, stack(300001)))
        if i >= n then found = found + 1 end
      end
      assert.is_true(found > n / 8, depth .. ": " .. found .. " of " .. n)
      assert.is_true(intern_sample(t, stack(1)) ~= core.LUPE_STACK_OVERFLOW)
      assert.is_true(tonumber(core.lupe_stack_table_bytes(t)) <= limit)
    end
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

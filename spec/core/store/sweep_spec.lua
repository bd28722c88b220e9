local ffi = require("ffi")
local support = require("spec.support")
local snapshots = require("spec.support_snapshot")

local core = support.core()
local T0 = snapshots.epoch_ms
local PLACES = 200 -- places in a function that stacks are told apart by

describe("the sweep of the stack table", function()
  local run, address, maps, depth
  before_each(function()
    run = snapshots.run { cpu_hz = 100, stack_bytes = 2 * 1024 * 1024 }
    depth = 16
    address, maps = snapshots.program { "f", "g", "h", "main" }
  end)
  after_each(support.cleanup)

  --- Addresses of stack `i` of `kind`: no two have the same.
  local function stack(kind, i)
    local addresses = { address(kind) + i % PLACES, address(kind) + math.floor(i / PLACES) % PLACES,
      address(kind) + math.floor(i / PLACES ^ 2) }
    for k = #addresses + 1, depth do addresses[k] = address("main") end
    return addresses
  end

  local function started(info)
    local t = run:add(info or { pid = 2 ^ 30 })
    run:set_maps(t, maps)
    return t
  end

  local function sample(t, second, i, weight)
    run:thread_sample(t, { time_ms = second * 1000, weight = weight }, stack("f", i))
  end

  local function heap(t, second, kind, first, count)
    local rows = {}
    for i = 1, count do rows[i] = { addresses = stack(kind, first + i - 1), objects = i, bytes = 64 * i } end
    run:round(T0 + second * 1000, { { t, snapshots.dump(1, rows, maps) } })
  end

  local function overflows() return tonumber(core.lupe_aggregator_stack_overflows(run.a)) end

  local function snapshot(second, window_ms)
    local built = run:snapshot(0, T0 + second * 1000, window_ms or 600000)
    assert.equal(0, tonumber(core.lupe_snapshot_validate(built.address, built.bytes, nil)))
    return built
  end

  --- How many samples have which stack, by the addresses of the three frames that tell it apart.
  local function sampled(built)
    local h, counts = built.header, {}
    local first = snapshots.column(h, "stack_first", "uint32_t")
    local frames = snapshots.column(h, "stack_frames", "uint32_t")
    local rows = snapshots.column(h, "frames", "lupe_snapshot_frame")
    local of, count = snapshots.column(h, "sample_stack", "uint32_t"), snapshots.column(h, "sample_count", "double")
    for i = 0, tonumber(h.sample_stack.count) - 1 do
      local from, to = first[of[i]], first[of[i] + 1]
      local key = {}
      for k = from, math.min(from + 3, to) - 1 do key[#key + 1] = tonumber(rows[frames[k]].address) end
      key = table.concat(key, " ")
      counts[key] = (counts[key] or 0) + count[i]
    end
    return counts, built -- which keeps the header alive
  end

  local function sites(built)
    local rows = snapshots.sites(built.header)
    return rows, built
  end

  --- The same of stack `i`; a leaf is exact, the others are where calls return to.
  local function key(i)
    local s = stack("f", i)
    local base = address("f") - address("f") % 0x100000000
    return ("%d %d %d"):format(s[1] - base, s[2] - 1 - base, s[3] - 1 - base)
  end

  --- New stacks until the table has no room for those of samples; how many that takes.
  local function fill(t, second)
    local n = 0
    while overflows() == 0 do
      for _ = 1, 200 do
        sample(t, second, n)
        n = n + 1
      end
      snapshot(second, 1) -- takes them in, without a sweep
    end
    return n
  end

  it("lets an hour of ever new stacks find room, ten minutes at a time", function()
    local t, n = started(), 0
    for second = 0, 3599 do
      for _ = 1, 10 do
        sample(t, second, n, 1 + n % 7)
        n = n + 1
      end
      core.lupe_aggregator_absorb(run.a)
    end
    assert.equal(0, overflows())
    local expected = {}
    for i = n - 6000, n - 1 do expected[key(i)] = 1 + i % 7 end
    assert.same(expected, (sampled(snapshot(3599))))
  end)

  it("changes nothing that a snapshot shows, and makes room", function()
    local t, other = started(), started { pid = 2 ^ 30 + 1 }
    heap(t, 0, "g", 0, 500)
    heap(other, 1, "h", 300, 400)
    local n = fill(t, 2)
    heap(t, 3, "g", 400, 300)
    for i = 1, 400 do sample(i % 3 == 0 and other or t, 700 + i % 10, 7 * i) end -- old stacks and new ones
    local before, full = snapshot(709), overflows()
    core.lupe_aggregator_absorb(run.a)
    local after = snapshot(709)
    assert.equal(before.bytes, after.bytes)
    assert.is_true(ffi.string(before.address, before.bytes) == ffi.string(after.address, after.bytes))
    for i = 1, 400 do sample(i % 3 == 0 and other or t, 700 + i % 10, 7 * i) end -- finds the same rows
    local doubled = sampled(before)
    for k, count in pairs(doubled) do doubled[k] = 2 * count end
    assert.same(doubled, (sampled(snapshot(709))))
    for i = 0, n / 2 do sample(t, 710, 100000 + i) end
    heap(other, 711, "h", 300, 500)
    assert.equal(500 * 501 / 2 * 64, sites(snapshot(711)).h.inuse_space)
    assert.equal(full, overflows())
  end)

  it("leaves room for the heap where samples fill the table", function()
    local t = started()
    for _ = 1, 3 do
      fill(t, 0)
      core.lupe_aggregator_absorb(run.a) -- all of them are still in the log
    end
    local full = overflows()
    for second = 1, 5 do
      heap(t, second, "g", 200 * second, 200)
      for i = 0, 199 do sample(t, second, 100000 + 200 * second + i) end -- they do not take what the heap took
      core.lupe_aggregator_absorb(run.a)
    end
    assert.equal(full + 1000, overflows())
    local rows = sites(snapshot(5))
    assert.equal(200 * 201 / 2 * 64, rows.g.inuse_space)
    assert.is_nil(rows["[stack table full]"])
  end)

  --- Ten minutes of so many new stacks a second are more than there is room for.
  local function overfill(per_second)
    local t, n, lost = started(), 0, nil
    for second = 0, 1999 do
      if second == 1200 then lost = overflows() end
      for _ = 1, per_second do
        sample(t, second, n)
        n = n + 1
      end
      core.lupe_aggregator_absorb(run.a)
    end
    lost = overflows() - lost
    assert.is_true(lost > 0 and lost < 0.6 * per_second * 800, lost) -- of those of the last 800 seconds
    heap(t, 2000, "g", 0, 1000)
    assert.equal(1000 * 1001 / 2 * 64, sites(snapshot(2000)).g.inuse_space)
  end

  it("goes on where ten minutes are more than there is room for", function() overfill(40) end)

  it("goes on where there are too many short stacks", function()
    run = snapshots.run { cpu_hz = 100, stack_bytes = 3 * 1024 * 1024 }
    depth = 3
    overfill(100)
  end)

  it("makes room of the heaps of processes that are forgotten", function()
    for i = 1, 400 do
      local t = started { pid = 2 ^ 30 + i }
      heap(t, i, "g", 100 * i, 100)
      core.lupe_target_died(t, T0 + i * 1000)
    end
    assert.equal(0, overflows())
    assert.equal(65 * 100 * 101 / 2 * 64, sites(run:snapshot(-1, T0 + 400000)).g.inuse_space)
  end)
end)

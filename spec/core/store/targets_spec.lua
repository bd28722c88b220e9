local ffi = require("ffi")
local support = require("spec.support")
local snapshots = require("spec.support_snapshot")

local core = support.core()
local T0 = snapshots.epoch_ms

local function statuses(run)
  local count = tonumber(core.lupe_aggregator_targets(run.a, nil, 0))
  local rows, list = ffi.new("lupe_target_status[?]", count + 1), {}
  core.lupe_aggregator_targets(run.a, rows, count)
  for i = 1, count do
    local r = rows[i - 1]
    list[i] = { pid = r.pid, name = ffi.string(r.name), live = r.live, last_ms = r.last_ms }
  end
  return list
end

local function died(target, ms) core.lupe_target_died(target, T0 + (ms or 0)) end

local function memory(run, pid)
  local out = ffi.new("lupe_memory_figures")
  local status = tonumber(core.lupe_aggregator_memory(run.a, pid or 0, out))
  return status == 0 and out or nil, status
end

local function series(run, pid)
  local rows, count = ffi.new("lupe_memory_figures[2000]"), ffi.new("size_t[1]")
  local status = tonumber(core.lupe_aggregator_series(run.a, pid or 0, rows, 2000, count))
  if status ~= 0 then return nil, status end
  local list = {}
  for i = 1, tonumber(count[0]) do list[i] = { tonumber(rows[i - 1].rss_bytes), rows[i - 1].time_ms - T0 } end
  return list
end

describe("the targets of a run", function()
  local run, dump
  before_each(function()
    run = snapshots.run()
    local address, maps = snapshots.program { "leak", "main" }
    function dump(bytes)
      return snapshots.dump(1, { { addresses = { address("leak"), address("main") }, objects = bytes / 64,
        bytes = bytes } }, maps)
    end
  end)
  after_each(support.cleanup)

  local function inuse(pid)
    local sites = snapshots.sites(run:snapshot(pid).header)
    return sites.leak and sites.leak.inuse_space or 0
  end

  it("are listed live ones first, oldest first", function()
    local a = run:add { pid = 10, name = "a" }
    run:add { pid = 11, name = "b" }
    run:add { pid = 12, name = "c" }
    died(a)
    local list = statuses(run)
    assert.are.same({ 11, 12, 10 }, { list[1].pid, list[2].pid, list[3].pid })
    assert.are.same({ 1, 1, 0 }, { list[1].live, list[2].live, list[3].live })
  end)

  it("leave the merged view when they die, and stay in the report at exit", function()
    local a, b = run:add { pid = 10 }, run:add { pid = 11 }
    run:round(T0, { { a, dump(64) }, { b, dump(640) } })
    died(b, 500)
    assert.are.equal(64, inuse(0))
    assert.are.equal(704, inuse(-1))
    assert.are.equal(640, inuse(11))
  end)

  it("leave out of the report at exit forked children that ended long before", function()
    local a = run:add { pid = 10 }
    local child = run:add { pid = 11, forked = 1 }
    run:round(T0, { { a, dump(64) }, { child, dump(64) } })
    died(child, 100)
    assert.are.equal(128, inuse(-1)) -- both ended at the end, as far as one can tell
    run:round(T0 + 1000, { { a, dump(64) } })
    run:round(T0 + 2000, { { a, dump(64) } })
    assert.are.equal(64, inuse(-1))
  end)

  it("go on where they were when they lose their connection", function()
    local a = run:add { pid = 10, name = "a" }
    run:round(T0, { { a, dump(64) } })
    died(a)
    local again = run:add { pid = 10, name = "a" }
    run:round(T0 + 1000, { { again, dump(128) } })
    assert.are.same({ 64, 128 }, snapshots.sites(run:snapshot().header).leak.history)
    assert.are.equal(1, #statuses(run))
  end)

  it("are another one after an exec, and what the old one had is gone", function()
    local shell = run:add { pid = 10, name = "sh" }
    run:round(T0, { { shell, dump(64) } })
    died(shell)
    local program = run:add { pid = 10, name = "app" }
    run:round(T0 + 1000, { { program, dump(640) } })
    assert.are.equal(640, inuse(10))
    assert.are.equal(640, inuse(-1))
    local reused = run:add { pid = 10, start_ticks = 99, name = "sh" }
    assert.are_not.equal(shell, reused)
  end)

  it("are at most 4,096 at a time", function()
    local first
    for i = 1, 4096 do
      local t = run:add { pid = i, start_ticks = i }
      first = first or t
    end
    assert.has_error(function() run:add { pid = 5000 } end)
    died(first)
    run:add { pid = 5000 }
    assert.are.equal(4097, #statuses(run))
    assert.has_error(function() run:add { pid = 0 } end)
  end)

  it("forget the one that died first when more than 64 are dead", function()
    for i = 1, 100 do
      local t = run:add { pid = i }
      run:round(T0 + i, { { t, dump(64) } })
      died(t, i)
    end
    local list = statuses(run)
    assert.are.equal(64, #list)
    assert.are.equal(37, list[1].pid)
    assert.are.equal(64, inuse(37))
    assert.has_error(function() run:snapshot(36) end)
  end)

  it("may die while a job still holds them", function()
    local t = core.lupe_target_retain(run:add { pid = 1 })
    died(t)
    for i = 2, 80 do died(run:add { pid = i }, i) end
    assert.are.equal(64, #statuses(run))
    local status = run:try_ingest(t, dump(64))
    assert.are.equal(0, status)
    core.lupe_target_release(t)
  end)

  it("sum their memory, and keep the CPU time of those that are gone", function()
    assert.are.equal(core.LUPE_ENOENT, select(2, memory(run)))
    local a, b = run:add { pid = 10 }, run:add { pid = 11 }
    run:figures(a, { time_ms = T0, rss_bytes = 100, user_ns = 1000, threads = 2 })
    run:figures(b, { time_ms = T0 + 5, rss_bytes = 50, user_ns = 300, threads = 1, has_allocator = 1,
      allocated_bytes = 7 })
    local sum = memory(run)
    assert.are.equal(150, tonumber(sum.rss_bytes))
    assert.are.equal(3, sum.threads)
    assert.are.equal(1, sum.has_allocator)
    assert.are.equal(T0 + 5, sum.time_ms)
    died(b)
    sum = memory(run)
    assert.are.equal(100, tonumber(sum.rss_bytes))
    assert.are.equal(1300, tonumber(sum.user_ns))
    b = run:add { pid = 11 }
    run:figures(b, { time_ms = T0 + 9, rss_bytes = 50, user_ns = 400 })
    assert.are.equal(1400, tonumber(memory(run).user_ns))
    assert.are.equal(50, tonumber(memory(run, 11).rss_bytes))
    assert.are.equal(core.LUPE_ENOENT, select(2, memory(run, 12)))
  end)

  it("have a series each, and one of their sum in the snapshot", function()
    local a, b = run:add { pid = 10 }, run:add { pid = 11 }
    for i = 1, 3 do
      run:figures(a, { time_ms = T0 + i, rss_bytes = i })
      if i > 1 then run:figures(b, { time_ms = T0 + i, rss_bytes = 10 * i }) end
      core.lupe_aggregator_record_memory(run.a, T0 + 100 * i)
    end
    assert.are.same({ { 1, 100 }, { 22, 200 }, { 33, 300 } }, series(run))
    assert.are.same({ { 20, 2 }, { 30, 3 } }, series(run, 11))
    assert.is_nil(series(run, 12))
    local rows, count = snapshots.column(run:snapshot().header, "memory", "lupe_memory_figures")
    assert.are.equal(3, count)
    assert.are.equal(33, tonumber(rows[2].rss_bytes))
  end)

  it("never let a time that is none into a snapshot", function()
    local a = run:add { pid = 10, time_ms = 0 / 0 }
    run:figures(a, { time_ms = 0 / 0, rss_bytes = 5 })
    core.lupe_aggregator_record_memory(run.a, math.huge)
    core.lupe_target_died(a, 0 / 0)
    local built = run:snapshot(-1, 0 / 0)
    assert.are.equal(0, tonumber(core.lupe_snapshot_validate(built.address, built.bytes, nil)))
  end)

  it("sum their size classes by size", function()
    local a, b = run:add { pid = 10 }, run:add { pid = 11 }
    local function classes(t, list)
      core.lupe_target_classes(t, ffi.new("lupe_snapshot_size_class[?]", #list, list), #list)
    end
    classes(a, { { 8, 1 }, { 32, 5 } })
    classes(b, { { 16, 2 }, { 32, 10 }, { 64, 3 } })
    local column, count = snapshots.column(run:snapshot().header, "classes", "lupe_snapshot_size_class")
    local found = {}
    for i = 1, count do
      found[i] = { tonumber(column[i - 1].size_bytes), tonumber(column[i - 1].live_count) }
    end
    assert.are.same({ { 8, 1 }, { 16, 2 }, { 32, 15 }, { 64, 3 } }, found)
  end)
end)

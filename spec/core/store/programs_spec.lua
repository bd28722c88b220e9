--- Several programs in one store: which process is of which, what a snapshot of one holds, what is forgotten first.
local ffi = require("ffi")
local support = require("spec.support")
local snapshots = require("spec.support_snapshot")

local core = support.core()
local T0 = snapshots.epoch_ms
local TREE = 2 ^ 30

--- The root of every process: pid -> root pid; of several with one pid, of the last one that is told (the dead come
-- last).
local function roots(run)
  local rows = ffi.new("lupe_target_status[300]")
  local count, found = tonumber(core.lupe_aggregator_targets(run.a, rows, 300)), {}
  for i = 0, count - 1 do found[rows[i].pid] = rows[i].root_pid end
  return found, count
end

local function valid(built)
  local why = ffi.new("const char *[1]")
  assert.equal(0, tonumber(core.lupe_snapshot_validate(built.address, built.bytes, why)), ffi.string(why[0]))
  return built
end

local function tree(run, pid, time_ms) return valid(run:snapshot(TREE + pid, time_ms)) end

local function pids(built)
  local column, count = snapshots.column(built.header, "targets", "lupe_snapshot_target")
  local list = {}
  for i = 1, count do list[i] = column[i - 1].pid end
  return list
end

local function memory(built, field)
  local column, count = snapshots.column(built.header, "memory", "lupe_memory_figures")
  local list = {}
  for i = 1, count do list[i] = tonumber(column[i - 1][field]) end
  return list
end

describe("a process", function()
  it("is of the program of the nearest ancestor that has connected, else it begins one", function()
    local run = snapshots.run()
    run:add { pid = 10 }
    run:add { pid = 11, ppid = 10 }
    run:add { pid = 12, ppid = 11 }
    run:add { pid = 20 }
    assert.same({ [10] = 10, [11] = 10, [12] = 10, [20] = 20 }, (roots(run)))
  end)

  it("stays of its program when it execs, and when its parent ends", function()
    local run = snapshots.run()
    local shell = run:add { pid = 10, name = "sh" }
    local child = run:add { pid = 11, ppid = 10, name = "sh" }
    core.lupe_target_died(child, T0 + 1)
    core.lupe_target_died(shell, T0 + 2)
    run:add { pid = 11, ppid = 1, name = "redis-server" }
    assert.equal(10, roots(run)[11])
  end)

  it("takes in those that it had started, where they connected before it", function()
    local run = snapshots.run()
    run:add { pid = 12, ppid = 11 }
    run:add { pid = 11, ppid = 10 }
    run:add { pid = 10 }
    assert.same({ [10] = 10, [11] = 10, [12] = 10 }, (roots(run)))
  end)

  it("is not of a program that had its parent's number before", function()
    local run = snapshots.run()
    core.lupe_target_died(run:add { pid = 10, start_ticks = 1 }, T0 + 1)
    run:add { pid = 11, ppid = 10, start_ticks = 5 }
    assert.equal(11, roots(run)[11])
  end)
end)

describe("a snapshot of one program", function()
  local run, address, maps

  local function dump(bytes)
    return snapshots.dump(1, { { addresses = { address("leak") }, objects = bytes / 64, bytes = bytes } }, maps)
  end

  before_each(function()
    address, maps = snapshots.program { "leak" }
    run = snapshots.run()
  end)

  after_each(support.cleanup)

  it("holds its processes only, and begins when it did", function()
    local other = run:add { pid = 10, time_ms = T0 }
    run:round(T0 + 1000, { { other, dump(6400) } })
    local first = run:add { pid = 20, time_ms = T0 + 1500 }
    local second = run:add { pid = 21, ppid = 20, time_ms = T0 + 1600 }
    run:round(T0 + 2000, { { other, dump(6400) }, { first, dump(64) }, { second, dump(128) } })
    run:round(T0 + 3000, { { other, dump(6400) }, { first, dump(128) }, { second, dump(128) } })
    local built = tree(run, 20, T0 + 3000)
    assert.same({ 20, 21 }, pids(built))
    assert.equal(T0 + 1500, built.header.started_ms)
    assert.equal(2, built.header.tick_count)
    local ticks = snapshots.column(built.header, "tick_inuse_space", "double")
    assert.same({ 192, 256 }, { ticks[0], ticks[1] })
    local times = snapshots.column(built.header, "tick_time_ms", "double")
    assert.same({ T0 + 2000, T0 + 3000 }, { times[0], times[1] })
    assert.equal(3, valid(run:snapshot(0, T0 + 3000)).header.tick_count)
  end)

  it("sums the memory of its processes moment by moment, and keeps the time that ended ones had used", function()
    local first, second = run:add { pid = 20 }, run:add { pid = 21, ppid = 20 }
    local other = run:add { pid = 10 }
    local function reading(time_ms, figures)
      for target, rss in pairs(figures) do
        run:figures(target, { time_ms = T0 + time_ms, rss_bytes = rss, user_ns = rss })
      end
      core.lupe_aggregator_record_memory(run.a, T0 + time_ms + 5)
    end
    reading(1000, { [first] = 100, [second] = 10, [other] = 7777 })
    reading(2000, { [first] = 200, [second] = 20, [other] = 7777 })
    core.lupe_target_died(second, T0 + 2500)
    reading(3000, { [first] = 300, [other] = 7777 })
    local built = tree(run, 20, T0 + 3000)
    assert.same({ 110, 220, 300 }, memory(built, "rss_bytes"))
    assert.same({ 110, 220, 320 }, memory(built, "user_ns"))
    assert.same({ T0 + 1000, T0 + 2000, T0 + 3000 }, memory(built, "time_ms"))
  end)

  it("does not dip where a process was not read again between two rows", function()
    local first, second = run:add { pid = 20 }, run:add { pid = 21, ppid = 20 }
    run:figures(first, { time_ms = T0 + 1000, rss_bytes = 100 })
    run:figures(second, { time_ms = T0 + 1000, rss_bytes = 10 })
    core.lupe_aggregator_record_memory(run.a, T0 + 1000)
    run:figures(second, { time_ms = T0 + 1200, rss_bytes = 20 })
    core.lupe_aggregator_record_memory(run.a, T0 + 1200)
    assert.same({ 110, 120 }, memory(tree(run, 20, T0 + 2000), "rss_bytes"))
  end)

  it("shows the processes that it had, where it has none any more", function()
    local first = run:add { pid = 20, time_ms = T0 }
    local second = run:add { pid = 21, ppid = 20, time_ms = T0 }
    run:round(T0 + 1000, { { first, dump(64) }, { second, dump(128) } })
    core.lupe_target_died(second, T0 + 1100)
    assert.same({ 20 }, pids(tree(run, 20, T0 + 1200)))
    core.lupe_target_died(first, T0 + 1300)
    assert.same({ 20, 21 }, pids(tree(run, 20, T0 + 1400)))
  end)

  it("has the CPU samples of its ended processes, and none of another program", function()
    run = snapshots.run({ cpu_hz = 100 })
    local first, second = run:add { pid = 20 }, run:add { pid = 21, ppid = 20 }
    local other = run:add { pid = 10 }
    for target, count in pairs({ [first] = 1, [second] = 2, [other] = 4 }) do
      run.set_maps(run, target, maps)
      for _ = 1, count do run:thread_sample(target, { kind = "cpu", time_ms = 500 }, { address("leak") }) end
    end
    core.lupe_aggregator_absorb(run.a)
    core.lupe_target_died(second, T0 + 600)
    local built = tree(run, 20, T0 + 1000)
    local column, rows = snapshots.column(built.header, "sample_count", "double")
    local sum = 0
    for i = 0, rows - 1 do sum = sum + column[i] end
    assert.equal(3, sum)
  end)

  it("is not to be had of a program that never was", function()
    run:add { pid = 20 }
    local out = ffi.new("lupe_snapshot *[1]")
    assert.equal(core.LUPE_ENOENT, core.lupe_aggregator_snapshot(run.a, TREE + 21, T0, 0, out))
  end)
end)

describe("a store that never ends", function()
  after_each(support.cleanup)

  it("stops doubling its interval at about a minute, and forgets the older half", function()
    local address, maps = snapshots.program { "leak" }
    local run = snapshots.run({ heap_interval_ms = 1000, endless = true })
    local target, time_ms, rounds = run:add(), T0, 0
    while rounds < 2000 do
      rounds = rounds + 1
      time_ms = time_ms + core.lupe_aggregator_heap_interval_ms(run.a)
      run:round(time_ms, { { target, snapshots.dump(1, {
        { addresses = { address("leak") }, objects = rounds, bytes = rounds * 64 },
      }, maps) } })
    end
    assert.equal(64000, core.lupe_aggregator_heap_interval_ms(run.a))
    local built = valid(run:snapshot(0, time_ms))
    local times = snapshots.column(built.header, "tick_time_ms", "double")
    local inuse = snapshots.column(built.header, "tick_inuse_space", "double")
    local last = built.header.tick_count - 1
    assert.is_true(last >= 29 and last < 60)
    for i = 1, last do
      assert.equal(64000, times[i] - times[i - 1])
      assert.equal(64, inuse[i] - inuse[i - 1])
    end
    assert.equal(rounds * 64, inuse[last])
  end)

  it("forgets those first that were there for moments", function()
    local run = snapshots.run({ endless = true })
    core.lupe_target_died(run:add { pid = 5, time_ms = T0 }, T0 + 60000)
    for i = 1, 200 do
      core.lupe_target_died(run:add { pid = 100 + i, time_ms = T0 + 60000 }, T0 + 60000 + i)
    end
    local known, count = roots(run)
    assert.equal(64, count)
    assert.equal(5, known[5])
    assert.equal(300, known[300])
  end)
end)

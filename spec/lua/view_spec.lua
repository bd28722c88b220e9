require("spec.support")
local files = require("lupe.ffi")
local literal = require("lupe.view_literal")
local view = require("lupe.view")

local MIB = 2 ^ 20

local function names(iterator)
  local list = {}
  for site in iterator do list[#list + 1] = site.name end
  return list
end

local function line(ticks, per_tick)
  local list = {}
  for i = 1, ticks do list[i] = i * per_tick end
  return list
end

local function program()
  return view.from_table({
    started_ms = 1000, sample_period_bytes = 65536, generation = 7,
    sites = {
      {
        name = "small", history = line(10, 100), inuse_objects = 10, alloc_space = 4000, module = "/usr/lib/libx.so.1",
        stacks = {
          { stack = { "malloc", "small", "left" }, inuse_space = 300, inuse_objects = 3 },
          { stack = { "malloc", "small", "right" }, inuse_space = 700, inuse_objects = 7 },
        },
      },
      { name = "large", history = line(10, 5 * MIB), alloc_space = 60 * MIB },
      { name = "late", history = { MIB, 2 * MIB } },
    },
    memory = {
      { time_ms = 0, rss_bytes = 100 },
      { time_ms = 5000, rss_bytes = 200 },
      {
        time_ms = 10000, rss_bytes = 300, allocated_bytes = 60, active_bytes = 80, resident_bytes = 120,
        metadata_bytes = 5,
      },
    },
    classes = { { size_bytes = 1024, live_count = 5 }, { size_bytes = 1280, live_count = 3 },
      { size_bytes = 2 * MIB, live_count = 1 } },
    targets = {
      { pid = 42, name = "app", heap_state = "on", live = true }, { pid = 43, heap_state = "no_hook", live = false },
    },
  })
end

describe("a site", function()
  local function site(name)
    for each in program().heap:sites() do
      if each.name == name then return each end
    end
  end

  it("tells its figures, its module's file name and its survivors", function()
    local small = site("small")
    assert.same({ 1000, 10, 4000, 100, 0.25 },
      { small.inuse_space, small.inuse_objects, small.alloc_space, small.average_size, small.survival })
    assert.same({ "libx.so.1", "/usr/lib/libx.so.1" }, { small.module, small.module_path })
    assert.equal(math.sqrt(65536 * 1000), small.sampling_error_bytes)
  end)

  it("shows the stack with most live bytes from the site outwards, and all of them in that order", function()
    local small = site("small")
    assert.same({ "small", "right" }, small.stack)
    assert.same({ "small", "left" }, small.stacks[2].stack)
    assert.equal(7, small.stacks[1].inuse_objects)
    assert.same({ name = "small", module = "libx.so.1", address = 0 }, small.frames[1])
  end)

  it("knows when it was first seen and when it last grew", function()
    assert.same({ 10000, 11000 }, { site("late").first_seen_ms, site("late").last_grown_ms })
  end)

  it("gives its history", function()
    local times, values = site("large"):history("inuse_space")
    assert.same({ 10, 2000, 50 * MIB }, { #times, times[1], values[10] })
  end)

  it("has a trend in MiB per hour", function()
    local trend = assert(site("large"):trend("inuse_space"))
    assert.equal(5 * 3600, trend.slope)
    assert.is_true(trend.low <= trend.slope and trend.high >= trend.slope)
    assert.same({ 1, 9, 9, 10 }, { trend.r, trend.rises, trend.intervals, trend.profiles })
  end)

  it("has a trend of what it allocated, where that is known", function()
    local churning = { name = "churn", history = line(10, 0), alloc_history = line(10, 2 * MIB) }
    local churn = view.from_table({ sites = { churning } }).heap:sites()()
    assert.equal(2 * 3600, churn:trend("alloc_space").slope)
    assert.is_nil((churn:trend("inuse_space")))
  end)

  it("has no trend where its own life is too short, and says so", function()
    assert.same({ nil, "2 profiles, at least 5 are needed" }, { site("late"):trend("inuse_space") })
  end)

  it("hands out trends that nobody else sees changed", function()
    local large = site("large")
    large:trend("inuse_space").slope = -1
    assert.equal(5 * 3600, large:trend("inuse_space").slope)
  end)

  it("can't be written to, and shows nothing of its inside", function()
    local small = site("small")
    assert.has_error(function() small.name = "other" end, "a site is read-only (field 'name')")
    assert.is_nil(next(small))
  end)

  it("refuses a column that has no history", function()
    assert.has_error(function() site("small"):trend("alloc_objects") end)
  end)
end)

describe("the heap's sites", function()
  it("come largest first where an order is asked for, and cut off", function()
    local heap = program().heap
    assert.same({ "large", "late", "small" }, names(heap:sites({ by = "inuse_space" })))
    assert.same({ "large" }, names(heap:sites({ by = "alloc_space", limit = 1 })))
    assert.same({ "large", "late" }, names(heap:sites({ min_inuse_space = MIB, by = "inuse_space" })))
    assert.same({ "large" }, names(heap:sites({ by = "growth", min_growth = 10000 })))
  end)

  it("are the same ones in the same order as a sort would give, ties by position", function()
    local sites, expected = {}, {}
    for i = 1, 200 do
      sites[i] = { name = "s" .. i, inuse_space = i * 7919 % 50 }
      expected[i] = i
    end
    table.sort(expected, function(a, b)
      local x, y = sites[a].inuse_space, sites[b].inuse_space
      return x > y or (x == y and a < b)
    end)
    local heap = view.from_table({ sites = sites }).heap
    for _, limit in ipairs({ 1, 2, 17, 200, 500 }) do
      local list = names(heap:sites({ by = "inuse_space", limit = limit }))
      assert.equal(math.min(limit, 200), #list)
      for i, name in ipairs(list) do assert.equal("s" .. expected[i], name) end
    end
  end)

  it("refuse an option they don't know, and name the nearest", function()
    local heap = program().heap
    local ok, message = pcall(heap.sites, heap, { limt = 3 })
    assert.is_false(ok)
    assert.is_truthy(message:find("unknown option 'limt', did you mean 'limit'?", 1, true))
  end)
end)

describe("a view", function()
  it("knows its time, its period, its processes and its totals", function()
    local v = program()
    assert.same({ 11000, 1000, 7, 65536, true },
      { v.time_ms, v.started_ms, v.generation, v.sample_period_bytes, v.sampled })
    assert.same({ 42, "on", true }, { v.targets[1].pid, v.targets[1].heap_state, v.targets[1].live })
    assert.same({ "no_hook", false }, { v.targets[2].heap_state, v.targets[2].live })
    assert.equal(52 * MIB + 1000, v.heap.total_inuse_space)
    assert.same({ 10, 9, 3 }, { v.heap.profiles, v.heap.seconds, v.heap.site_count })
    assert.same({ time_ms = 2000, inuse_space = 5 * MIB + 100 }, v.heap.ticks[1])
    assert.is_true(v.heap:trend().slope > 5 * 3600)
  end)

  it("gives the memory series and its slope per second", function()
    local memory = program().memory
    assert.same({ 3, 300, 100 }, { memory.count, memory.latest.rss_bytes, memory.rows[1].rss_bytes })
    assert.equal(20, memory:slope("rss_bytes"))
    assert.same({ nil, "2 readings, at least 3 are needed" }, { memory:slope("rss_bytes", 5) })
    assert.is_nil((memory:slope("allocated_bytes")))
    local ok, message = pcall(memory.slope, memory, "rss_byte")
    assert.is_false(ok)
    assert.matches("^memory:slope: no field 'rss_byte', did you mean 'rss_bytes'%?; known: time_ms, ", message)
  end)

  it("tells what is not known by leaving it out", function()
    local v = view.from_table({ memory = { { time_ms = 0, rss_bytes = 5 } } })
    assert.is_nil(v.allocator)
    assert.is_nil(v.memory.latest.allocated_bytes)
    assert.is_nil(view.from_table({}).memory.latest)
    assert.same({}, view.from_table({}).findings)
  end)

  it("sums up the allocator", function()
    local a = program().allocator
    assert.same({ 0.25, 0.5 }, { a.fragmentation, a.efficiency })
    assert.same({ small_0_1kb = 5, medium_1_100kb = 3, large_100kb_1mb = 0, huge_1mb_plus = 1 }, a.distribution)
  end)

  it("is the same with other findings, and read-only", function()
    local v = program()
    local other = v:with({ findings = { { rule = "x.y" } } })
    assert.equal(v.heap, other.heap)
    assert.equal("x.y", other.findings[1].rule)
    assert.same({}, v.findings)
    assert.has_error(function() v.time_ms = 0 end, "view is read-only (field 'time_ms')")
  end)

  it("keeps its memory alive as long as one of its sites", function()
    local survivor
    for site in program().heap:sites({ by = "inuse_space", limit = 1 }) do survivor = site end
    for _ = 1, 20 do
      collectgarbage()
      literal({ sites = { { name = "other", history = line(50, 3) } } })
    end
    assert.same({ "large", 50 * MIB }, { survivor.name, survivor.inuse_space })
  end)
end)

describe("a snapshot's memory", function()
  local ffi = require("ffi")

  it("must begin with a header of this version, and hold all it promises", function()
    local address, size, owner = literal({ sites = { { name = "a", history = line(5, 1) } } })
    local header = ffi.cast("lupe_snapshot_header *", address)
    local function refused(name)
      local none, message, code = view.from_snapshot(address, size)
      assert.is_nil(none)
      assert.equal(name, code)
      return message
    end
    assert.is_truthy(view.from_snapshot(address, size, { keepalive = owner }))
    assert.same("ECORRUPT", select(3, view.from_snapshot(address, 100)))
    assert.same("ECORRUPT", select(3, view.from_snapshot(address, size - 8)))
    header.version = 9
    assert.equal("EVERSION: snapshot of version 9, expected 6", refused("EVERSION"))
    header.version = 6
    header.site_function.count = 1e9
    assert.is_truthy(refused("ECORRUPT"):find("site_function", 1, true))
    header.magic = 0
    refused("ECORRUPT")
  end)
end)

describe("the file functions", function()
  local support = require("spec.support")
  after_each(support.cleanup)

  it("list a directory in order and tell a file's mode", function()
    local folder = support.temp_dir()
    for _, name in ipairs({ "b.lua", "a.lua", ".hidden" }) do support.write_file(folder .. "/" .. name, "return 1") end
    assert.same({ "a.lua", "b.lua" }, files.list(folder))
    local stat = files.stat(folder .. "/a.lua")
    assert.same({ "file", 8 }, { stat.kind, stat.size })
    assert.equal("directory", files.stat(folder).kind)
    assert.equal(448, files.stat(folder).mode)
  end)

  it("say what is missing", function()
    assert.same({ nil, "ENOENT: /nowhere/at/all: No such file or directory", "ENOENT" },
      { files.stat("/nowhere/at/all") })
    assert.is_nil((files.list("/nowhere/at/all")))
  end)
end)

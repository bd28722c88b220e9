local ffi = require("ffi")
local support = require("spec.support")
local snapshots = require("spec.support_snapshot")

ffi.cdef("int pipe(int *ends);")
local core = support.core()
local T0 = snapshots.epoch_ms

local function valid(built)
  local why = ffi.new("const char *[1]")
  local status = core.lupe_snapshot_validate(built.address, built.bytes, why)
  assert.are.equal("", ffi.string(why[0]))
  assert.are.equal(0, tonumber(status))
  return built
end

local function build(literal)
  local built = valid(snapshots.build(literal))
  return built, snapshots.sites(built.header)
end

local function times(built)
  local column, count = snapshots.column(built.header, "tick_time_ms", "double")
  local list = {}
  for i = 1, count do list[i] = column[i - 1] - T0 end
  return list
end

--- One function "leak" in "main", and a dump where so many bytes of it live, in objects of 64 bytes.
local function leaker()
  local address, maps = snapshots.program { "leak", "main", "other" }
  local function dump(bytes, period, name)
    local rows = bytes > 0 and
      { { addresses = { address(name or "leak"), address("main") }, objects = bytes / 64, bytes = bytes } } or {}
    return snapshots.dump(period or 1, rows, maps)
  end
  return dump, { address("leak"), address("main") }
end

describe("the aggregator", function()
  after_each(support.cleanup)

  it("sums stacks up to the first function that is no wrapper", function()
    local built, sites = build {
      wrappers = { { "name", "malloc" }, { "prefix", "x_" }, { "module", "libc" } },
      sites = {
        { stack = { "malloc", "x_alloc", "cache", "main" }, space = { 640 } },
        { stack = { "malloc", "cache", "main" }, space = { 64 } },
        { stack = { "libc.so.6!strdup", "names", "main" }, space = { 128 } },
        { stack = { "malloc", "x_alloc" }, space = { 192 } },
      },
    }
    assert.are.equal(704, sites.cache.inuse_space)
    assert.are.equal(11, sites.cache.inuse_objects)
    assert.are.equal(128, sites.names.inuse_space)
    assert.are.equal(192, sites.x_alloc.inuse_space) -- wrappers only: the outermost
    assert.are.equal(4, tonumber(built.header.stack_site.count))
    local inuse = snapshots.column(built.header, "stack_inuse_space", "double")
    assert.are.equal(640, inuse[sites.cache.top_stack])
  end)

  it("regroups when the wrappers change", function()
    local built = build { sites = { { stack = { "malloc", "cache", "main" }, space = { 64 } } } }
    assert.is_truthy(snapshots.sites(built.header).malloc)
    built.run:set_wrappers { { "name", "malloc" } }
    local sites = snapshots.sites(valid(built.run:snapshot()).header)
    assert.is_nil(sites.malloc)
    assert.are.equal(64, sites.cache.inuse_space)
  end)

  it("refuses wrappers that it does not know how to match", function()
    local run = snapshots.run()
    local wrappers = ffi.new("lupe_wrapper[1]", { { kind = 3, text = "x" } })
    assert.are.equal(core.LUPE_EINVAL, core.lupe_aggregator_set_wrappers(run.a, wrappers, 1))
    wrappers[0].kind = 0
    for _, text in ipairs { "", ("x"):rep(256) } do
      wrappers[0].text = text
      assert.are.equal(core.LUPE_EINVAL, core.lupe_aggregator_set_wrappers(run.a, wrappers, 1))
    end
    assert.are.equal(core.LUPE_EINVAL, core.lupe_aggregator_set_wrappers(run.a, wrappers, 4097))
  end)

  it("keeps a history per site, with 0 before a site appears and after it vanished", function()
    local _, sites = build {
      sites = {
        { stack = { "grows", "main" }, space = { 64, 128, 192, 256 } },
        { stack = { "late", "main" }, space = { 0, 0, 640, 640 } },
        { stack = { "gone", "main" }, space = { 64, 128, 0, 0 } },
      },
    }
    assert.are.same({ 64, 128, 192, 256 }, sites.grows.history)
    assert.are.same({ 0, 0, 640, 640 }, sites.late.history)
    assert.are.same({ 64, 128, 0, 0 }, sites.gone.history)
    assert.are.equal(0, sites.gone.inuse_space)
    assert.are.equal(T0 + 2000, sites.late.first_seen_ms)
    assert.are.equal(T0 + 2000, sites.late.last_grown_ms)
    assert.are.equal(T0, sites.gone.first_seen_ms)
    assert.are.equal(T0 + 1000, sites.gone.last_grown_ms)
    assert.are.equal(T0 + 3000, sites.grows.last_grown_ms)
  end)

  it("drops every second tick when 60 are kept, and doubles the interval", function()
    local run, dump = snapshots.run(), leaker()
    local target = run:add()
    for i = 1, 60 do run:round(T0 + i * 1000, { { target, dump(i * 64) } }) end
    assert.are.equal(1000, core.lupe_aggregator_heap_interval_ms(run.a))
    assert.are.equal(60, #times(valid(run:snapshot())))
    run:round(T0 + 61000, { { target, dump(61 * 64) } })
    assert.are.equal(2000, core.lupe_aggregator_heap_interval_ms(run.a))
    local built = valid(run:snapshot())
    local kept = times(built)
    assert.are.equal(31, #kept)
    assert.are.equal(2000, kept[1])
    assert.are.equal(60000, kept[30])
    assert.are.equal(61000, kept[31])
    for i, bytes in ipairs(snapshots.sites(built.header).leak.history) do
      assert.are.equal(kept[i] / 1000 * 64, bytes)
    end
    assert.are.equal(61, tonumber(built.header.generation))
    assert.are.equal(T0 + 1000, snapshots.sites(built.header).leak.first_seen_ms)
  end)

  it("adds up what its processes have, tick by tick", function()
    local built, sites = build {
      targets = { { pid = 10, name = "one" }, { pid = 11, ppid = 10, name = "two" } },
      sites = {
        { stack = { "shared", "main" }, space = { 64, 128 }, target = 1 },
        { stack = { "shared", "main" }, space = { 640, 1280 }, target = 2 },
      },
    }
    assert.are.same({ 704, 1408 }, sites.shared.history)
    assert.are.equal(1408, sites.shared.inuse_space)
    local inuse = snapshots.column(built.header, "tick_inuse_space", "double")
    assert.are.equal(704, inuse[0])
    local one = snapshots.sites(valid(built.run:snapshot(10)).header)
    assert.are.same({ 64, 128 }, one.shared.history)
    assert.are.equal(1, tonumber(built.run:snapshot(10).header.targets.count))
    local targets, count = snapshots.column(built.header, "targets", "lupe_snapshot_target")
    assert.are.equal(2, count)
    assert.are.equal("two", snapshots.string(built.header, targets[1].name))
    local out = ffi.new("lupe_snapshot *[1]")
    assert.are.equal(core.LUPE_ENOENT, core.lupe_aggregator_snapshot(built.run.a, 12, T0, 0, out))
  end)

  it("repeats the last profile of a process that gave none in a round", function()
    local run, dump = snapshots.run(), leaker()
    local a, b = run:add { pid = 10 }, run:add { pid = 11 }
    run:round(T0, { { a, dump(64) }, { b, dump(640) } })
    run:round(T0 + 1000, { { a, dump(128) } })
    run:round(T0 + 2000, { { a, dump(192) }, { b, dump(1280) } })
    assert.are.same({ 704, 768, 1472 }, snapshots.sites(valid(run:snapshot()).header).leak.history)
  end)

  it("leaves no tick of a round in which nobody gave a profile", function()
    local run, dump = snapshots.run(), leaker()
    local a = run:add()
    run:round(T0, {})
    assert.are.same({}, times(valid(run:snapshot())))
    run:round(T0 + 1000, { { a, dump(64) } })
    run:round(T0 + 2000, {})
    assert.are.same({ 1000 }, times(valid(run:snapshot())))
  end)

  it("lets no second round begin in one, and moves time only forward", function()
    local run, dump = snapshots.run(), leaker()
    local a = run:add()
    run:round(T0 + 5000, { { a, dump(64) } })
    run:round(T0 + 1000, { { a, dump(64) } })
    assert.are.same({ 5000, 5001 }, times(valid(run:snapshot())))
    local tick = ffi.new("uint64_t[1]")
    assert.are.equal(0, tonumber(core.lupe_aggregator_begin_round(run.a, T0 + 6000, tick)))
    assert.are.equal(core.LUPE_EAGAIN, core.lupe_aggregator_begin_round(run.a, T0 + 7000, tick))
  end)

  it("takes a dump that comes after its round as the newest one", function()
    local run, dump = snapshots.run(), leaker()
    local a = run:add()
    run:ingest(a, dump(64)) -- the very first: a tick of its own
    assert.are.equal(1, #times(valid(run:snapshot())))
    run:ingest(a, dump(128))
    local sites = snapshots.sites(valid(run:snapshot()).header)
    assert.are.same({ 128 }, sites.leak.history)
    assert.are.equal(128, sites.leak.inuse_space)
  end)

  it("takes an empty profile", function()
    local run, dump = snapshots.run(), leaker()
    local a = run:add()
    run:round(T0, { { a, dump(0) } })
    local built = valid(run:snapshot())
    assert.are.same({ 0 }, times(built))
    assert.are.equal(0, tonumber(built.header.stack_site.count))
  end)

  it("is a valid snapshot before anything is known", function()
    local run = snapshots.run()
    valid(run:snapshot())
    run:add()
    local built = valid(run:snapshot())
    assert.are.equal(1, tonumber(built.header.targets.count))
    assert.are.equal(0, built.header.tick_count)
  end)

  it("compares nothing across epochs: another period forgets the history", function()
    local run, dump = snapshots.run(), leaker()
    local a = run:add()
    for i = 1, 3 do run:round(T0 + i, { { a, dump(i * 64) } }) end
    run:round(T0 + 4, { { a, dump(6400, 2) } })
    local sites = snapshots.sites(valid(run:snapshot()).header)
    assert.are.same({ 0, 0, 0, 6400 }, sites.leak.history)
    assert.are.equal(T0 + 4, sites.leak.first_seen_ms)
  end)

  it("keeps what it had when a dump is malformed, says why and counts it", function()
    local run, dump = snapshots.run(), leaker()
    local a = run:add()
    run:round(T0, { { a, dump(64) } })
    local text = dump(128)
    for _, bad in ipairs { "", "heap_v2/1\n", text:sub(1, 40), (text:gsub("MAPPED", "mapped")),
      text .. "no mapping\n", text .. "0000-", (text:gsub("t%*: 2", "t*: x")) } do
      local status, why = run:try_ingest(a, bad)
      assert.are.equal(core.LUPE_ECORRUPT, status)
      assert.is_truthy(why:match("^heap profile.*expected"), why)
    end
    assert.are.equal(64, snapshots.sites(valid(run:snapshot()).header).leak.inuse_space)
    local rows = ffi.new("lupe_target_status[1]")
    core.lupe_aggregator_targets(run.a, rows, 1)
    assert.are.equal(7, tonumber(rows[0].bad_profiles))
  end)

  it("reads no dump from a pipe or a closed descriptor", function()
    local run = snapshots.run()
    local a = run:add()
    assert.are.equal(core.LUPE_EIO, core.lupe_target_ingest(a, 900, 0, nil))
    local pipe = ffi.new("int[2]")
    assert.are.equal(0, ffi.C.pipe(pipe))
    local why = ffi.new("const char *[1]")
    assert.are.equal(core.LUPE_ECORRUPT, core.lupe_target_ingest(a, pipe[0], 0, why))
    assert.is_truthy(ffi.string(why[0]):find("expected a file", 1, true))
    snapshots.close(pipe[0])
    snapshots.close(pipe[1])
  end)

  it("survives thousands of damaged dumps with snapshots that stay valid", function()
    math.randomseed(99)
    local address, maps = snapshots.program { "a", "b", "c", "main" }
    local rows = {}
    for i, name in ipairs { "a", "b", "c" } do
      rows[i] = { addresses = { address(name), address("main") }, objects = i, bytes = 100 * i }
    end
    local real = snapshots.dump(4096, rows, maps)
    local run, accepted = snapshots.run { stack_bytes = 262144 }, 0
    local target = run:add()
    for i = 1, 3000 do
      local text = real
      for _ = 1, math.random(4) do
        local at = math.random(#text)
        local digits = "0123456789abcdef \n"
        local c = digits:sub(at % #digits + 1, at % #digits + 1)
        if math.random(3) == 1 then c = string.char(math.random(0, 255)) end
        text = text:sub(1, at - 1) .. c .. text:sub(at + math.random(0, 2))
      end
      local status = run:try_ingest(target, text)
      assert(status == 0 or status == core.LUPE_ECORRUPT, status)
      if status == 0 then accepted = accepted + 1 end
      if i % 50 == 0 then valid(run:snapshot()) end
    end
    assert.is_true(accepted > 100 and accepted < 2900, accepted)
    run:ingest(target, real)
    assert.is_true(snapshots.sites(valid(run:snapshot()).header).c.inuse_space > 300)
  end)

  it("shares one stack among all that find no room", function()
    local address, maps = snapshots.program { "f", "main" }
    local rows = {}
    for i = 1, 20000 do
      rows[i] = { addresses = { address("f") + i % 200, address("f") + math.floor(i / 200), address("main") },
        objects = 1, bytes = 64 }
    end
    local run = snapshots.run { stack_bytes = 131072 }
    local a = run:add()
    run:round(T0, { { a, snapshots.dump(1, rows, maps) } })
    local built = valid(run:snapshot())
    local sites = snapshots.sites(built.header)
    assert.is_true(sites["[stack table full]"].inuse_space > 64 * 10000)
    assert.are.equal(64 * 20000, sites["[stack table full]"].inuse_space + sites.f.inuse_space)
    assert.is_true(tonumber(built.header.stack_overflows) > 10000)
  end)
end)

describe("the store under all its threads at once", function()
  after_each(support.cleanup)

  it("makes valid snapshots only, and loses nothing it holds", function()
    local p = support.run({ support.fixture("store_stress"), "30" }, { seconds = 120 })
    assert.are.equal("", p.err)
    assert.are.equal("30 rounds\n", p.out)
  end)
end)

describe("what was allocated at a site", function()
  after_each(support.cleanup)

  it("is its samples, each corrected by the mean object size", function()
    local period = 65536
    local _, sites = build {
      period_bytes = period,
      sites = { { stack = { "f", "main" }, space = { 1e6 }, objects = { 1000 }, samples = 50 } },
    }
    local factor = 1 / (1 - math.exp(-1000 / period))
    assert.is_true(math.abs(sites.f.alloc_objects / (50 * factor) - 1) < 0.02)
    assert.is_true(math.abs(sites.f.alloc_space / (50 * 1000 * factor) - 1) < 0.02)
  end)

  it("is a period per sample where none was ever seen live, and of unknown count", function()
    local _, sites = build {
      period_bytes = 65536,
      sites = { { stack = { "f", "main" }, space = { 0 }, samples = 50 } },
    }
    assert.are.equal(50 * 65536, sites.f.alloc_space)
    assert.are.equal(0, sites.f.alloc_objects)
    assert.are.equal(0, sites.f.first_seen_ms)
  end)

  it("remembers the size of objects that live no more", function()
    local _, sites = build {
      sites = { { stack = { "f", "main" }, space = { 640, 0 }, samples = 50 } },
    }
    assert.are.equal(50 * 64, sites.f.alloc_space)
    assert.are.equal(50, sites.f.alloc_objects)
  end)

  it("is never less than what lives, and not known at all without the hook", function()
    local literal = { sites = { { stack = { "f", "main" }, space = { 640 }, samples = 1 } } }
    local _, sites = build(literal)
    assert.are.equal(640, sites.f.alloc_space)
    literal.targets = { { heap_state = core.LUPE_HEAP_NO_HOOK } }
    _, sites = build(literal)
    assert.are.equal(0, sites.f.alloc_space)
    assert.are.equal(640, sites.f.inuse_space)
  end)

  it("has a history, like what lives", function()
    local run, dump, stack = snapshots.run(), leaker()
    local a = run:add()
    for tick, samples in ipairs { 3, 0, 4 } do
      if samples > 0 then run:sample(a, stack, samples) end
      run:round(T0 + 1000 * tick, { { a, dump(64) } })
    end
    local sites = snapshots.sites(valid(run:snapshot()).header)
    assert.are.same({ 3 * 64, 3 * 64, 7 * 64 }, sites.leak.alloc_history)
    assert.are.equal(7 * 64, sites.leak.alloc_space)
  end)

  it("counts samples that found no room to the stack that stands for all", function()
    local run, dump, stack = snapshots.run(), leaker()
    local a = run:add()
    local raw = ffi.new("uint64_t[1]")
    for i = 1, 70000 do
      raw[0] = i
      core.lupe_target_sample(a, raw, 1, 1)
    end
    run:sample(a, stack, 5)
    run:round(T0, { { a, dump(64) } })
    local rows = ffi.new("lupe_target_status[1]")
    core.lupe_aggregator_targets(run.a, rows, 1)
    assert.are.equal(70005 - 65536, tonumber(rows[0].pending_drops))
    local sites = snapshots.sites(valid(run:snapshot()).header)
    assert.are.equal(70005 - 65536, sites["[stack table full]"].alloc_space)
    assert.are.equal(65536, sites["[unknown]"].alloc_space)
    run:sample(a, stack, 5)
    run:round(T0 + 1000, { { a, dump(64) } })
    assert.are.equal(5 * 64, snapshots.sites(valid(run:snapshot()).header).leak.alloc_space)
  end)
end)

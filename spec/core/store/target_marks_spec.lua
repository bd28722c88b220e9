--- Tags and spans of processes: from their segments into snapshots, and into profiles for pprof.
local ffi = require("ffi")
local support = require("spec.support")
local snapshots = require("spec.support_snapshot")
local marks = require("spec.support_marks")

support.declare("core/clock.h")
support.declare("core/export/pprof.h")
ffi.cdef("void free(void *);")
local core = support.core()
local CACHE, HTTP = marks.tag(0), marks.tag(1)

describe("the marks of processes", function()
  local run, address, maps, segment
  before_each(function()
    run = snapshots.run({ cpu_hz = 100 })
    run:set_wrappers({ { "name", "malloc" }, { "name", "acme" }, { "module", "[tag]" } })
    address, maps = snapshots.program { "malloc", "store", "hot", "main" }
    segment = marks.segment()
    segment:name(0, "html::cache")
    segment:name(1, "http")
  end)
  after_each(support.cleanup)

  local function stack(...)
    local list = {}
    for i, frame in ipairs({ ... }) do list[i] = type(frame) == "string" and address(frame) or frame end
    return list
  end

  local function dump(...)
    local rows = {}
    for i, frames in ipairs({ ... }) do rows[i] = { addresses = frames, objects = 1, bytes = 1000 * i } end
    return snapshots.dump(1, rows, maps)
  end

  local function now() return core.lupe_unix_ms() end

  local function snapshot(pid, window_ms)
    local built = run:snapshot(pid, now(), window_ms)
    local why = ffi.new("const char *[1]")
    assert.equal(0, tonumber(core.lupe_snapshot_validate(built.address, built.bytes, why)), ffi.string(why[0]))
    return built
  end

  --- Live bytes by the name and module of their site.
  local function sites(header)
    local functions = snapshots.column(header, "functions", "lupe_snapshot_function")
    local modules = snapshots.column(header, "modules", "lupe_snapshot_module")
    local of = snapshots.column(header, "site_function", "uint32_t")
    local space, found = snapshots.column(header, "site_inuse_space", "double"), {}
    for i = 0, tonumber(header.site_function.count) - 1 do
      local f = functions[of[i]]
      local module = snapshots.string(header, modules[f.module].path):match("[^/]*$")
      found[module .. "!" .. snapshots.string(header, f.name)] = space[i]
    end
    return found
  end

  local function spans(header)
    local rows, list = snapshots.column(header, "spans", "lupe_snapshot_span"), {}
    local functions = snapshots.column(header, "functions", "lupe_snapshot_function")
    local buckets = snapshots.column(header, "span_buckets", "double")
    for i = 0, tonumber(header.spans.count) - 1 do
      local row, sum = rows[i], 0
      for b = 0, 159 do sum = sum + buckets[160 * i + b] end
      assert.equal(row.count, sum)
      list[i + 1] = {
        name = snapshots.string(header, row.name), target = row.target, count = row.count, total = row.total_ns,
        max = row.max_ns,
        by = row["function"] ~= 2 ^ 32 - 1 and snapshots.string(header, functions[row["function"]].name) or nil,
      }
    end
    return list
  end

  describe("as tags", function()
    it("are what memory is counted for, the innermost one, whatever they are called", function()
      segment:name(2, "acme") -- a wrapper, if it were a function
      local t = run:add()
      assert.equal(0, segment:send(t))
      run:ingest(t, dump(stack("malloc", "store", "main", CACHE, HTTP), stack("malloc", "store", "main"),
        stack("malloc", "hot", "main", HTTP), stack("malloc", marks.tag(2))))
      local built = snapshot()
      assert.same({ ["[tag]!html::cache"] = 1000, ["app!store"] = 2000, ["[tag]!http"] = 3000, ["[tag]!acme"] = 4000 },
        sites(built.header))
      assert.same({ "malloc", "store", "main", "html::cache", "http" }, snapshots.stack(built.header, 0))
    end)

    it("are the outermost frames of samples, also where nothing else is known", function()
      local t = run:add()
      segment:send(t)
      run:set_maps(t, maps)
      run:thread_sample(t, { time_ms = now() - snapshots.epoch_ms }, stack("hot", "main", CACHE))
      run:thread_sample(t, { time_ms = now() - snapshots.epoch_ms }, stack(CACHE, HTTP))
      local built = snapshot()
      local rows = snapshots.samples(built.header)
      assert.same({ { "hot", "main", "html::cache" }, { "html::cache", "http" } }, { rows[1].stack, rows[2].stack })
    end)

    it("are one tag where two processes call it the same, whatever its numbers", function()
      local one, two = run:add({ pid = 1 }), run:add({ pid = 2 })
      local other = marks.segment()
      other:name(7, "html::cache")
      segment:send(one)
      other:send(two)
      run:ingest(one, dump(stack("malloc", "store", CACHE)))
      run:ingest(two, dump(stack("malloc", "store", marks.tag(7))))
      local built = snapshot()
      assert.same({ ["[tag]!html::cache"] = 2000 }, sites(built.header))
    end)

    it("are unknown where no segment came, or has no such name", function()
      local t = run:add()
      run:ingest(t, dump(stack("malloc", "store", CACHE)))
      segment:send(t)
      run:ingest(t, dump(stack("malloc", "store", marks.tag(99)), stack("malloc", "store", marks.tag(0xfffff)),
        stack("malloc", "store", CACHE)))
      local built = snapshot()
      local found = sites(built.header)
      assert.same({ 3000, 3000 }, { found["[tag]!(unknown)"], found["[tag]!html::cache"] })
    end)

    it("keep their names for the last heap profile of a process that has ended", function()
      local t = run:add()
      segment:send(t)
      core.lupe_target_retain(t)
      core.lupe_target_died(t, now())
      core.lupe_aggregator_absorb(run.a)
      run:ingest(t, dump(stack("malloc", "store", HTTP)))
      local built = snapshot(-1)
      assert.same({ ["[tag]!http"] = 1000 }, sites(built.header))
      core.lupe_target_release(t)
    end)

    --- Lines of `go tool pprof` about a profile of this kind.
    local function pprof(built, kind, ...)
      local out, count = ffi.new("uint8_t *[1]"), ffi.new("size_t[1]")
      assert.equal(0, tonumber(core.lupe_pprof_encode(built.snapshot, core[kind], out, count)))
      local path = support.write_file(support.temp_dir() .. "/profile.pb.gz", ffi.string(out[0], count[0]))
      ffi.C.free(out[0])
      local done = support.run({ "go", "tool", "pprof", ..., path }, { env = { HOME = support.temp_dir() } })
      assert.equal(0, done.code, done.err)
      return done.out
    end

    it("are labels for pprof, and no places", function()
      local t = run:add()
      segment:send(t)
      run:set_maps(t, maps)
      run:ingest(t, dump(stack("malloc", "store", "main", CACHE, HTTP), stack("malloc", "store", "main")))
      run:thread_sample(t, { time_ms = now() - snapshots.epoch_ms }, stack("hot", "main", CACHE))
      local built = snapshot()
      for _, kind in ipairs({ "LUPE_PPROF_HEAP", "LUPE_PPROF_CPU" }) do
        local raw, tags = pprof(built, kind, "-raw"), pprof(built, kind, "-tags")
        assert.is_truthy(raw:find("tag:[html::cache]", 1, true), raw)
        assert.is_nil(raw:match("\nLocations(.*)$"):find("html", 1, true), raw)
        assert.is_nil(raw:find("http", 1, true), raw)
        assert.is_truthy(tags:find("tag: Total", 1, true) and tags:find("html::cache", 1, true), tags)
      end
    end)
  end)

  describe("as spans", function()
    it("are in snapshots with their process, and the function that begins them", function()
      segment:name(3, "request", address("hot"))
      local t = run:add({ pid = 5 })
      run:set_maps(t, maps)
      segment:send(t)
      segment:span(3, 1000, 2000, 30000)
      segment:span(0, 7)
      local built = snapshot()
      assert.same({
        { name = "html::cache", target = 0, count = 1, total = 7, max = 7 },
        { name = "request", target = 0, count = 3, total = 33000, max = 30000, by = "hot" },
      }, spans(built.header))
    end)

    it("are summed over the readings of the window", function()
      local t = run:add()
      segment:send(t)
      segment:span(1, 10, 500)
      core.lupe_aggregator_absorb(run.a)
      segment:span(1, 20)
      core.lupe_aggregator_absorb(run.a)
      segment:send(t) -- the same segment again changes nothing
      segment:span(1, 30)
      local built = snapshot()
      assert.same({ { name = "http", target = 0, count = 4, total = 560, max = 500 } }, spans(built.header))
      local header = built.header
      assert.is_true(header.span_to_ms - header.span_from_ms > 59000)
      assert.is_true(header.span_to_ms - snapshot(0, 5000).header.span_from_ms < 7000)
    end)

    it("are in a snapshot that was asked for before they were read", function()
      local t = run:add()
      segment:send(t)
      segment:span(1, 10)
      local built = run:snapshot(0, now() - 1500)
      assert.equal(1, spans(built.header)[1].count)
    end)

    it("stay where their process has ended, and what it did last is among them", function()
      local t = run:add({ pid = 5 })
      segment:send(t)
      segment:span(1, 10)
      core.lupe_target_died(t, now())
      local built = snapshot(-1)
      assert.equal(1, spans(built.header)[1].count)
      assert.equal(1, spans(snapshot(-1).header)[1].count)
    end)

    it("go on in the parent where a process is forgotten", function()
      local parent = run:add({ pid = 5 })
      for pid = 100, 180 do
        local child, own = run:add({ pid = pid, ppid = 5, forked = 1 }), marks.segment()
        own:name(0, "job")
        own:send(child)
        own:span(0, 10)
        core.lupe_target_died(child, now())
      end
      core.lupe_aggregator_absorb(run.a)
      local built = snapshot()
      assert.same({ { name = "job", target = 0, count = 81, total = 810, max = 10 } }, spans(built.header))
      assert.is_not_nil(parent)
    end)

    it("of another segment begin anew, after the last of the former one", function()
      local t, other = run:add(), marks.segment()
      segment:send(t)
      segment:span(1, 10)
      other:name(1, "later")
      other:span(1, 5)
      other:send(t)
      core.lupe_aggregator_absorb(run.a)
      local found = spans(snapshot().header)
      assert.equal(1, #found) -- the former one was never absorbed: its place was taken before
      other = marks.segment()
      other:name(0, "last")
      other:span(0, 1)
      other:send(t)
      core.lupe_aggregator_absorb(run.a)
      found = spans(snapshot().header)
      assert.same({ "later", "last" }, { found[1].name, found[2].name })
    end)

    it("are counted since the run began, with what was lost", function()
      local t = run:add()
      segment:send(t)
      segment:span(1, 10, 20)
      segment.at.names_lost, segment.at.spans_lost = 3, 4
      core.lupe_aggregator_absorb(run.a)
      segment:span(1, 30)
      segment.at.spans_lost = 6
      local header = snapshot(0, 1000).header
      local totals = snapshots.column(header, "span_totals", "lupe_snapshot_span_total")
      assert.same({ 1, "http", 3, 60 }, {
        tonumber(header.span_totals.count), snapshots.string(header, totals[0].name), totals[0].count,
        totals[0].total_ns,
      })
      assert.same({ 3, 6 }, { tonumber(header.mark_names_lost), tonumber(header.spans_lost) })
    end)
  end)

  it("are refused where they are something else", function()
    local t = run:add()
    assert.equal(tonumber(core.LUPE_ECORRUPT), marks.segment({ bytes = 4096 }):send(t))
    assert.equal(tonumber(core.LUPE_ECORRUPT), tonumber(core.lupe_target_set_marks(t, snapshots.memfd("x"))))
  end)
end)

--- Leak proofs in snapshots: which ones, for how long, and with what stacks.
local ffi = require("ffi")
local literal = require("lupe.view_literal")
local proofs = require("spec.support_proof")
local snapshots = require("spec.support_snapshot")
local support = require("spec.support")

local core = support.core()
local T0 = snapshots.epoch_ms
local REFUSED, TIME = 5, 11 -- LUPE_PROOF_NO_MEMORY, LUPE_PROOF_TIME

local function validate(address, bytes)
  local why = ffi.new("const char *[1]")
  return tonumber(core.lupe_snapshot_validate(address, bytes, why)), ffi.string(why[0])
end

describe("the leak proofs of a snapshot", function()
  local run, address, maps
  before_each(function()
    run = snapshots.run()
    address, maps = snapshots.program { "malloc", "leak", "cache", "other", "main" }
    run:set_wrappers { { "name", "malloc" } }
  end)
  after_each(support.cleanup)

  local function stack(...)
    local list = {}
    for i, name in ipairs { ... } do list[i] = address(name) end
    return list
  end

  local function started(info)
    local t = run:add(info)
    run:set_maps(t, maps)
    return t
  end

  local function leaking(name, time_ms)
    return proofs.block {
      time_ms = T0 + (time_ms or 0), stacks = { stack("malloc", name, "main"), stack("malloc", "other", "main") },
      objects = { { stack = 1, state = "unreachable", group = 0, head = true }, { stack = 2 } },
    }
  end

  local function taken(target, reply, text) assert.same({ 0, "" }, { proofs.take(target, reply, text) }) end

  local function shown(pid)
    local built = run:snapshot(pid)
    assert.same({ 0, "" }, { validate(built.address, built.bytes) })
    local list, rows = proofs.shown(built.header)
    return list, rows, built
  end

  --- Sites of the rows of each proof, by name.
  local function sites_of(rows)
    local named = {}
    for _, row in ipairs(rows) do
      named[row.proof + 1] = named[row.proof + 1] or {}
      table.insert(named[row.proof + 1], row.site)
    end
    for _, names in ipairs(named) do table.sort(names) end
    return named
  end

  it("come with the stacks and sites that nothing else refers to", function()
    taken(started(), {}, leaking("leak"))
    local list, rows, built = shown()
    assert.equal(1, #list)
    assert.same({ { "leak", "malloc leak main" }, { "other", "malloc other main" } },
      { { rows[1].site, rows[1].stack }, { rows[2].site, rows[2].stack } })
    assert.equal(0, snapshots.sites(built.header).leak.inuse_space)
  end)

  it("share their stacks with the heap", function()
    local t = started()
    run:round(T0, { { t, snapshots.dump(1, {
      { addresses = stack("malloc", "cache", "main"), objects = 2, bytes = 128 },
      { addresses = stack("malloc", "leak", "main"), objects = 1, bytes = 64 },
    }, maps) } })
    taken(t, {}, leaking("leak"))
    local _, rows, built = shown()
    assert.equal(3, tonumber(built.header.stack_site.count))
    assert.equal(64, snapshots.sites(built.header).leak.inuse_space)
    assert.equal("leak", rows[1].site)
  end)

  it("keep what a complete one found, whatever becomes of later ones", function()
    local t = started()
    taken(t, { time_ms = T0 + 1000 }, leaking("leak", 900))
    taken(t, { outcome = TIME, time_ms = T0 + 9000, elapsed_ns = 30e9, read_bytes = 12345 })
    local list, rows = shown()
    assert.same({ TIME, T0 + 9000, 30e9, 12345 },
      { list[1].outcome, list[1].time_ms, list[1].elapsed_ns, list[1].read_bytes })
    assert.same({ T0 + 900, 2000, 1000, 2 },
      { list[1].scanned_ms, list[1].interval_ms, list[1].unreachable_bytes, #rows })
    taken(t, { time_ms = T0 + 20000 }, leaking("cache", 19000))
    list, rows = shown()
    assert.same({ 0, T0 + 19000, { { "cache", "other" } } }, { list[1].outcome, list[1].scanned_ms, sites_of(rows) })
  end)

  it("tell of a refusal alone", function()
    taken(started(), { outcome = REFUSED, error = 0, anonymous_bytes = 5e9 })
    local list, rows = shown()
    assert.same({ REFUSED, 5e9, 0, 0 },
      { list[1].outcome, list[1].anonymous_bytes, list[1].scanned_ms, list[1].heap_bytes })
    assert.same({}, rows)
  end)

  it("are those of each process", function()
    local a, b, c = started { pid = 11 }, started { pid = 12 }, started { pid = 13 }
    taken(c, {}, leaking("cache"))
    taken(a, {}, leaking("leak"))
    local list, rows = shown()
    assert.same({ 0, 2 }, { list[1].target, list[2].target })
    assert.same({ { "leak", "other" }, { "cache", "other" } }, sites_of(rows))
    list, rows = shown(13)
    assert.same({ 1, 0, { { "cache", "other" } } }, { #list, list[1].target, sites_of(rows) })
    assert.same({}, (shown(12)))
    core.lupe_target_died(a, T0 + 2000)
    assert.equal(1, #(shown()))
    assert.equal(2, #(shown(-1)))
    assert.same({ { "leak", "other" } }, sites_of(select(2, shown(11))))
    assert.is_truthy(b)
  end)

  it("go with the processes that are forgotten", function()
    for i = 1, 70 do
      local t = started { pid = 100 + i }
      taken(t, {}, leaking("leak"))
      core.lupe_target_died(t, T0 + i)
    end
    run:snapshot(-1)
    local list = shown(-1)
    assert.equal(64, #list)
  end)

  it("keep their stacks while the stack table makes room", function()
    run = snapshots.run { cpu_hz = 100, stack_bytes = 2 * 1024 * 1024 }
    local t = started()
    local second, n = 0, 0
    local function overflows() return tonumber(core.lupe_aggregator_stack_overflows(run.a)) end
    local function sampled(seconds)
      for _ = 1, seconds do
        for _ = 1, 100 do
          run:thread_sample(t, { time_ms = second * 1000 },
            { address("other") + n % 200, address("other") + math.floor(n / 200) % 200, address("main") + n % 7 })
          n = n + 1
        end
        core.lupe_aggregator_absorb(run.a)
        second = second + 1
      end
    end
    sampled(100)
    taken(t, {}, proofs.block {
      stacks = { stack("leak", "main"), stack("cache", "main"), stack("other", "main") },
      objects = {
        { stack = 1, state = "unreachable", group = 0, head = true, behind = 1 },
        { stack = 2, state = "unreachable", group = 0 }, { stack = 3, holder = 1 },
      },
    })
    local _, before = shown()
    sampled(1200) -- ten minutes fill it; those of the first have gone since
    assert.is_true(overflows() > 0)
    local _, after = shown()
    assert.same(before, after)
  end)

  it("forget the oldest where all together are too many", function()
    local function many(count, time_ms)
      local stacks, objects = {}, {}
      for i = 1, count do
        stacks[i], objects[i] = { address("leak") + i % 200, address("main") + math.floor(i / 200) }, { stack = i }
        end
      return proofs.block { time_ms = time_ms, stacks = stacks, objects = objects }
    end
    local text = many(30000, T0 + 1)
    for i = 1, 8 do taken(started { pid = 20 + i }, {}, text) end
    assert.equal(8, #(shown()))
    local last = started { pid = 50 }
    taken(last, {}, many(30000, T0 + 2))
    local list = shown()
    assert.equal(8, #list)
    assert.same({ 1, 8 }, { list[1].target, list[8].target }) -- the first one's is gone
  end)
end)

describe("a snapshot with leak proofs", function()
  local owner, size, header
  before_each(function()
    header, size, owner = literal({
      targets = { { pid = 7, name = "one" }, { pid = 8, name = "two" } },
      sites = {
        { name = "leak", stack = { "malloc", "leak", "main" }, history = { 1024, 2048 } },
        { name = "keep", stack = { "malloc", "keep", "main" }, history = { 1024, 2048 } },
      },
      profile = { samples = { { stack = { "hot", "main" } } } },
    })
    -- The columns are put behind what the literal has.
    local columns = {
      { header.proofs, "lupe_snapshot_proof", { { target = 0, outcome = 5 }, { target = 1 } } },
      { header.proof_rows, "lupe_snapshot_proof_row", {
        { proof = 1, stack = 0, holder_stack = proofs.NONE, head_stack = 1 },
        { proof = 1, stack = 1, holder_stack = 0, head_stack = proofs.NONE },
      } },
    }
    local texts, at = { ffi.string(ffi.cast("const char *", owner), size) }, size
    for _, column in ipairs(columns) do
      local rows = ffi.new(column[2] .. "[?]", #column[3], column[3])
      texts[#texts + 1] = ffi.string(rows, ffi.sizeof(rows))
      column[1].offset, column[1].count = at, #column[3]
      at = at + ffi.sizeof(rows)
    end
    texts[1] = ffi.string(ffi.cast("const char *", owner), size)
    local text = table.concat(texts)
    owner, size = ffi.new("uint64_t[?]", #text / 8), #text
    ffi.copy(owner, text, #text)
    header = ffi.cast("lupe_snapshot_header *", owner)
    header.total_bytes = size
    assert.same({ 0, "" }, { validate(owner, size) })
  end)

  local function at(column, ctype) return ffi.cast(ctype .. " *", ffi.cast("char *", owner) + header[column].offset) end

  local function breaks(name, what, change)
    it("is refused with " .. name, function()
      change(at("proofs", "lupe_snapshot_proof"), at("proof_rows", "lupe_snapshot_proof_row"))
      local status, why = validate(owner, size)
      assert.are_not.equal(0, status)
      assert.is_truthy(why:find(what, 1, true), why)
    end)
  end

  breaks("a target out of bounds", "proofs: a target", function(list) list[1].target = 2 end)
  breaks("two proofs of a target", "proofs: not in the order", function(list) list[1].target = 0 end)
  breaks("an unknown outcome", "proofs: an outcome", function(list) list[0].outcome = 17 end)
  breaks("a figure that is none", "proofs: a figure", function(list) list[1].scan_ns = 0 / 0 end)
  breaks("a figure below 0", "proofs: a figure", function(list) list[0].unreachable_bytes = -1 end)
  breaks("a row of no proof", "proof_rows: a proof", function(_, rows) rows[1].proof = 2 end)
  breaks("a row of no stack", "proof_rows: a stack out of bounds", function(_, rows) rows[1].stack = proofs.NONE end)
  breaks("a holder out of bounds", "proof_rows: a stack out", function(_, rows) rows[0].holder_stack = 3 end)
  breaks("a head out of bounds", "proof_rows: a stack out", function(_, rows) rows[0].head_stack = 3 end)
  breaks("a stack that has no site", "proof_rows: a stack without", function(_, rows) rows[1].stack = 2 end)
  breaks("rows out of order", "proof_rows: not in order", function(_, rows) rows[1].stack = 0 end)
  breaks("proofs of rows out of order", "proof_rows: not in order", function(_, rows) rows[1].proof = 0 end)
  breaks("a row's figure that is none", "proof_rows: a figure", function(_, rows) rows[0].bytes_variance = 1 / 0 end)
end)

--- What is made of the block of a leak proof, and of one that is malformed.
local ffi = require("ffi")
local proofs = require("spec.support_proof")
local snapshots = require("spec.support_snapshot")
local support = require("spec.support")

local core = support.core()
local CORRUPT = 5

describe("a leak proof", function()
  local run, target, address
  before_each(function()
    local maps
    run = snapshots.run()
    address, maps = snapshots.program { "leak", "cache", "node", "main" }
    target = run:add { sample_period_bytes = 4096 }
    run:set_maps(target, maps)
  end)
  after_each(support.cleanup)

  local function stack(...)
    local list = {}
    for i, name in ipairs { ... } do list[i] = address(name) end
    return list
  end

  --- Rows by the name of their site; and the proof.
  local function rows_of(literal)
    assert.same({ 0, "" }, { proofs.take(target, {}, proofs.block(literal)) })
    local built = run:snapshot()
    assert.equal(0, tonumber(core.lupe_snapshot_validate(built.address, built.bytes, nil)))
    local list, rows = proofs.shown(built.header)
    local named = {}
    for _, row in ipairs(rows) do named[row.site] = row end
    return named, list[1], rows
  end

  it("counts the sampled objects of each stack by what leads to them", function()
    local rows = rows_of {
      stacks = { stack("leak", "main"), stack("cache", "main") },
      objects = {
        { stack = 1, state = "unreachable", group = 7, head = true }, { stack = 1, state = "unsettled" },
        { stack = 1 }, { stack = 2, state = "interior" }, { stack = 2, state = "interior" },
        { stack = 2, state = "stack_only", tid = 12 }, { stack = 1 },
      },
    }
    local function counts(row)
      return { row.reachable, row.interior, row.stack_only, row.unreachable, row.unsettled }
    end
    assert.same({ 2, 0, 0, 1, 1 }, counts(rows.leak))
    assert.same({ 0, 2, 1, 0, 0 }, counts(rows.cache))
    assert.same({ "leak main", "cache main" }, { rows.leak.stack, rows.cache.stack })
  end)

  it("takes each object for as many as sampling has left out", function()
    local rows = rows_of {
      period = 4096, stacks = { stack("leak", "main") },
      objects = {
        { size = 4096, state = "unreachable", group = 0, head = true }, { size = 64, state = "unreachable", group = 1 },
        { size = 8192 },
      },
    }
    local function weight(size) return 1 / (1 - math.exp(-size / 4096)) end
    local row = rows.leak
    local function near(expected, got) assert.is_true(math.abs(got / expected - 1) < 1e-12, expected .. " " .. got) end
    near(weight(4096) + weight(64), row.unreachable_objects)
    near(4096 * weight(4096) + 64 * weight(64), row.unreachable_bytes)
    near(weight(4096) + weight(64) + weight(8192), row.objects)
    near(4096 * weight(4096) + 64 * weight(64) + 8192 * weight(8192), row.bytes)
    local function variance(size) -- (1 - p) / p^2
      local p = 1 - math.exp(-size / 4096)
      return (1 - p) / p ^ 2
    end
    near(variance(4096) + variance(64), row.objects_variance)
    near(4096 ^ 2 * variance(4096) + 64 ^ 2 * variance(64), row.bytes_variance)
  end)

  it("says how far from the truth sampling may have brought it", function()
    local period, sizes = 1024, { 96, 512, 3000 }
    local truth, each, trials = 0, 40, 400
    for _, size in ipairs(sizes) do truth = truth + each * size end
    math.randomseed(11)
    local sum, squares, variances = 0, 0, 0
    for _ = 1, trials do
      local objects = {}
      for _, size in ipairs(sizes) do
        for _ = 1, each do
          if math.random() < 1 - math.exp(-size / period) then
            objects[#objects + 1] = { size = size, state = "unreachable", group = #objects, head = true }
          end
        end
      end
      local row = rows_of { period = period, stacks = { stack("leak", "main") }, objects = objects }.leak
      sum, squares = sum + row.unreachable_bytes, squares + (row.unreachable_bytes - truth) ^ 2
      variances = variances + row.bytes_variance
    end
    local mean, seen, told = sum / trials, squares / trials, variances / trials
    assert.is_true(math.abs(mean - truth) < 4 * math.sqrt(told / trials), ("%g of %g"):format(mean, truth))
    assert.is_true(math.abs(seen / told - 1) < 0.3, ("%g told, %g seen"):format(told, seen))
  end)

  it("counts what every allocation is sampled of as it is", function()
    local row = rows_of {
      period = 1, stacks = { stack("leak", "main") },
      objects = { { size = 64, state = "unreachable", group = 0, head = true } },
    }.leak
    assert.same({ 1, 64, 0, 0 }, { row.unreachable_objects, row.unreachable_bytes, row.objects_variance,
      row.bytes_variance })
  end)

  it("names the stack that holds most of what is reached", function()
    local rows = rows_of {
      stacks = { stack("node", "main"), stack("cache", "main"), stack("leak", "main") },
      objects = {
        { stack = 2 }, { stack = 3 }, { stack = 1, holder = 1 }, { stack = 1, holder = 2 },
        { stack = 1, holder = 1, state = "interior" }, { stack = 1 },
        -- Those that nothing leads to do not count.
        { stack = 1, holder = 2, state = "unreachable", group = 0, head = true },
        { stack = 1, holder = 2, state = "unsettled" },
      },
    }
    assert.same({ "cache main", 2 }, { rows.node.holder_stack, rows.node.held })
    assert.same({ false, 0 }, { rows.cache.holder_stack, rows.cache.held })
  end)

  it("tells what hangs together, and what stands for it", function()
    local function lost(index, group, more)
      local o = { stack = index, state = "unreachable", group = group }
      for name, value in pairs(more or {}) do o[name] = value end
      return o
    end
    local rows = rows_of {
      stacks = { stack("node", "main"), stack("leak", "main"), stack("cache", "main") },
      objects = {
        lost(2, 5, { head = true, behind = 3 }), lost(1, 5), lost(1, 5), lost(1, 5),
        lost(2, 9, { head = true, behind = 1 }), lost(1, 9),
        lost(3, 4000000000, { head = true, behind = 4 }), lost(1, 4000000000), lost(1, 4000000000),
        lost(1, 4000000000), lost(1, 4000000000),
        lost(1, 12), -- whose head is in none of the stacks here
      },
    }
    assert.same({ 4, "leak main", 0 }, { rows.node.groups, rows.node.head_stack, rows.node.largest_behind })
    assert.same({ 2, "leak main", 3 }, { rows.leak.groups, rows.leak.head_stack, rows.leak.largest_behind })
    assert.same({ 1, "cache main", 4 }, { rows.cache.groups, rows.cache.head_stack, rows.cache.largest_behind })
  end)

  it("keeps what was read of the whole heap", function()
    local _, proof = rows_of {
      hidden = 17, time_ms = snapshots.epoch_ms + 900, interval_ms = 3000, threads = 4, registers = 12, period = 8192,
      heap_objects = 5000, heap_bytes = 7e9, unreachable_objects = 20, unreachable_bytes = 3e8, scan_ns = 4e8,
      table_bytes = 5e6,
    }
    assert.same({
      target = 0, outcome = 0, error = 0, hidden = 17, time_ms = snapshots.epoch_ms + 1000, elapsed_ns = 5e9,
      pause_ns = 7e6, anonymous_bytes = 0, read_bytes = 0, scanned_ms = snapshots.epoch_ms + 900, interval_ms = 3000,
      scan_ns = 4e8, table_bytes = 5e6, threads = 4, registers = 12, sample_period_bytes = 8192, heap_objects = 5000,
      heap_bytes = 7e9, unreachable_objects = 20, unreachable_bytes = 3e8,
    }, proof)
  end)

  it("puts two stacks into one row that are the same code", function()
    local beyond = { 0x7f0000001000, 0x7f0000002000 } -- nothing is mapped there
    local _, _, rows = rows_of {
      stacks = { { beyond[1] }, { beyond[2] }, {} },
      objects = { { stack = 1 }, { stack = 2 }, { stack = 3 } },
    }
    assert.equal(1, #rows)
    assert.equal(3, rows[1].reachable)
  end)

  describe("is refused, and changes nothing,", function()
    local good = {
      objects = { { state = "unreachable", group = 3, head = true }, { holder = 1 } },
    }
    before_each(function() good.stacks = { stack("leak", "main"), stack("cache", "main") } end)

    local function refused(why, text)
      assert.same({ 0, "" }, { proofs.take(target, {}, proofs.block(good)) })
      local before = proofs.shown(run:snapshot().header)
      local status, told = proofs.take(target, { time_ms = snapshots.epoch_ms + 9000 }, text)
      assert.equal(CORRUPT, status)
      assert.is_truthy(told:find(why, 1, true), told)
      assert.same(before, proofs.shown(run:snapshot().header))
    end

    local function breaks(what, why, change)
      it("with " .. what, function()
        local parts = proofs.parts(good)
        change(parts)
        refused(why, proofs.join(parts))
      end)
    end

    breaks("another magic", "magic", function(p) p.head.magic = 1 end)
    breaks("another version", "version 2", function(p) p.head.version = 2 end)
    breaks("a count of objects that is too large", "counts", function(p) p.head.object_count = 3 end)
    breaks("counts that overflow", "counts", function(p)
      p.head.object_count, p.head.pc_count, p.head.stack_count = 0xffffffff, 0xffffffff, 0xffffffff
    end)
    breaks("more stacks than objects", "stacks: more", function(p)
      p.head.stack_count, p.first = 3, ffi.new("uint32_t[4]", p.first[0], p.first[1], p.first[2], p.first[2])
    end)
    breaks("no sample period", "sample_period_bytes", function(p) p.head.sample_period_bytes = 0 end)
    breaks("no time", "time_ms", function(p) p.head.time_ms = 0 end)
    breaks("more bytes unreachable than there are", "unreachable", function(p) p.head.unreachable_bytes = 1e9 end)
    breaks("more objects unreachable than there are", "unreachable", function(p) p.head.unreachable_objects = 1e9 end)
    breaks("stacks that are not all of the addresses", "stack_first", function(p) p.first[2] = 3 end)
    breaks("stacks that go back", "stack 1", function(p) p.first[1] = 5 end)
    breaks("an object of no size", "object 1: of no size", function(p) p.objects[1].size_bytes = 0 end)
    breaks("a stack out of bounds", "object 0: a stack", function(p) p.objects[0].stack = 2 end)
    breaks("a holder out of bounds", "object 1: a holder", function(p) p.objects[1].holder = 2 end)
    breaks("an unknown state", "object 1: state 5", function(p) p.objects[1].state = 5 end)
    breaks("a reached object in a group", "object 1: reached", function(p) p.objects[1].group = 1 end)
    breaks("an unreachable object in no group", "object 0: unreachable", function(p)
      p.objects[0].group, p.objects[0].head = proofs.NONE, 0
    end)
    breaks("the head of no group", "object 1: the head", function(p) p.objects[1].head = 1 end)
    breaks("a head that is neither", "object 0: the head", function(p) p.objects[0].head = 2 end)
    breaks("two heads of a group", "group 3: two heads", function(p) p.objects[1] = p.objects[0] end)
    breaks("objects behind no head", "object 1: 1 objects behind", function(p) p.objects[1].behind = 1 end)
    breaks("more objects behind a head than there are", "object 0: 2 objects", function(p) p.objects[0].behind = 2 end)
    breaks("a thread below 0", "object 1: a thread", function(p) p.objects[1].tid = -1 end)

    it("with a stack that is too deep", function()
      local deep = {}
      for i = 1, 129 do deep[i] = 0x1000 + i end
      refused("stack 0: not 0 to 128 frames", proofs.block { stacks = { deep }, objects = { {} } })
    end)

    it("cut off anywhere", function()
      local text = proofs.block(good)
      for bytes = 1, #text - 1 do
        local status = proofs.take(target, {}, text:sub(1, bytes))
        assert.equal(CORRUPT, status)
      end
      refused("head: cut off", text:sub(1, 50))
      refused("counts", text .. "....")
    end)

    it("unsealed, or sealed against half of it", function()
      local why = ffi.new("char[192]")
      for _, seals in ipairs { 0, 2, 8 } do
        local fd = proofs.sealed(proofs.block(good), seals)
        local status = core.lupe_target_take_proof(target, ffi.new("lupe_proof_reply"), fd, why, 192)
        snapshots.close(fd)
        assert.same({ CORRUPT, "leak proof, file: not sealed" }, { tonumber(status), ffi.string(why) })
      end
    end)

    it("without a block", function() refused("without its block", nil) end)

    it("with an outcome that is not known", function()
      local status, why = proofs.take(target, { outcome = 17 })
      assert.same({ CORRUPT, "leak proof: outcome 17 is not known" }, { status, why })
      assert.same({}, (proofs.shown(run:snapshot().header)))
    end)
  end)
end)

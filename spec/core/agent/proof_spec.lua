--- What a leak proof finds, in programs of which it is known.
-- not under asan: neither the agent nor the programs that it is in are sanitized
local ffi = require("ffi")
local bit = require("bit")
local fake_runtime = require("spec.core.agent.fake_runtime")
local proof_hosts = require("spec.core.agent.proof_hosts")
local support = require("spec.support")

local tally, of_size, NONE = proof_hosts.tally, proof_hosts.of_size, proof_hosts.NONE
local EVERY, SOME = { conf = proof_hosts.every_one }, { conf = proof_hosts.some }

-- What became of a pointer once the program has lost it is not for the program to say: a register that is saved on a
-- stack below what the host wipes, or the C library's. So many objects may be kept by such.
local STALE = 3

-- Kinds of proof_host: the size of their objects, and what is to be said of them.
local LOST = { lost = 224, lost_large = 229376, lost_lists = 96, lost_ring = 112, lost_chain = 80 }
local KEPT = {
  kept = { 64, "reachable" }, thread_storage = { 160, "reachable" }, packed = { 256, "reachable" },
  mapped = { 1280, "reachable" }, shared = { 448, "reachable" }, epoll = { 512, "reachable" },
  timers = { 640, "reachable" }, shared_read_only = { 1536, "reachable" }, closed = { 1792, "reachable" },
  sparse = { 2560, "reachable" }, parts = { 3072, "reachable" }, library_storage = { 3584, "reachable" },
  interior = { 320, "interior" }, tagged = { 192, "interior" }, kept_large = { 327680, "interior" },
  after_threads = { 8192, "reachable" }, stack = { 1024, "stack_only" },
}

describe("a leak proof", function()
  local runtime

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  local function start(count, kinds, options)
    local arguments = { tostring(count) }
    for _, kind in ipairs(kinds) do arguments[#arguments + 1] = kind end
    return proof_hosts.start(runtime, "proof_host", arguments, options)
  end

  -- Whose stack something is on is known of threads that wait, and the first one looks every now and then whether it
  -- may go on. A proof amid which it did not.
  local function proof_while_it_waits(host)
    local block
    for _ = 1, 20 do
      block = host:proof()
      if tally(block, 1024).stack_only > 0 then break end
    end
    return block
  end

  local function names(kinds)
    local list = {}
    for name in pairs(kinds) do list[#list + 1] = name end
    table.sort(list)
    return list
  end

  for name, conf in pairs({ ["all are sampled"] = EVERY, ["few are sampled"] = SOME }) do
    it("tells lost objects from those that something leads to, whatever that is, where " .. name, function()
      local kinds = names(LOST)
      for _, kind in ipairs(names(KEPT)) do kinds[#kinds + 1] = kind end
      local count = 1000
      local host = start(count, kinds, conf)
      local block = proof_while_it_waits(host)
      for kind, size in pairs(LOST) do
        local t = tally(block, size)
        assert.is_true(t.sum >= (conf == EVERY and count or 10), kind .. ": " .. t.sum .. " are sampled")
        assert.is_true(t.unreachable >= t.sum - STALE, ("%s: %d of %d found"):format(kind, t.unreachable, t.sum))
        assert.are.equal(0, t.unsettled, kind)
      end
      for kind, expected in pairs(KEPT) do
        local t = tally(block, expected[1])
        assert.is_true(t.sum >= (conf == EVERY and count or 3), kind .. ": " .. t.sum .. " are sampled")
        assert.are.same({ 0, 0 }, { t.unreachable, t.unsettled }, kind)
        assert.is_true(t[expected[2]] >= t.sum - STALE, ("%s: %d of %d are %s"):format(kind, t[expected[2]], t.sum,
          expected[2]))
      end
      assert.are.equal(0, block.head.hidden)
      host:finish()
    end)
  end

  it("counts all objects, sampled or not", function()
    local count = 3000
    local host = start(count, { "lost", "lost_lists", "kept" }, SOME)
    local block = host:proof()
    local heap, lost = tonumber(block.head.heap_objects), tonumber(block.head.unreachable_objects)
    assert.is_true(lost <= 2 * count and lost >= 2 * count - 10 * STALE, lost .. " objects are lost")
    assert.is_true(heap >= 3 * count and heap < 3 * count + 500, heap .. " objects")
    local bytes = tonumber(block.head.unreachable_bytes)
    assert.is_true(math.abs(bytes - count * (224 + 96)) <= 10 * STALE * 224, bytes .. " bytes are lost")
    local as_counted = tonumber(block.head.heap_bytes)
    for _, o in ipairs(block.objects) do -- jemalloc counts a small sampled object as the least that is large
      as_counted = as_counted + math.max(0, 16384 - tonumber(o.size_bytes))
    end
    local figures = support.eventually(function() return host.c:figures() end, 10, "figures")
    assert.is_near(tonumber(figures.allocated_bytes), as_counted, 20000)
    host:finish()
  end)

  it("has each thread's stack lead to what is on it, and names the thread", function()
    local host = start(200, { "thread_stacks", "stack" }, EVERY)
    local block = proof_while_it_waits(host)
    local seen = {}
    for _, o in ipairs((of_size(block, 4096))) do
      assert.are.equal("stack_only", proof_hosts.states[o.state])
      assert.are.equal("stands\n", support.read_file(("/proc/%d/task/%d/comm"):format(host.pid, o.tid)))
      seen[o.tid] = true
    end
    assert.is_true(#names(seen) >= 200 - STALE, #names(seen) .. " threads")
    local on_first = 0
    for _, o in ipairs((of_size(block, 1024))) do
      if o.tid == host.pid and proof_hosts.states[o.state] == "stack_only" then on_first = on_first + 1 end
    end
    assert.is_true(on_first >= 200 - STALE, on_first .. " are on the first thread's stack")
    assert.are.equal(201, block.head.threads)
    assert.is_true(block.head.registers >= 201 * 6)
    host:finish()
  end)

  it("puts lost objects that hang together into one group, with one at its head", function()
    local host = start(1000, { "lost", "lost_lists", "lost_ring", "lost_chain" }, EVERY)
    local block = host:proof()
    local function groups_of(size)
      local groups, heads = {}, 0
      for _, o in ipairs((of_size(block, size))) do
        if proof_hosts.states[o.state] == "unreachable" then
          assert.are_not.equal(NONE, o.group)
          groups[o.group] = groups[o.group] or { objects = 0 }
          groups[o.group].objects = groups[o.group].objects + 1
          if o.head == 1 then
            heads = heads + 1
            groups[o.group].behind = o.behind
            groups[o.group].holder = o.holder
          else
            assert.are.equal(0, o.behind)
            assert.are.equal(o.group, block.objects[o.holder + 1].group)
          end
        else
          assert.are.equal(NONE, o.group)
        end
      end
      local count = 0
      for _, g in pairs(groups) do
        count = count + 1
        assert.are.equal(g.objects - 1, g.behind)
      end
      assert.are.equal(count, heads)
      return count, groups
    end
    assert.is_true(groups_of(224) >= 1000 - STALE)
    local whole, lists, groups = 0, groups_of(96)
    for _, g in pairs(groups) do
      if g.objects == 10 then whole = whole + 1 end
      assert.are.equal(NONE, g.holder) -- a list's head: nothing points to it
    end
    assert.is_true(whole >= 100 - STALE and lists <= 100, lists .. " lists, of which whole: " .. whole)
    assert.are.equal(1, (groups_of(112)))
    assert.are.equal(1, (groups_of(80)))
    host:finish()
  end)

  it("has one group for what hangs together through objects that are not sampled", function()
    local host = start(3000, { "lost_chain", "lost_ring" }, SOME)
    local block = host:proof()
    for _, size in ipairs({ 80, 112 }) do
      local group
      for _, o in ipairs((of_size(block, size))) do
        assert.are.equal("unreachable", proof_hosts.states[o.state])
        group = group or o.group
        assert.are.equal(group, o.group)
      end
      assert.is_not_nil(group)
    end
    host:finish()
  end)

  it("names the nearest sampled object on the way to one", function()
    for _, conf in ipairs({ EVERY, SOME }) do
      local host = start(3000, { "kept" }, conf)
      local list, numbers = of_size(host:proof(), 64)
      local held, first = {}, 0
      for i, o in ipairs(list) do
        if o.holder == NONE then
          first = first + 1
        else
          assert.is_nil(held[o.holder], "two of a list have one holder")
          assert.are_not.equal(numbers[i], o.holder)
          held[o.holder] = true
        end
      end
      assert.are.equal(1, first)
      host:finish()
    end
  end)

  it("takes only what both of its scans say, and of the second what is there", function()
    local count = 300
    local host = start(count, { "fickle", "again" }, EVERY)
    host.c:prove({ interval_ms = 4000 })
    host.c:command("sampling") -- its answer comes when the first scan has its copy
    support.write_file(host.again, "")
    host:wait_until(host.changed)
    local reply, block = host.c:proved(60)
    assert.are.equal(0, reply.outcome)
    local lost, found, freed = tally(block, 5120), tally(block, 6144), tally(block, 7168)
    assert.is_true(lost.unsettled >= count - STALE, lost.unsettled .. " are unsettled")
    assert.are.equal(0, lost.unreachable)
    assert.are.equal(count, found.reachable)
    assert.are.equal(0, freed.sum)
    assert.are.equal(4000, block.head.interval_ms)
    assert.is_true(tonumber(block.head.unreachable_objects) >= count - STALE)

    block = host:proof() -- and now they have been so twice
    assert.is_true(tally(block, 5120).unreachable >= count - STALE)
    host:finish()
  end)

  it("reads the stacks that a heap profile of the same moment has", function()
    local host = start(500, { "kept", "lost", "tagged", "interior", "kept_large", "thread_storage" }, SOME)
    local block = host:proof()
    local text = host.c:profile()
    local from_proof, from_profile = {}, {}
    for _, o in ipairs(block.objects) do
      local frames = {}
      for i, pc in ipairs(block.stacks[o.stack]) do frames[i] = "0x" .. bit.tohex(pc):gsub("^0+", "") end
      local stack = table.concat(frames, " ")
      from_proof[stack] = (from_proof[stack] or 0) + 1
    end
    for _, stack in ipairs(fake_runtime.parse(text).stacks) do
      local frames = {}
      for i, frame in ipairs(stack.frames) do frames[i] = "0x" .. frame end
      if stack.objects > 0 then from_profile[table.concat(frames, " ")] = stack.objects end
    end
    assert.is_true(#names(from_proof) >= 6)
    assert.are.same(from_profile, from_proof)
    host:finish()
  end)

  it("does not take what is free for lost", function()
    local host = start(20000, { "freed", "kept" }, SOME)
    local block = host:proof()
    assert.are.equal(0, tally(block, 5120).sum)
    assert.are.equal(0, tally(block, 65536).sum)
    local lost = tonumber(block.head.unreachable_objects)
    assert.is_true(lost <= STALE, lost .. " objects are lost")
    host:finish()
  end)

  it("does not take what waits in a thread's cache for objects", function()
    local host = start(400, { "cached", "kept" }, EVERY)
    local block = host:proof()
    assert.are.same({ 0, 400 }, { tally(block, 28672).sum, tally(block, 64).sum })
    host:finish()
  end)

  it("needs no more address space than goes with the program's memory", function()
    local host = start(1000, { "lost", "kept" }, EVERY)
    local kib = tonumber(support.read_file(("/proc/%d/status"):format(host.pid)):match("VmSize:%s+(%d+)"))
    local set = support.run({ "prlimit", "--pid", tostring(host.pid), "--as=" .. (kib + 64 * 1024) * 1024 })
    assert.are.equal(0, set.code)
    local t = tally(host:proof(), 224)
    assert.is_true(t.unreachable >= 1000 - STALE, t.unreachable .. " are found")
    host:finish()
  end)

  it("finds pointers wherever in memory they begin", function()
    local host = start(20000, { "packed" }, EVERY) -- some of these lie across pages
    local t = tally(host:proof(), 256)
    assert.are.same({ 20000, 0 }, { t.sum, t.unreachable })
    host:finish()
  end)

  it("finds pointers beside pages that fault", function()
    local host = proof_hosts.start(runtime, "proof_host", { "300", "guarded" }, EVERY)
    local block = host:proof()
    local t = tally(block, 2048)
    assert.are.same({ 300, 0, 0 }, { t.reachable, t.unreachable, block.head.hidden })
    host:finish()
  end)

  it("says where pointers may be that it does not see", function()
    for kind, expected in pairs({ unforked = 64, wiped = 128, kept = 0 }) do
      local host = start(300, { kind }, EVERY)
      assert.are.equal(expected, host:proof().head.hidden, kind)
      host:finish()
    end
  end)

  it("says that there is an io_uring", function()
    local argv = { support.fixture("proof_host"), "1", "io_uring" }
    local probe = support.run(argv)
    if probe.code == 77 then
      pending("io_uring_setup does not work on this machine")
      return
    end
    local host = start(10, { "io_uring" }, SOME)
    assert.are.equal(1, host:proof().head.hidden)
    host:finish()
  end)

  it("follows a chain of two million", function()
    local host = start(2000000, { "kept" }, SOME)
    local block = host:proof({ interval_ms = 0 })
    local t = tally(block, 64)
    assert.is_true(t.sum > 20000)
    assert.are.equal(t.sum, t.reachable)
    assert.is_true(tonumber(block.head.unreachable_objects) <= STALE)
    host:finish()
  end)

  it("has one group for a lost chain of two million", function()
    local host = start(2000000, { "lost_chain" }, SOME)
    local block = host:proof({ interval_ms = 0 })
    local list, heads = of_size(block, 80), 0
    for _, o in ipairs(list) do
      assert(o.state == 3 and o.group == list[1].group)
      if o.head == 1 then
        heads = heads + 1
        assert.are.equal(#list - 1, o.behind)
      end
    end
    assert.is_true(#list > 20000)
    assert.are.equal(1, heads)
    assert.is_true(tonumber(block.head.unreachable_objects) >= 2000000 - STALE)
    host:finish()
  end)

  it("does not read what was never written to", function()
    local host = start(100, { "sparse" }, EVERY)
    local block = host:proof()
    assert.are.equal(100, tally(block, 2560).reachable)
    assert.are.equal(1, tally(block, 2 ^ 31).reachable)
    assert.is_true(tonumber(block.head.read_bytes) < 30e6, tonumber(block.head.read_bytes) .. " bytes read")
    assert.is_true(tonumber(block.head.table_bytes) < 8e6, tonumber(block.head.table_bytes) .. " bytes of tables")
    assert.is_true(tonumber(block.head.scan_ns) < 2e9, tonumber(block.head.scan_ns) .. " ns")
    host:finish()
  end)

  it("tells when it was made and what it took", function()
    local host = start(1000, { "kept" }, SOME)
    local before = support.now()
    local block, reply = host:proof({ interval_ms = 300 })
    local seconds = support.now() - before
    assert.is_true(tonumber(reply.elapsed_ns) >= 0.3e9 and tonumber(reply.elapsed_ns) / 1e9 <= seconds)
    assert.is_true(tonumber(reply.pause_ns) > 0 and reply.pause_ns < reply.elapsed_ns)
    assert.is_true(tonumber(reply.anonymous_bytes) > 1000 * 64)
    assert.are.equal(block.head.read_bytes, reply.read_bytes)
    assert.is_near(os.time(), tonumber(block.head.time_ms) / 1000, 60)
    assert.is_true(block.head.time_ms <= reply.time_ms)
    assert.are.equal(4096ULL, block.head.sample_period_bytes)
    assert.are.equal(ffi.C.LUPE_PROOF_VERSION, block.head.version)
    host:finish()
  end)
end)

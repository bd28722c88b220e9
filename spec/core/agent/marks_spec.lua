--- Spans and tags of real programs: what is counted, under which names, and where it is told.
-- not under asan: neither the agent nor the programs that it is in are sanitized
local ffi = require("ffi")
local bit = require("bit")
local buckets = require("lupe.span_buckets")
local fake_runtime = require("spec.core.agent.fake_runtime")
local support = require("spec.support")

local BUCKETS, OTHERS = 160, 1023
local TAG = "ffffff7a600" -- LUPE_TAG_FRAME, without the number

describe("marks", function()
  local runtime

  before_each(function() runtime = fake_runtime.new() end)
  after_each(function() runtime:close() end)

  local function finish(host)
    runtime:release()
    return host:wait(20)
  end

  -- A host that has said HELLO and sent its marks, and is welcome.
  local function greet(options)
    local c = runtime:hello(20)
    c:expect("marks")
    c:welcome(options)
    return c
  end

  -- A host that does `commands` and waits: its connection, the process.
  local function paused(commands, options)
    local argv = { support.fixture("marks_host") }
    for _, command in ipairs(commands) do argv[#argv + 1] = command end
    argv[#argv + 1], argv[#argv + 2] = runtime.tell, runtime.wait
    local host = runtime:spawn(argv, options or { jemalloc = false })
    local c = greet(options)
    runtime:reached()
    return c, host
  end

  local function name_of(c, number)
    local name = c.marks.names[number]
    return name.state == 2 and ffi.string(name.text) or nil
  end

  -- Sums by name: { count, total_ns, longest_ns, blocks, buckets (from 0), place, number }.
  local function sums(c)
    local by_name = {}
    for n = 0, tonumber(c.marks.name_count) - 1 do
      local name = name_of(c, n)
      if name then
        assert(not by_name[name], "two numbers for " .. name)
        by_name[name] = { count = 0, total_ns = 0, longest_ns = 0, blocks = 0, buckets = {}, number = n,
          place = tonumber(c.marks.names[n].place) }
        for b = 0, BUCKETS - 1 do by_name[name].buckets[b] = 0 end
      end
    end
    for i = 0, tonumber(c.marks.block_count) - 1 do
      local block = c.marks.blocks[i]
      if block.name ~= 0 then
        local sum = assert(by_name[assert(name_of(c, block.name - 1), "a block without a name")])
        sum.count, sum.total_ns = sum.count + tonumber(block.count), sum.total_ns + tonumber(block.total_ns)
        sum.longest_ns = math.max(sum.longest_ns, tonumber(block.longest_ns))
        sum.blocks = sum.blocks + 1
        for b = 0, BUCKETS - 1 do sum.buckets[b] = sum.buckets[b] + tonumber(block.buckets[b]) end
      end
    end
    return by_name
  end

  local function in_buckets(sum)
    local count = 0
    for b = 0, BUCKETS - 1 do count = count + sum.buckets[b] end
    return count
  end

  describe("of spans", function()
    it("come with a segment of a known form, right after HELLO", function()
      local c, host = paused({})
      assert.are.equal(0x314b52414d50554cULL, c.marks.magic)
      assert.are.same({ 1, true }, { c.marks.version, c.marks.bytes >= ffi.sizeof("lupe_marks") })
      assert.are.same({ 0, 0 }, { c.marks.name_count, c.marks.block_count })
      assert.are.equal(0, finish(host))
    end)

    it("are counted exactly, whichever threads they end on at the same time", function()
      local c, host = paused({ "spans=a,8,20000", "spans=b,3,1000" })
      local s = sums(c)
      assert.are.same({ 160000, 160000 }, { s.a.count, in_buckets(s.a) })
      assert.are.same({ 3000, 3000 }, { s.b.count, in_buckets(s.b) })
      assert.is_true(s.a.total_ns > 0 and s.a.total_ns >= s.a.longest_ns)
      assert.are.equal(0, tonumber(c.marks.spans_lost))
      finish(host)
    end)

    it("nest: each counts for itself, and the outer one has at least the time of the inner ones", function()
      local c, host = paused({ "nested=1000" })
      local s = sums(c)
      assert.are.same({ 1000, 3000 }, { s.outer.count, s.inner.count })
      assert.is_true(s.outer.total_ns >= s.inner.total_ns)
      finish(host)
    end)

    it("last as long as the clock says, and stand in the bucket of that", function()
      local began = support.now()
      local c, host = paused({ "lasts=brief,2", "lasts=long,1600" })
      local s, all_ns = sums(c), (support.now() - began) * 1e9
      assert.is_true(s.long.total_ns >= 1599e6, "ns: " .. s.long.total_ns)
      assert.is_true(s.brief.total_ns >= 1.98e6, "ns: " .. s.brief.total_ns)
      assert.is_true(s.long.total_ns + s.brief.total_ns < 1.01 * all_ns, "ns of all: " .. all_ns)
      for _, sum in ipairs({ s.long, s.brief }) do
        assert.are.equal(sum.total_ns, sum.longest_ns)
        assert.are.equal(1, sum.buckets[buckets.of(sum.total_ns, BUCKETS)])
        assert.are.equal(1, in_buckets(sum))
      end
      finish(host)
    end)


    it("have a longest one of those that ended since the runtime has read", function()
      local first, next_step = runtime.folder .. "/first", runtime.folder .. "/next"
      local host = runtime:spawn({ support.fixture("marks_host"), "lasts=a,40", "tell=" .. first,
        "wait=" .. next_step, "lasts=a,1", runtime.tell, runtime.wait }, { jemalloc = false })
      local c = greet()
      support.eventually(function() return support.read_file(first) end, 20, "the first span")
      local longest = sums(c).a.longest_ns
      assert.is_true(longest >= 39e6)
      c.marks.epoch = 7
      support.write_file(next_step, "")
      runtime:reached()
      local s = sums(c)
      assert.are.equal(s.a.total_ns - longest, s.a.longest_ns)
      assert.are.equal(7, c.marks.blocks[0].epoch)
      finish(host)
    end)

    it("of each duration have a bucket, the one that quantiles are read from", function()
      local c, host = paused({ "names=1000" })
      for name, sum in pairs(sums(c)) do
        assert.are.same({ name, 1 }, { name, sum.buckets[buckets.of(sum.total_ns, BUCKETS)] })
      end
      finish(host)
    end)

    it("can end on another thread, and a second time counts nothing", function()
      local c, host = paused({ "across", "twice" })
      local s = sums(c)
      assert.are.same({ 1, 1 }, { s.across.count, s.twice.count })
      finish(host)
    end)

    it("take few blocks, however many threads come and go", function()
      local c, host = paused({ "rounds=a,3000" })
      local s = sums(c)
      assert.are.equal(3000, s.a.count)
      assert.is_true(s.a.blocks <= 4, s.a.blocks .. " blocks")
      finish(host)
    end)

    it("tell the function that began the first one", function()
      local c, host = paused({ "place" })
      local at = tonumber(host:stdout():match("^(%x+)"), 16)
      local place = sums(c).placed.place
      assert.is_true(place > at and place < at + 128, ("%x is not in the function at %x"):format(place, at))
      finish(host)
    end)

    it("share one name from the 1,024th on", function()
      local c, host = paused({ "names=1100", "names=1100" })
      local s = sums(c)
      assert.are.equal(2, s["name 0"].count)
      assert.are.equal(2, s["name 1022"].count)
      assert.is_nil(s["name 1023"])
      assert.are.same({ 2 * (1100 - 1023), OTHERS }, { s["(others)"].count, s["(others)"].number })
      assert.is_true(tonumber(c.marks.names_lost) >= 1100 - 1023)
      finish(host)
    end)

    it("of a forked child are the child's, in a segment of its own with the same numbers", function()
      local next_step = runtime.folder .. "/next"
      local host = runtime:spawn({ support.fixture("marks_host"), "spans=a,2,100", "both", "wait=" .. next_step,
        "spans=a,1,1000", "spans=new,1,10", runtime.tell, runtime.wait }, { jemalloc = false })
      local parent, child = greet(), greet()
      support.write_file(next_step, "")
      for c, count in pairs({ [parent] = 1200, [child] = 1000 }) do
        support.eventually(function()
          local s = sums(c)
          return s.new and s.new.count == 10 and s.a.count == count
        end, 20, count .. " spans")
      end
      assert.are.equal(sums(parent).a.number, sums(child).a.number)
      assert.are_not.equal(parent.hello.pid, child.hello.pid)
      finish(host)
    end)

    it("of a child that no fork handler knows of are nobody's", function()
      local c, host = paused({ "spans=a,2,100", "rawfork", "spans=a,1,1000" })
      assert.are.equal(200, sums(c).a.count)
      assert.are.equal(0, finish(host))
    end)

    it("go on without anybody when the runtime has gone", function()
      local host = runtime:spawn({ support.fixture("marks_host"), "spans=a,2,100", runtime.tell, runtime.wait,
        "spans=a,4,10000", "rounds=b,100", "lasts=c,1" }, { jemalloc = false })
      local c = greet()
      runtime:reached()
      c:close()
      -- Until the agent has noticed, spans are counted.
      support.eventually(function()
        return not support.read_file("/proc/" .. host.pid .. "/maps"):find("lupe-marks", 1, true)
      end, 20, "the agent to let go of its marks")
      assert.are.equal(0, finish(host))
      assert.are.equal(200, sums(c).a.count)
    end)
  end)

  describe("of tags", function()
    -- Names of the tags at a stack's root end, innermost first, of frames in hex digits or as numbers.
    local function tags_of(c, frames)
      local list = {}
      for _, frame in ipairs(frames) do
        local digits = type(frame) == "string" and frame or bit.tohex(frame, 16)
        if digits:sub(1, #TAG) == TAG then
          list[#list + 1] = assert(name_of(c, tonumber(digits:sub(-5), 16)), "a tag without a name")
        else
          assert.are.equal(0, #list) -- nothing but tags comes behind one
        end
      end
      return table.concat(list, " in ")
    end

    -- Live bytes by tags, of a heap profile.
    local function profiled(c)
      local bytes, stacks = {}, fake_runtime.parse((c:profile())).stacks
      for _, stack in ipairs(stacks) do
        local tags = tags_of(c, stack.frames)
        bytes[tags] = (bytes[tags] or 0) + stack.bytes
      end
      return bytes
    end

    it("stand at the end of the stacks of what is allocated in them, innermost first", function()
      local c, host = paused({ "keep=cache,1000,20000", "keep=request:parser:html,500,20000",
        "keep=request,200,20000" }, {})
      local bytes = profiled(c)
      assert.is_near(1000 * 20480, bytes.cache, 0.05 * 1000 * 20480)
      assert.is_near(500 * 20480, bytes["html in parser in request"], 0.05 * 500 * 20480)
      assert.is_near(200 * 20480, bytes.request, 0.05 * 200 * 20480)
      assert.are.equal(0, finish(host))
    end)

    it("come with each sample, too, and the samples are as deep as their stacks say", function()
      local c, host = paused({ "keep=cache:inner,300,20000" }, {})
      local tagged = 0
      for _, sample in ipairs(c:drain()) do
        assert.are.equal(#sample.frames, sample.depth)
        if tags_of(c, sample.frames) == "inner in cache" then tagged = tagged + 1 end
      end
      assert.is_true(tagged >= 290, tagged .. " samples")
      assert.are.equal(0, c:counter("truncated_stacks"))
      finish(host)
    end)

    it("are eight deep: what is deeper belongs to the eighth, and leaving it all is in order", function()
      local c, host = paused({ "deep=400,20000", "keep=after,100,20000" }, {})
      local bytes = profiled(c)
      assert.is_near(400 * 20480, bytes["tag 7 in tag 6 in tag 5 in tag 4 in tag 3 in tag 2 in tag 1 in tag 0"],
        0.05 * 400 * 20480)
      assert.is_near(100 * 20480, bytes.after, 0.1 * 100 * 20480)
      finish(host)
    end)

    it("that a longjmp left out are over with the one around them", function()
      local c, host = paused({ "jump=20000" }, {})
      assert.is_near(100 * 20480, profiled(c)[""], 0.1 * 100 * 20480)
      finish(host)
    end)

    it("belong to CPU samples", function()
      local host = runtime:spawn({ support.fixture("marks_host"), "wait=" .. runtime.here, "burn=busy,600",
        "burn=other:not nested,300" }, { jemalloc = false })
      local c = greet({ cpu_hz = 200 })
      support.eventually(function() return c:counter("cpu_state") == fake_runtime.sampling.on end, 10, "CPU samples")
      runtime:release(runtime.here)
      assert.are.equal(0, host:wait(30))
      local weights = { busy = 0, ["other:not nested"] = 0 }
      for _, sample in ipairs(c:drain()) do
        if sample.kind == "cpu" then
          local tags = tags_of(c, sample.frames)
          weights[tags] = (weights[tags] or 0) + sample.weight
        end
      end
      assert.is_near(2, weights.busy / weights["other:not nested"], 0.5)
      assert.is_true(weights.busy >= 60, "weight " .. weights.busy)
    end)

    it("are told of a leak proof's stacks", function()
      local c, host = paused({ "keep=cache:inner,300,20000" }, {})
      c:prove()
      local reply, block = c:proved()
      assert.are.equal(0, reply.outcome)
      local tagged = 0
      for _, object in ipairs(block.objects) do
        if tags_of(c, block.stacks[object.stack]) == "inner in cache" then tagged = tagged + 1 end
      end
      assert.is_true(tagged >= 290, tagged .. " objects")
      finish(host)
    end)
  end)

  it("end with their scopes in C++, however these are left", function()
    local host = runtime:spawn({ support.fixture("marks_scopes"), "100", runtime.here, runtime.go }, {})
    local c = greet()
    runtime:reached()
    local s = sums(c)
    assert.are.same({ 10, 10, 2 }, { s.returned.count, s.thrown.count, s.template.count })
    local stacks, tagged = fake_runtime.parse((c:profile())).stacks, 0
    for _, stack in ipairs(stacks) do
      local last = stack.frames[#stack.frames]
      if last:sub(1, #TAG) == TAG then
        assert.are.equal("cpp::cache", name_of(c, tonumber(last:sub(-5), 16)))
        tagged = tagged + stack.objects
      end
    end
    assert.is_near(200, tagged, 10)
    assert.are.equal(0, finish(host))
  end)
end)

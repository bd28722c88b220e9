local ffi = require("ffi")
local support = require("spec.support")
local snapshots = require("spec.support_snapshot")

local core = support.core()
local T0 = snapshots.epoch_ms
local RATES = { cpu_hz = 100, wall_hz = 20 }

local function valid(built)
  local why = ffi.new("const char *[1]")
  local status = core.lupe_snapshot_validate(built.address, built.bytes, why)
  assert.are.equal("", ffi.string(why[0]))
  assert.are.equal(0, tonumber(status))
  return built
end

local function build(literal)
  literal.sites, literal.options = literal.sites or {}, literal.options or RATES
  local built = valid(snapshots.build(literal))
  return built, snapshots.samples(built.header)
end

describe("a snapshot's samples", function()
  after_each(support.cleanup)

  it("are summed by stack, thread and state", function()
    local _, samples, threads = build {
      time_ms = 5000,
      samples = {
        { stack = { "hot", "main" }, tid = 7, weight = 3, time_ms = 1000 },
        { stack = { "hot", "main" }, tid = 7, weight = 1, time_ms = 2000 },
        { stack = { "hot", "main" }, tid = 8, weight = 1, time_ms = 2000 },
        { stack = { "hot", "main" }, tid = 7, weight = 1, state = 1, time_ms = 2000 },
        { stack = { "cold", "main" }, tid = 7, weight = 1, time_ms = 2000 },
      },
    }
    assert.are.equal(4, #samples)
    assert.are.same({ "hot", "main" }, samples[1].stack)
    assert.are.equal(4 * 1e7, samples[1].ns) -- 10 ms each
    assert.are.equal(7, threads[samples[1].thread + 1].tid)
    local of_other = 0
    for _, sample in ipairs(samples) do
      if threads[sample.thread + 1].tid == 8 then of_other = of_other + sample.ns end
    end
    assert.are.equal(1e7, of_other)
  end)

  it("share stacks with the heap, and have stacks of their own behind those", function()
    local built, samples = build {
      time_ms = 5000,
      sites = { { stack = { "leak", "main" }, space = { 640 } } },
      samples = {
        { stack = { "only_runs", "main" }, time_ms = 1000 },
        { stack = { "other", "main" }, time_ms = 1000 },
      },
    }
    local site, count = snapshots.column(built.header, "stack_site", "uint32_t")
    assert.are.equal(3, count)
    assert.are.equal(0, site[0])
    assert.are.equal(0xffffffff, site[1])
    assert.are.equal(0xffffffff, site[2])
    assert.are.same({ "only_runs", "main" }, samples[1].stack)
    assert.are.equal(1, tonumber(built.header.site_function.count))
    local inuse = snapshots.column(built.header, "stack_inuse_space", "double")
    assert.are.equal(640, inuse[0])
    assert.are.equal(0, inuse[1])
  end)

  it("have no stack while a thread runs, and count how often it was put on a core", function()
    local _, samples, threads = build {
      time_ms = 5000,
      samples = {
        { kind = "wall", stack = { "main" }, tid = 7, state = 2, weight = 50000, switches = 3, time_ms = 1000 },
        { kind = "wall", stack = { "read", "main" }, tid = 7, state = 3, weight = 25000, switches = 2, time_ms = 1000 },
      },
    }
    assert.are.equal(2, #samples)
    assert.is_nil(samples[1].stack)
    assert.are.equal(5e7, samples[1].ns)
    assert.are.same({ "read", "main" }, samples[2].stack)
    assert.are.equal(5, threads[1].switches)
  end)

  it("are those of the window", function()
    local literal = {
      time_ms = 100000,
      samples = {
        { stack = { "early", "main" }, time_ms = 10000 },
        { stack = { "late", "main" }, time_ms = 95000 },
      },
    }
    local built, samples = build(literal)
    assert.are.equal(1, #samples)
    assert.are.same({ "late", "main" }, samples[1].stack)
    assert.are.equal(T0 + 100000, built.header.profile_to_ms)
    assert.are.equal(T0 + 40000, built.header.profile_from_ms)
    assert.are.equal(100, built.header.cpu_hz)
    assert.are.equal(20, built.header.wall_hz)
    literal.window_ms = 600000
    local _, all = build(literal)
    assert.are.equal(2, #all)
  end)

  it("weigh what their own timer says, whatever rate holds by now", function()
    local _, samples = build {
      time_ms = 5000,
      samples = {
        { stack = { "slow", "main" }, weight = 2, period_ns = 50000000, time_ms = 1000 },
        { stack = { "usual", "main" }, weight = 2, time_ms = 1000 },
        { stack = { "nonsense", "main" }, weight = 2, period_ns = 1, time_ms = 1000 },
      },
    }
    local ns = {}
    for _, sample in ipairs(samples) do ns[sample.stack[1]] = sample.ns end
    assert.are.same({ slow = 1e8, usual = 2e7 }, ns)
  end)

  it("are none of what is off, nor from before a kind was switched on", function()
    local run = snapshots.run(RATES)
    local target = run:add({})
    local function kinds(time_ms)
      local built, list = valid(run:snapshot(0, T0 + time_ms)), {}
      for _, sample in ipairs(snapshots.samples(built.header)) do
        list[#list + 1] = sample.state == 3 and "wall" or "cpu"
      end
      table.sort(list)
      return table.concat(list, " "), built.header
    end
    run:thread_sample(target, { time_ms = 1000 }, { 16 })
    run:thread_sample(target, { kind = "wall", state = 3, weight = 1000, time_ms = 1000 }, { 16 })
    assert.are.equal("cpu wall", (kinds(5000)))
    run:set_rates(0, 20, 6000)
    local seen, header = kinds(7000)
    assert.are.same({ "wall", 0, 20 }, { seen, header.cpu_hz, header.wall_hz })
    run:set_rates(100, 20, 8000)
    run:thread_sample(target, { time_ms = 8500 }, { 16 })
    seen, header = kinds(9000)
    assert.are.same({ "cpu", T0 + 8000 }, { seen, header.profile_from_ms })
    run:set_rates(50, 20, 9500)
    assert.are.same({ "cpu", 50 }, { kinds(10000), select(2, kinds(10000)).cpu_hz })
  end)

  it("reach back again when the kind that was switched on last is off", function()
    local run = snapshots.run({ cpu_hz = 100 })
    local target = run:add({})
    local function window(time_ms)
      local built = valid(run:snapshot(0, T0 + time_ms))
      return { #snapshots.samples(built.header), built.header.profile_from_ms - T0 }
    end
    run:thread_sample(target, { time_ms = 1000 }, { 16 })
    run:set_rates(100, 20, 6000)
    assert.are.same({ 0, 6000 }, window(9000))
    run:set_rates(100, 0, 9000)
    assert.are.same({ 1, 0 }, window(10000))
    run:set_rates(0, 20, 11000)
    assert.are.same({ 0, 11000 }, window(12000))
  end)

  it("are one process's where one is asked for, and everybody's otherwise", function()
    local built, samples, threads = build {
      time_ms = 5000,
      targets = { { pid = 4241 }, { pid = 4242 } },
      samples = {
        { stack = { "one", "main" }, target = 1, tid = 1, time_ms = 1000 },
        { stack = { "two", "main" }, target = 2, tid = 1, time_ms = 1000 },
      },
    }
    assert.are.equal(2, #samples)
    assert.are.equal(0, threads[1].target)
    assert.are.equal(1, threads[2].target)
    local one = valid(built.run:snapshot(4242, T0 + 5000))
    local few = snapshots.samples(one.header)
    assert.are.equal(1, #few)
    assert.are.same({ "two", "main" }, few[1].stack)
  end)

  it("say how sampling goes", function()
    local run = snapshots.run(RATES)
    local target = run:add()
    local sampling = ffi.new("lupe_target_sampling", { cpu_state = 2, wall_state = 1, threads_untimed = 3,
      threads_unread = 4 })
    core.lupe_target_set_sampling(target, sampling)
    core.lupe_target_name_thread(target, 9, "worker")
    local built = valid(run:snapshot())
    local rows = snapshots.column(built.header, "targets", "lupe_snapshot_target")
    assert.are.same({ 2, 1, 3, 4 },
      { rows[0].cpu_state, rows[0].wall_state, rows[0].threads_untimed, rows[0].threads_unread })
  end)

  it("have the names of their threads", function()
    local built = build { time_ms = 5000, samples = { { stack = { "hot" }, tid = 9, time_ms = 1000 } } }
    core.lupe_target_name_thread(built.targets[1], 9, "worker")
    local _, threads = snapshots.samples(valid(built.run:snapshot(0, T0 + 5000)).header)
    assert.are.equal("worker", threads[1].name)
  end)
end)

describe("a C library function without a symbol", function()
  after_each(support.cleanup)

  --- Names of the functions of one sample whose frames lie in `stripped`.
  local function functions(memory_functions)
    local address, maps = snapshots.program { "libc!?nameless", "libc!known", "main" }
    local run = snapshots.run(RATES)
    local where = ffi.new("uint64_t[8]")
    for index, frame in pairs(memory_functions) do where[index] = address(frame) - 17 end
    local target = run:add { memory_functions = where }
    run:set_maps(target, maps)
    run:thread_sample(target, { time_ms = 1000 },
      { address("libc!?nameless") - 17, address("libc!known"), address("main") })
    local built = valid(run:snapshot(0, T0 + 5000))
    return snapshots.samples(built.header)[1].stack
  end

  it("bears the name that the agent gave its address", function()
    assert.are.equal("memcpy", functions({ [0] = "libc!?nameless" })[1])
    assert.are.equal("memset", functions({ [2] = "libc!?nameless" })[1])
  end)

  it("bears the first of several names", function()
    assert.are.equal("memcpy", functions({ [0] = "libc!?nameless", [1] = "libc!?nameless" })[1])
  end)

  it("keeps its symbol where it has one", function()
    assert.are.equal("known", functions({ [0] = "libc!known" })[2])
  end)
end)

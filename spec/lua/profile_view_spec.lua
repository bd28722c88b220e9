require("spec.support")
local given = require("spec.rules.profile_support")
local view = require("lupe.view")

local cpu, wait = given.cpu, given.wait

local function profile(samples, threads, more) return view.from_table(given.program(samples, threads, more)).profile end

local function by_name(described, options)
  local found = {}
  for f in described:functions(options) do found[f.name] = f end
  return found
end

local function names(iterator)
  local list = {}
  for f in iterator do list[#list + 1] = f.name end
  return list
end

describe("a function of the profile", function()
  it("owns the time of libc, the vdso and the loader when it calls them", function()
    local found = by_name(profile({
      cpu(2, { "libc.so.6!memcpy", "copy", "main" }), cpu(3, { "copy", "main" }),
      cpu(1, { "[vdso]!clock_gettime", "libc.so.6!time", "stamp", "main" }),
    }))
    assert.same({ 5e9, 2e9, 1e9 }, { found.copy.cpu_ns, found.copy.memory_ns, found.stamp.cpu_ns })
    assert.is_nil(found.memcpy)
    assert.same({ name = "memcpy", ns = 2e9, cpu_ns = 2e9, kernel_ns = 0, io_ns = 0, lock_ns = 0, idle_ns = 0 },
      found.copy.calls[1])
  end)

  it("owns the time it waits, by what it waits for", function()
    local f = by_name(profile({
      wait(4, given.READ, { "libc.so.6!read", "work", "main" }),
      wait(2, given.FUTEX, { "libc.so.6!syscall", "libc.so.6!pthread_mutex_lock", "work" }, { futex = 137 }),
      wait(8, given.FUTEX, { "libc.so.6!syscall", "libc.so.6!pthread_cond_wait", "work" }),
      wait(16, given.POLL, { "libc.so.6!poll", "work" }), cpu(1, { "work" }), cpu(1, { "work" }, { state = "kernel" }),
    })).work
    assert.same({ 2e9, 1e9, 4e9, 2e9, 24e9, 8e9 }, { f.cpu_ns, f.kernel_ns, f.io_ns, f.lock_ns, f.idle_ns, f.wall_ns })
    assert.same({ name = "poll", class = "idle", ns = 16e9 }, f.waits[1])
  end)

  it("counts once in a stack however often it calls itself", function()
    local found = by_name(profile({ cpu(1, { "walk", "walk", "visit", "walk", "main" }) }), { by = "cum_cpu_ns" })
    assert.same({ 1e9, 1e9 }, { found.walk.cum_cpu_ns, found.visit.cum_cpu_ns })
  end)

  it("knows its hottest line, by CPU time, and where it is defined", function()
    local function at(line) return { name = "parse", file = "src/parse.c", line = line, definition_line = 40 } end
    local f = by_name(profile({
      cpu(1, { at(50) }), cpu(2, { at(60) }), cpu(2, { "libc.so.6!memcpy", at(50) }),
      wait(30, given.READ, { "libc.so.6!read", at(70) }),
    })).parse
    assert.same({ "src/parse.c", 50, 40 }, { f.file, f.line, f.definition_line })
  end)

  it("knows its hottest line by waiting where it never computes, and none where there is none", function()
    local found = by_name(profile({
      wait(3, given.READ, { "libc.so.6!read", "load", "main" }, { lines = { 0, 70, 5 } }), cpu(1, { "stripped" }),
    }))
    assert.same({ 70 }, { found.load.line })
    assert.is_nil(found.stripped.line)
    assert.is_nil(found.stripped.file)
    assert.is_nil(found.stripped.definition_line)
  end)

  it("knows in how many threads it was busy, and how many of them waited for a lock", function()
    local samples = {
      cpu(1, { "work" }, { thread = 4 }), wait(1, given.POLL, { "libc.so.6!poll", "work" }, { thread = 5 }),
    }
    for thread = 1, 3 do
      samples[#samples + 1] = wait(1, given.FUTEX, { "libc.so.6!pthread_mutex_lock", "work" }, { thread = thread })
    end
    local f = by_name(profile(samples, given.threads(5))).work
    assert.same({ 4, 3 }, { f.threads, f.lock_threads })
  end)

  it("shows its heaviest stack from itself outwards", function()
    local f = by_name(profile({
      cpu(1, { "work", "left", "main" }), cpu(2, { "libc.so.6!memset", "work", "right", "main" }),
      wait(90, given.POLL, { "libc.so.6!poll", "work", "idle", "main" }),
    })).work
    assert.same({ "work", "right", "main" }, f.stack)
  end)

  it("is told apart from one of the same name in another module", function()
    local list = {}
    for f in profile({ cpu(2, { "/lib/liba.so!work" }), cpu(1, { "/lib/libb.so!work" }) }):functions() do
      list[#list + 1] = f.module .. " " .. f.cpu_ns
    end
    assert.same({ "liba.so 2000000000", "libb.so 1000000000" }, list)
  end)

  it("knows what of its time, and of what it calls, is in the allocator, and who called that", function()
    local found = by_name(profile({
      cpu(3, { "libjemalloc.so.2!arena_malloc_hard", "libjemalloc.so.2!malloc",
        "libstdc++.so.6!operator new(unsigned long)", "parse", "serve", "main" }),
      cpu(1, { "parse", "serve", "main" }), cpu(1, { "libc.so.6!unnamed", "libc.so.6!malloc", "serve", "main" }),
    }), { by = "cum_cpu_ns" })
    assert.same({ 3e9, 4e9 }, { found.parse.allocator_ns, found.serve.allocator_ns })
    assert.same({ 4e9, 3e9, 0 }, { found.parse.cpu_ns, found.parse.memory_ns, found.serve.cpu_ns - 1e9 })
    assert.is_nil(found.malloc)
    assert.same({ 3e9, 1e9 }, { found.parse.allocating_ns, found.serve.allocating_ns })
  end)

  it("cannot be changed by a rule", function()
    local f = profile({ cpu(1, { "work" }) }):functions()()
    assert.has_error(function() f.cpu_ns = 0 end, "a function is read-only (field 'cpu_ns')")
  end)
end)

describe("the functions of the profile", function()
  local function program()
    return profile({
      cpu(5, { "hot", "main", "libc.so.6!__libc_start_main_impl", "_start" }),
      cpu(1, { "main", "libc.so.6!__libc_start_main_impl", "_start" }),
      wait(9, given.READ, { "libc.so.6!read", "load", "pool", "libc.so.6!start_thread", "libc.so.6!clone3" }),
    })
  end

  it("come in order, as many as asked for", function()
    assert.same({ "load", "hot", "main" }, names(program():functions()))
    assert.same({ "hot", "main" }, names(program():functions { by = "cpu_ns" }))
    assert.same({ "load" }, names(program():functions { by = "wall_ns", limit = 1 }))
    assert.same({}, names(program():functions { by = "lock_ns" }))
  end)

  it("leave out what only begins threads, and main where the order is by callees", function()
    assert.same({ "load", "pool", "hot" }, names(program():functions { by = "cum_wall_ns" }))
    local all = by_name(program(), { by = "cum_wall_ns", roots = true })
    assert.same({ true, true, true, false }, { all.main.root, all.start_thread.root, all._start.root, all.hot.root })
  end)

  it("refuse what they don't know with a hint", function()
    local p = program()
    assert.has_error(function() p:functions { by = "cpu" } end)
    local ok, message = pcall(function() p:functions { bye = "cpu_ns" } end)
    assert.is_false(ok)
    assert.is_truthy(message:find("unknown option 'bye', did you mean 'by'?", 1, true))
  end)
end)

describe("the profile", function()
  it("adds up what was busy, and tells the shares of what bounds it", function()
    local p = profile({
      cpu(3, { "work" }), cpu(1, { "libc.so.6!memcpy", "work" }), wait(4, given.READ, { "work" }),
      wait(2, given.FUTEX, { "libc.so.6!pthread_mutex_lock", "work" }), wait(100, given.POLL, { "work" }),
      given.running(5),
    })
    assert.same({ 4e9, 1e9, 4e9, 2e9, 100e9, 10e9, 5e9 },
      { p.cpu_ns, p.memory_ns, p.io_ns, p.lock_ns, p.idle_ns, p.busy_ns, p.running_ns })
    assert.same({ cpu = 0.3, memory = 0.1, io = 0.4, lock = 0.2 }, p.bound)
    assert.same({ 60, 400, 2220, 2620 }, { p.seconds, p.cpu_samples, p.wall_samples, p.total_samples })
  end)

  it("says nothing of shares where nothing was busy, or the CPU is not known", function()
    assert.is_nil(profile({ wait(10, given.POLL, { "work" }) }).bound)
    local described = given.program({ wait(10, given.READ, { "work" }) })
    described.targets = { { cpu_state = "foreign" } }
    local p = view.from_table(described).profile
    assert.is_nil(p.bound)
    assert.same({ "foreign", "the program has a handler for SIGPROF of its own" }, { p.cpu.state, p.cpu.reason })
  end)

  it("says nothing of waiting where that was not looked at", function()
    local p = profile({ cpu(3, { "work" }) }, nil, { wall_hz = 0 })
    assert.same({ cpu = 1, memory = 0 }, p.bound)
    assert.same({ "off", "wall profiling is off" }, { p.wall.state, p.wall.reason })
  end)

  it("is there, and empty, in a snapshot without one", function()
    local p = view.from_table({}).profile
    assert.same({ "off", "off", 0, 0, 0 }, { p.cpu.state, p.wall.state, p.cpu_ns, p.total_samples, p.seconds })
    assert.same({ {}, {}, {} }, { names(p:functions()), p:threads(), p:waits() })
    assert.is_nil(p.bound)
    assert.is_nil(p:lacks(100))
  end)

  it("tells how long it would take to have enough samples, at the pace so far", function()
    local p = profile({ cpu(0.25, { "work" }), wait(50, given.POLL, { "work" }) })
    assert.is_nil(p:lacks(25))
    assert.is_nil(p:lacks(1000, "wall"))
    assert.same({ needed_seconds = 240 }, p:lacks(100))
    assert.same({ needed_seconds = 240 }, p:lacks(100, "cpu"))
  end)

  it("takes a futex for what the function says that waits, and for its command where none does", function()
    local p = profile({
      wait(1, given.FUTEX, { "libc.so.6+0x1", "libc.so.6!pthread_mutex_lock", "work" }, { futex = 137 }),
      wait(2, given.FUTEX, { "libc.so.6+0x1", "libc.so.6!sem_wait", "work" }, { futex = 128 }),
      wait(4, given.FUTEX, { "libc.so.6+0x1", "work" }, { futex = 128 }),
      wait(8, given.FUTEX, { "libc.so.6+0x1", "work" }, { futex = 137 }),
      { state = "waiting", syscall = given.FUTEX, futex = 128, ns = 16e9 },
    })
    assert.same({ 21e9, 10e9 }, { p.lock_ns, p.idle_ns })
  end)

  it("knows the CPU time of tags, which are no callers and no hotspots", function()
    local p = profile({
      cpu(3, { "hot", "main", "[tag]!cache", "[tag]!http" }), cpu(1, { "hot", "main", "[tag]!http" }),
      cpu(2, { "libc.so.6!memcpy", "libc.so.6!start_thread", "[tag]!cache" }), cpu(4, { "cold", "main" }),
    })
    assert.same({
      { name = "cache", cpu_ns = 5e9, cpu_percent = 50, samples = 500 },
      { name = "http", cpu_ns = 1e9, cpu_percent = 10, samples = 100 },
    }, p:tags())
    local seconds, roots = {}, {}
    for f in p:functions({ by = "cum_cpu_ns", roots = true }) do
      seconds[f.name], roots[f.name] = f.cum_cpu_ns / 1e9, f.root
    end
    assert.same({ hot = 4, main = 8, cold = 4, memcpy = 2, start_thread = 2 }, seconds)
    assert.same({ true, true }, { roots.main, roots.start_thread })
    for f in p:functions({ by = "cpu_ns", limit = 1 }) do assert.same({ "hot", "main" }, f.stack) end
    local tags = {}
    for frames, _, _, tag in p:stacks({ type = "cpu" }) do tags[frames[1].name .. #frames] = tag or "none" end
    assert.same({ memcpy2 = "cache", cold2 = "none" }, { memcpy2 = tags.memcpy2, cold2 = tags.cold2 })
    assert.is_truthy(tags.hot2)
    assert.same({}, profile({ cpu(1, { "work" }) }):tags())
  end)

  it("lists what was waited for, longest first", function()
    local p = profile({
      wait(1, given.READ, { "a" }), wait(3, given.READ, { "b" }), wait(2, given.FSYNC, { "a" }),
      { stack = { "a" }, state = "waiting", ns = 5e9, count = 5 },
    })
    assert.same({
      { name = "page fault", class = "io", ns = 5e9, count = 5 }, { name = "read", class = "io", ns = 4e9, count = 80 },
      { name = "fsync", class = "io", ns = 2e9, count = 40 },
    }, p:waits())
  end)

  it("lists threads, busiest first, with where they are busy and where they wait", function()
    local threads = profile({
      cpu(1, { "parse" }, { thread = 1 }), cpu(2, { "render" }, { thread = 2 }),
      wait(3, given.READ, { "libc.so.6!read", "load" }, { thread = 1 }), given.running(2, 1),
    }, given.threads(3, 60)):threads()
    assert.same({ "worker2", "worker1", "worker3" }, { threads[1].name, threads[2].name, threads[3].name })
    local second = threads[2]
    assert.same({ 1, 101, 1e9, 2e9, 3e9, 0, 60, 5 }, { second.pid, second.tid, second.cpu_ns, second.running_ns,
      second.io_ns, second.lock_ns, second.switches, second.seconds_seen })
    local f, ns, syscall = second:where("io")
    assert.same({ "load", 3e9, "read" }, { f.name, ns, syscall })
    assert.equal("parse", second:where("cpu").name)
    assert.is_nil(second:where("lock"))
  end)

  it("gives stacks with what is inlined into their frames", function()
    local inlines = { { name = "min", file = "util.h", line = 3 } }
    local p = profile({
      cpu(1, { { name = "work", file = "work.c", line = 12, inlines = inlines }, "main" }),
      wait(2, given.READ, { "load" }),
    })
    local frames, ns, samples = p:stacks { type = "cpu" }()
    assert.same({ 2, 1e9, 100 }, { #frames, ns, samples })
    assert.same({ name = "work", module = "app", file = "work.c", line = 12, inlines = inlines }, frames[1])
    local count = 0
    for _, each in p:stacks { type = "wall" } do count = count + each end
    assert.equal(3e9, count)
  end)
end)

describe("random profiles", function()
  local function random_program(seed)
    local state = seed
    local function random(n)
      state = state * 48271 % 2147483647
      return state % n
    end
    local modules = { "app", "libapp.so", "libc.so.6", "libjemalloc.so.2", "[vdso]" }
    local named = {
      "memcpy", "malloc", "pthread_mutex_lock", "pthread_cond_wait", "main", "start_thread", "f", "g", "h",
    }
    local samples = {}
    for i = 1, 300 do
      local stack = {}
      for k = 1, 1 + random(12) do stack[k] = modules[1 + random(5)] .. "!" .. named[1 + random(9)] end
      samples[i] = {
        stack = stack, thread = 1 + random(4), state = ({ "user", "kernel", "running", "waiting" })[1 + random(4)],
        syscall = ({ 0, 202, 232, 11 })[1 + random(4)], futex = random(2) * 9, count = 1 + random(5),
        ns = 1000 * (1 + random(1e6)),
      }
      if samples[i].state == "running" then samples[i].stack = nil end
    end
    return samples
  end

  it("add up: functions, threads and stacks to the whole, and shares to one", function()
    for seed = 1, 40 do
      local samples = random_program(seed)
      local p = profile(samples, given.threads(4))
      local truth = { cpu_ns = 0, kernel_ns = 0, running_ns = 0, waiting = 0, cpu_samples = 0 }
      for _, sample in ipairs(samples) do
        local cpu_time = sample.state == "user" or sample.state == "kernel"
        local field = cpu_time and "cpu_ns" or sample.state == "running" and "running_ns" or "waiting"
        truth[field] = truth[field] + sample.ns
        if sample.state == "kernel" then truth.kernel_ns = truth.kernel_ns + sample.ns end
        if cpu_time then truth.cpu_samples = truth.cpu_samples + sample.count end
      end
      assert.same({ truth.cpu_ns, truth.kernel_ns, truth.running_ns, truth.cpu_samples },
        { p.cpu_ns, p.kernel_ns, p.running_ns, p.cpu_samples })
      assert.equal(truth.waiting, p.io_ns + p.lock_ns + p.idle_ns)
      for _, field in ipairs({ "cpu_ns", "kernel_ns", "memory_ns", "io_ns", "lock_ns", "idle_ns" }) do
        local sum = 0
        for f in p:functions { by = field, roots = true } do sum = sum + f[field] end
        assert.equal(p[field], sum, field)
      end
      local threads, stacks = 0, 0
      for _, thread in ipairs(p:threads()) do threads = threads + thread.cpu_ns + thread.io_ns + thread.lock_ns end
      for _, ns in p:stacks { type = "wall" } do stacks = stacks + ns end
      assert.same({ p.busy_ns, p.busy_ns }, { threads, stacks })
      for f in p:functions { by = "cum_wall_ns", roots = true } do
        assert.is_true(f.cum_wall_ns >= f.wall_ns and f.cum_wall_ns <= p.busy_ns and f.cum_cpu_ns >= f.cpu_ns
          and f.allocator_ns <= f.cum_cpu_ns and f.allocating_ns <= f.allocator_ns, f.name)
      end
      assert.is_true(math.abs(p.bound.cpu + p.bound.io + p.bound.lock + p.bound.memory - 1) < 1e-12)
    end
  end)
end)

local given = require("spec.rules.profile_support")

local cpu, wait, program, run, threads = given.cpu, given.wait, given.program, given.run, given.threads

local function only(answer)
  assert.equal("ok", answer.status)
  assert.equal(1, #answer.findings)
  return answer.findings[1]
end

local function quiet(answer)
  assert.same({ findings = {}, status = "ok" }, answer)
end

local function has(text, part) assert.is_truthy(text:find(part, 1, true), text) end

local BOUNDS = { "cpu_bound", "io_bound", "lock_bound", "memory_bound" }
local PATTERNS = { "saturated_thread", "lock_convoy", "allocation_loop", "polling", "syscall_loop" }

local function mutex(seconds, name, thread)
  return wait(seconds, given.FUTEX, { "libc.so.6!pthread_mutex_lock", name, "main" }, { thread = thread, futex = 128 })
end

describe("the rule bottleneck.hotspot", function()
  -- crawl has 25.3 % of the CPU time and 30.1 % of the busy time.
  local function example()
    return program({
      cpu(25.3, { { name = "crawl", file = "src/spider/core.rs", line = 45 }, "main" }), cpu(74.7, { "rest", "main" }),
      wait(30, given.READ, { "libc.so.6!read", "crawl", "main" }), wait(53.7, given.READ, { "libc.so.6!read", "rest" }),
    })
  end

  it("scores the example that the API was designed with 0.85 +- 0.02", function()
    local found
    for _, finding in ipairs(run("hotspot", example()).findings) do
      if finding.hotspot.name == "crawl" then found = finding end
    end
    assert.is_true(math.abs(found.hotspot.cpu_percent - 25.3) < 0.01)
    assert.is_true(math.abs(found.hotspot.wall_percent - 30.1) < 0.02)
    assert.is_true(math.abs(found.score - 0.85) <= 0.02, found.score)
    assert.equal("critical", found.severity)
    assert.same({ "src/spider/core.rs", 45 }, { found.hotspot.file, found.hotspot.line })
    has(found.summary, "crawl (core.rs:45): 25.3 % of CPU time, 30.1 % of busy thread time, most of it waiting for I/O")
  end)

  it("scores by CPU time alone within the same bounds, where waiting is not known", function()
    local described = program({ cpu(25.3, { "crawl" }), cpu(74.7, { "rest" }) }, nil, { wall_hz = 0 })
    local found = run("hotspot", described).findings[2]
    assert.equal("crawl", found.hotspot.name)
    assert.is_true(math.abs(found.score - 0.85) <= 0.02, found.score)
    assert.equal("crawl: 25.3 % of CPU time, most of it computing", found.summary)
  end)

  it("scores by waiting alone where the CPU is not known", function()
    local described = program({ wait(25.3, given.READ, { "crawl" }), wait(74.7, given.READ, { "rest" }) })
    described.targets = { { cpu_state = "foreign" } }
    local found = run("hotspot", described).findings[2]
    assert.is_nil(found.hotspot.cpu_percent)
    assert.is_true(math.abs(found.score - 0.85) <= 0.02, found.score)
    has(found.summary, "crawl: 25.3 % of the waits for I/O and locks, most of it waiting for I/O")
  end)

  it("weighs the share of CPU time less where the program hardly uses the CPU", function()
    local function impact(cores)
      local answer = run("hotspot", program({ cpu(60 * cores, { "tick" }), wait(100, given.READ, { "load" }) }),
        { min_samples = 1, min_impact = 0 })
      for _, finding in ipairs(answer.findings) do
        if finding.hotspot.name == "tick" then return finding.score end
      end
    end
    assert.is_true(impact(0.01) < 0.2)
    assert.is_true(impact(0.1) < impact(0.3) and impact(0.3) < impact(0.5))
    assert.is_true(impact(0.5) > 0.9)
  end)

  it("ranks by impact, names each function once, and as many as it may", function()
    local samples = {}
    for i = 1, 15 do
      samples[#samples + 1] = cpu(i, { "f" .. i, "main" })
      samples[#samples + 1] = wait(i, given.READ, { "libc.so.6!read", "f" .. i, "main" })
    end
    local answer = run("hotspot", program(samples), { min_impact = 0 })
    assert.equal(15, #answer.findings)
    for i, finding in ipairs(answer.findings) do assert.equal("f" .. 16 - i, finding.hotspot.name) end
    assert.equal(3, #run("hotspot", program(samples), { most_findings = 3 }).findings)
    assert.equal(15, #run("hotspot", program(samples), { most_findings = 15, min_impact = 0 }).findings)
  end)

  it("says what a function's time is, and what to do about it", function()
    local answer = run("hotspot", program({
      cpu(5, { "compute" }), cpu(5, { "libc.so.6!memcpy", "copy" }), cpu(5, { "libc.so.6!malloc", "churn" }),
      cpu(5, { "libc.so.6!write", "log" }, { state = "kernel" }), mutex(5, "locked"),
      wait(5, given.READ, { "libc.so.6!read", "load" }),
    }))
    local words = {}
    for _, finding in ipairs(answer.findings) do
      words[finding.hotspot.name] = finding.summary:match("most of it (.*)") .. "; " .. finding.advice[1]
    end
    assert.same({
      compute = "computing; Call it less often, or make it cheaper",
      copy = "moving memory; Copy less (most in memcpy)",
      churn = "allocating memory; Allocate less often",
      log = "in the kernel; Make fewer system calls (most in write)",
      load = "waiting for I/O; It waits in read: do so less often, or do other work meanwhile",
      locked = "waiting for locks; Take the lock less often, and hold it for a shorter time",
    }, words)
  end)

  it("names the line, and of what has no symbol who calls it", function()
    local answer = run("hotspot", program({
      cpu(5, { { name = "compute", file = "a.c", line = 7 }, "main" }),
      cpu(4, { "app+0x10", "app+0x20", "serve", "main" }), cpu(3, { "app+0x30" }),
    }))
    local advice = {}
    for i, finding in ipairs(answer.findings) do advice[i] = finding.advice[1] end
    assert.same({
      "Call it less often, or make its hottest line (7) cheaper",
      "Call it less often, or make it cheaper; it has no symbol, and is called below serve",
      "Call it less often, or make it cheaper; it has no symbol",
    }, advice)
  end)

  it("leaves out what only begins threads, and not a main that works itself", function()
    local answer = run("hotspot", program({
      cpu(5, { "main", "libc.so.6!__libc_start_main_impl", "_start" }), cpu(5, { "work", "libc.so.6!start_thread" }),
    }))
    local names = {}
    for i, finding in ipairs(answer.findings) do names[i] = finding.hotspot.name end
    assert.same({ "main", "work" }, names)
  end)

  it("does not mind what takes less than a hundredth", function()
    local answer = run("hotspot", program({ cpu(99.5, { "work" }), cpu(0.5, { "rest" }) }))
    assert.equal("work", only(answer).hotspot.name)
  end)

  it("is less sure of what few samples tell", function()
    local findings = run("hotspot", program({ cpu(20, { "many" }), cpu(1, { "few" }) })).findings
    assert.is_true(findings[1].confidence > 0.97 and findings[2].confidence < 0.92)
  end)
end)

describe("the rules about what bounds a program", function()
  -- Each has 80 % of its kind, and the rest of the others.
  local PROGRAMS = {
    cpu_bound = { cpu(38, { "compute", "loop", "main" }), cpu(10, { "other", "loop", "main" }),
      wait(12, given.READ, { "libc.so.6!read", "loop" }) },
    io_bound = { cpu(12, { "compute" }), wait(36, given.FSYNC, { "libc.so.6!fsync", "save" }),
      wait(12, given.READ, { "libc.so.6!read", "load" }) },
    lock_bound = { cpu(12, { "compute" }), mutex(24, "enter", 1), mutex(24, "enter", 2) },
    memory_bound = { cpu(12, { "compute" }), cpu(24, { "libc.so.6!__memmove_avx_unaligned_erms", "copy" }),
      cpu(24, { "libjemalloc.so.2!malloc", "build" }) },
  }

  for _, name in ipairs(BOUNDS) do
    it("see one that is " .. name:gsub("_", "-") .. ", and only that", function()
      for _, rule in ipairs(BOUNDS) do
        local answer = run(rule, program(PROGRAMS[name], threads(2)))
        if rule == name then
          assert.is_true(math.abs(only(answer).score - 0.8) < 1e-9)
        else
          quiet(answer)
        end
      end
    end)
  end

  it("name what matters, and what to do about it", function()
    local computes = only(run("cpu_bound", program(PROGRAMS.cpu_bound)))
    has(computes.summary, "CPU-bound: 80 % of the busy thread time is computing; compute has 79 % of the CPU time")
    has(computes.advice[1], "100 % of the CPU time is spent below loop")
    local deep = { { "first", "inner", "outer", "begin", "main" }, { "second", "inner", "outer", "begin", "main" } }
    computes = only(run("cpu_bound", program({ cpu(30, deep[1]), cpu(30, deep[2]) })))
    has(computes.advice[1], "100 % of the CPU time is spent below inner")
    assert.same({ "One thread does all the computing: several can share what does not depend on each other" },
      only(run("cpu_bound", program({ cpu(30, { "compute", "main" }) }))).advice)
    local many = {}
    for i = 1, 20 do many[i] = cpu(3, { "f" .. i, "main" }) end
    has(only(run("cpu_bound", program(many))).advice[1], "No function has more than 5 % of the CPU time")
    computes = only(run("cpu_bound", program({ cpu(30, { "call", "main" }, { state = "kernel" }) })))
    has(computes.summary, "call has 100 % of the CPU time; 100 % of the CPU time is in system calls")
    local writes = only(run("io_bound", program(PROGRAMS.io_bound)))
    has(writes.summary, "I/O-bound: 80 % of the busy thread time is waiting for I/O, 75 % of that in save (fsync)")
    has(writes.advice[1], "sync once for many changes (group commit)")
    local locks = only(run("lock_bound", program(PROGRAMS.lock_bound, threads(2))))
    has(locks.summary, "Lock-bound: 80 % of the busy thread time is waiting for locks, 100 % of that in enter (2 thre")
    local moves = only(run("memory_bound", program(PROGRAMS.memory_bound)))
    has(moves.summary, "80 % of the busy thread time is moving or managing memory, 50 % of that in copy (memmove)")
    has(moves.advice[1], "build asks for most (100 % of the allocator's time)")
    has(moves.advice[2], "Pass references")
  end)

  it("say nothing of a program that hardly does anything", function()
    for _, name in ipairs(BOUNDS) do
      local samples = {}
      for i, sample in ipairs(PROGRAMS[name]) do
        samples[i] = {}
        for field, value in pairs(sample) do samples[i][field] = value end
        samples[i].ns = sample.ns / 100 -- the same shares and samples in less time
        samples[i].count = 1000
      end
      samples[#samples + 1] = cpu(0.01, { "compute" })
      samples[#samples].count = 1000
      assert.same({}, run(name, program(samples, threads(2))).findings)
    end
  end)

  it("say nothing of shares where one kind is not known", function()
    local no_waits = program({ cpu(60, { "libc.so.6!memcpy", "copy" }), cpu(0.1, { "a" }) }, nil, { wall_hz = 0 })
    quiet(run("cpu_bound", no_waits))
    quiet(run("memory_bound", no_waits))
    local no_cpu = program({ wait(60, given.READ, { "load" }), mutex(60, "enter") })
    no_cpu.targets = { { cpu_state = "refused" } }
    quiet(run("io_bound", no_cpu))
    quiet(run("lock_bound", no_cpu))
  end)

  it("take the operator's share", function()
    for _, name in ipairs(BOUNDS) do
      quiet(run(name, program(PROGRAMS[name], threads(2)), { min_share = 0.81 }))
      only(run(name, program(PROGRAMS[name], threads(2)), { min_share = 0.79 }))
      quiet(run(name, program(PROGRAMS[name], threads(2)), { min_busy = 3 }))
    end
  end)
end)

describe("the rule pattern.saturated-thread", function()
  local function busy(first, others)
    local samples = { cpu(first, { "loop", "main" }), given.running(60) }
    for i = 2, 4 do
      samples[#samples + 1] = cpu(others, { "help" }, { thread = i })
      samples[#samples + 1] = wait(60 - others, given.EPOLL_WAIT, { "help" }, { thread = i })
      samples[#samples + 1] = given.running(others, i)
    end
    return program(samples, threads(4))
  end

  it("sees one thread that fills a core while the others wait", function()
    local found = only(run("saturated_thread", busy(58, 3)))
    has(found.summary, "Thread worker1 is on a core for 97 % of the time, most of it in loop")
    has(found.summary, "while 3 other threads use 5 % of one on average")
    assert.same({ "loop", 101 }, { found.hotspot.name, found.evidence.tid })
  end)

  it("speaks of one other thread as of one", function()
    local found = only(run("saturated_thread", program({
      cpu(58, { "loop" }), given.running(60), wait(60, given.EPOLL_WAIT, { "help" }, { thread = 2 }),
    }, threads(2))))
    has(found.summary, "while 1 other thread uses 0 % of one")
  end)

  it("does not mind threads that share the work, one that has room left, or a program of one thread", function()
    quiet(run("saturated_thread", busy(58, 50)))
    quiet(run("saturated_thread", busy(40, 3)))
    quiet(run("saturated_thread", program({ cpu(60, { "loop" }), given.running(60) })))
  end)

  it("does not mind a thread that was only seen for a moment", function()
    quiet(run("saturated_thread", program({
      cpu(4, { "loop" }), given.running(4), wait(4, given.EPOLL_WAIT, { "help" }, { thread = 2 }),
    }, threads(2))))
  end)

  it("does not add threads of other processes", function()
    local described = busy(58, 3)
    described.targets = { { pid = 1 }, { pid = 2 } }
    for i = 2, 4 do described.profile.threads[i].pid = 2 end
    described.profile.threads[1].pid = 1
    quiet(run("saturated_thread", described))
  end)
end)

describe("the rule pattern.lock-convoy", function()
  local function convoy(count, waiting, switches)
    local samples = { cpu(10, { "enter", "main" }) }
    for i = 1, count do
      samples[#samples + 1] = mutex(waiting, "enter", i)
      samples[#samples + 1] = given.running(60 - waiting, i)
    end
    return program(samples, threads(count, switches))
  end

  it("sees threads that queue for one lock and pass it on and on", function()
    local found = only(run("lock_convoy", convoy(4, 45, 60000)))
    has(found.summary, "enter: 4 threads queue for one lock, 3.0 at a time, with 4,000 switches of threads a second")
    assert.equal(180, found.evidence.lock_seconds)
  end)

  it("does not mind a lock that two share, that is mostly free, or that is held for long", function()
    quiet(run("lock_convoy", convoy(2, 45, 60000)))
    quiet(run("lock_convoy", convoy(4, 5, 60000)))
    quiet(run("lock_convoy", convoy(4, 45, 600)))
  end)

  it("does not mind threads that wait for work in a condition", function()
    local samples = {}
    for i = 1, 8 do
      samples[i] = wait(60, given.FUTEX, { "libc.so.6!pthread_cond_wait", "next" }, { thread = i, futex = 137 })
    end
    quiet(run("lock_convoy", program(samples, threads(8, 60000))))
  end)
end)

describe("the rule pattern.allocation-loop", function()
  it("sees who asks for memory over and over, through wrappers too", function()
    local found = only(run("allocation_loop", program({
      cpu(6, { "libjemalloc.so.2!malloc", "libstdc++.so.6!operator new(unsigned long)",
        { name = "make", wrapper = true }, "parse", "serve" }), cpu(2, { "libjemalloc.so.2!free", "parse", "serve" }),
      cpu(2, { "parse", "serve" }), cpu(10, { "serve" }),
    })))
    assert.equal("parse", found.hotspot.name)
    has(found.summary, "parse spends 80 % of its CPU time in the allocator, 40 % of the program's")
  end)

  it("does not mind what allocates a little of what it does, or of what the program does", function()
    quiet(run("allocation_loop", program({ cpu(2, { "libc.so.6!malloc", "parse" }), cpu(8, { "parse" }) })))
    quiet(run("allocation_loop", program({
      cpu(1, { "libc.so.6!malloc", "parse" }), cpu(0.1, { "parse" }), cpu(30, { "render" }),
    })))
  end)

  it("does not mind a program that hardly uses the CPU", function()
    quiet(run("allocation_loop", program({ cpu(4, { "libc.so.6!malloc", "parse" }) })))
    only(run("allocation_loop", program({ cpu(4, { "libc.so.6!malloc", "parse" }) }), { min_busy = 0.05 }))
  end)
end)

describe("the rule pattern.polling", function()
  local function poller(syscall, stack, wakeups, cpu_seconds)
    return program({
      wait(58, syscall, stack), given.running(2), cpu(cpu_seconds, stack),
    }, threads(1, wakeups * 60))
  end
  local sleeping = { "libc.so.6!clock_nanosleep", "libc.so.6!usleep", "watch", "main" }

  it("sees a thread that sleeps briefly over and over", function()
    local found = only(run("polling", poller(given.NANOSLEEP, sleeping, 100, 0.06)))
    has(found.summary, "watch polls: 1 thread wakes up 100 times a second in nanosleep, and uses 10 us of CPU time")
    has(found.advice[1], "Let watch wait for what it looks for")
  end)

  it("does not mind one that works each time it wakes up, or sleeps for long", function()
    quiet(run("polling", poller(given.NANOSLEEP, sleeping, 100, 6)))
    quiet(run("polling", poller(given.NANOSLEEP, sleeping, 1, 0.001)))
  end)

  it("sees a wait with a timeout only where nothing could have been done in it", function()
    local loop = { "libc.so.6!epoll_wait", "loop", "main" }
    only(run("polling", poller(given.EPOLL_WAIT, loop, 1000, 0.1)))
    quiet(run("polling", poller(given.EPOLL_WAIT, loop, 1000, 2)))
  end)

  it("does not mind a condition without a timeout", function()
    local timed = { "libc.so.6!pthread_cond_timedwait", "next", "main" }
    local untimed = { "libc.so.6!pthread_cond_wait", "next", "main" }
    only(run("polling", poller(given.FUTEX, timed, 100, 0.01)))
    quiet(run("polling", poller(given.FUTEX, untimed, 100, 0.01)))
  end)

  it("tells threads that poll in the same function once", function()
    local samples = {}
    for i = 1, 3 do samples[i] = wait(60, given.NANOSLEEP, sleeping, { thread = i }) end
    has(only(run("polling", program(samples, threads(3, 6000)))).summary, "3 threads wake up 300 times a second")
  end)
end)

describe("the rule pattern.syscall-loop", function()
  local function writer(kernel, user, waiting)
    return program({
      cpu(kernel, { "libc.so.6!write", "log", "main" }, { state = "kernel" }), cpu(user, { "log", "main" }),
      cpu(10, { "work", "main" }), wait(waiting, given.WRITE, { "libc.so.6!write", "log", "main" }),
    })
  end

  it("sees a function that is in the kernel most of its time without waiting", function()
    local found = only(run("syscall_loop", writer(9, 1, 0)))
    has(found.summary, "log spends 90 % of its CPU time in the kernel (write), 45 % of the program's")
    has(found.advice[1], "Make fewer calls of write in log: buffer")
  end)

  it("does not mind one that mostly waits there, that mostly computes, or that hardly matters", function()
    quiet(run("syscall_loop", writer(9, 1, 40)))
    quiet(run("syscall_loop", writer(4, 6, 0)))
    quiet(run("syscall_loop", writer(1, 0.1, 0)))
  end)

  it("does not mind a program that hardly uses the CPU", function()
    local described = program({ cpu(4, { "libc.so.6!write", "log", "main" }, { state = "kernel" }) })
    quiet(run("syscall_loop", described))
    only(run("syscall_loop", described, { min_busy = 0.05 }))
  end)
end)

describe("the rule recommendation.time", function()
  it("says what to optimize first, in the words of the API", function()
    local described = program({ cpu(25.3, { "crawl" }), cpu(70, { "rest" }), cpu(4.7, { "small" }) })
    described.findings = run("hotspot", described).findings
    for _, finding in ipairs(described.findings) do finding.rule = "bottleneck.hotspot" end
    local findings = run("recommend_time", described).findings
    assert.equal(2, #findings)
    has(findings[2].summary, "Critical: Optimize crawl (25.3% CPU time, impact score: 0.83). Call it less often")
    assert.equal("crawl", findings[2].hotspot.name)
    assert.equal(1, #run("recommend_time", described, { most = 1 }).findings)
  end)
end)

describe("the rules about time", function()
  local ALL = { "hotspot" }
  for _, name in ipairs(BOUNDS) do ALL[#ALL + 1] = name end
  for _, name in ipairs(PATTERNS) do ALL[#ALL + 1] = name end

  it("say that they need more where there are too few samples", function()
    local few = program({ cpu(0.5, { "work" }), wait(0.5, given.READ, { "load" }), mutex(0.5, "enter") })
    for _, name in ipairs(ALL) do
      local answer = run(name, few)
      assert.same({}, answer.findings, name)
      assert.equal("insufficient_data", answer.status, name)
      assert.is_true(answer.needed_seconds > 60, name)
    end
  end)

  it("take fewer where the operator says so", function()
    local few = program({ cpu(0.5, { "work" }) })
    only(run("hotspot", few, { min_samples = 10 }))
  end)

  it("say nothing of a snapshot without a profile, or of a program that idles", function()
    for _, name in ipairs(ALL) do
      quiet(run(name, { sites = {} }))
      assert.same({}, run(name, program({ wait(3600, given.EPOLL_WAIT, { "loop", "main" }) })).findings, name)
    end
  end)

  it("give the same answer to the same samples, whatever their order", function()
    local samples, backwards = {}, {}
    for i = 1, 12 do
      samples[#samples + 1] = cpu(1, { "f" .. i % 5, "main" }, { thread = 1 + i % 3 })
      samples[#samples + 1] = mutex(40, "g" .. i % 3, 1 + i % 4)
      samples[#samples + 1] = wait(2, given.READ, { "h" .. i % 2 }, { thread = 1 + i % 2 })
    end
    for i = #samples, 1, -1 do backwards[#backwards + 1] = samples[i] end
    local told = 0
    for _, name in ipairs(ALL) do
      local first = run(name, program(samples, threads(4, 60000)))
      assert.same(first, run(name, program(samples, threads(4, 60000))), name)
      told = told + #first.findings
      local again = run(name, program(backwards, threads(4, 60000)))
      assert.equal(#first.findings, #again.findings, name)
      if name == "hotspot" then assert.same(first, again) end
    end
    assert.is_true(told > 10)
  end)
end)

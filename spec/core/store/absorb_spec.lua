local ffi = require("ffi")
local support = require("spec.support")
local snapshots = require("spec.support_snapshot")

ffi.cdef([[
int mkfifo(const char *path, unsigned mode);
int open(const char *path, int flags, ...);
int getpid(void);
]])
local core = support.core()
local T0 = snapshots.epoch_ms
local EINVAL = tonumber(core.LUPE_EINVAL)
local RATES = { cpu_hz = 100, wall_hz = 20 }
local O_RDWR, O_NONBLOCK, O_PATH = 2, 0x800, 0x200000
local USER, KERNEL, RUNNING, WAITING = 0, 1, 2, 3

describe("CPU and wall samples", function()
  local run, address, maps
  before_each(function()
    run = snapshots.run(RATES)
    address, maps = snapshots.program { "hot", "main", "plugin.so!loaded" }
  end)
  after_each(support.cleanup)

  local function sample(target, fields, stack)
    local addresses = {}
    for i, frame in ipairs(stack or { "hot", "main" }) do
      addresses[i] = type(frame) == "number" and frame or address(frame)
    end
    run:thread_sample(target, fields or {}, addresses)
  end

  local function samples(pid, window_ms, time_ms)
    local built = run:snapshot(pid or 0, T0 + (time_ms or 5000), window_ms)
    assert.equal(0, tonumber(core.lupe_snapshot_validate(built.address, built.bytes, nil)))
    local rows, threads = snapshots.samples(built.header) -- no tail call: `built` keeps the header alive
    return rows, threads
  end

  local function status(pid)
    local count = tonumber(core.lupe_aggregator_targets(run.a, nil, 0))
    local rows = ffi.new("lupe_target_status[?]", count)
    core.lupe_aggregator_targets(run.a, rows, count)
    for i = 0, count - 1 do
      if rows[i].pid == pid then return rows[i], rows end
    end
  end

  local function died(target, ms) core.lupe_target_died(target, T0 + (ms or 0)) end

  local function counts_by_target(pid)
    local rows, threads = samples(pid)
    local count = {}
    for _, row in ipairs(rows) do
      local target = threads[row.thread + 1].target
      count[target] = (count[target] or 0) + row.count
    end
    return count
  end

  it("take the first address as it is, and the others as where calls return to", function()
    local t = run:add { pid = 10 }
    run:set_maps(t, maps)
    local hot, main = address("hot") - 17, address("main") - 17
    sample(t, {}, { hot, main }) -- the first instruction runs; a call from just before `main` returns to it
    local stack = samples()[1].stack
    assert.same({ "hot", "hot" }, stack)
  end)

  it("of code that nothing is known of are unknown, until the mappings come", function()
    local t = run:add { pid = 10 }
    sample(t)
    assert.same({ "[unknown]", "[unknown]" }, samples()[1].stack)
    run:set_maps(t, maps)
    sample(t)
    local rows = samples()
    assert.same({ "hot", "main" }, rows[#rows].stack)
  end)

  it("find code of the process itself that came since its mappings were read", function()
    local t = run:add { pid = ffi.C.getpid() }
    local fd = ffi.C.open("/proc/thread-self/maps", 0x80000)
    assert.equal(0, tonumber(core.lupe_target_set_maps(t, fd)))
    core.lupe_aggregator_absorb(run.a)
    local path = support.temp_dir() .. "/late.so"
    assert(os.execute(("echo 'int late_code(void) { return 7; }' | cc -shared -xc - -o %s"):format(path)) == 0)
    local late = ffi.load(path)
    ffi.cdef("int late_code(void);")
    local entry = tonumber(ffi.cast("uintptr_t", late.late_code))
    local function named()
      sample(t, {}, { entry })
      for _, row in ipairs(samples()) do
        if row.stack[1] == "late_code" then return true end
      end
    end
    assert.is_true(support.eventually(named, 10, "the late code's name"))
  end)

  it("never wait for what is said to be mappings", function()
    local t = run:add { pid = 10 }
    local fifo = support.temp_dir() .. "/fifo"
    assert.equal(0, ffi.C.mkfifo(fifo, 384))
    for _, fd in ipairs {
      ffi.C.open(fifo, O_RDWR + O_NONBLOCK), ffi.C.open("/dev/zero", 0), ffi.C.open("/proc/self/stat", 0),
      ffi.C.open("/", 0), ffi.C.open("/proc/self/mem", 0), ffi.C.open("/proc/self", 0), -1,
    } do
      assert.equal(EINVAL, tonumber(core.lupe_target_set_maps(t, fd)))
    end
    core.lupe_target_set_maps(t, ffi.C.open("/proc/self/maps", O_PATH)) -- cannot be read: no harm
    sample(t)
    assert.same({ "[unknown]", "[unknown]" }, samples()[1].stack)
  end)

  it("keep the mappings that are known where others make no sense", function()
    local t = run:add { pid = 10 }
    run:set_maps(t, maps)
    core.lupe_aggregator_absorb(run.a)
    local wrong = maps:gsub("r%-xp", "rwaz")
    for _, text in ipairs { "", "nonsense\n", maps .. "10-20 r-xp", ("x"):rep(70000), wrong } do
      run:set_maps(t, text)
      core.lupe_aggregator_absorb(run.a)
    end
    sample(t)
    assert.same({ "hot", "main" }, samples()[1].stack)
  end)

  it("say only what can be true", function()
    local t = run:add { pid = 10 }
    run:set_maps(t, maps)
    sample(t, { tid = 1, weight = 0 })
    sample(t, { tid = 2, weight = 2 ^ 32 - 1 })
    sample(t, { tid = 3, state = 77 })
    sample(t, { tid = 4, kind = "wall", state = 77 })
    sample(t, { tid = 5, kind = "wall", state = WAITING, weight = 2 ^ 32 - 1 })
    sample(t, { tid = 6, kind = "wall", state = RUNNING + 0x12300, weight = 5 })
    sample(t, { tid = 7, kind = "wall", state = WAITING }, {})
    sample(t, { tid = 8, time_ms = 0 / 0 })
    sample(t, { tid = 9, state = KERNEL + 0x500, weight = 3 })
    local rows, threads = samples()
    local of = {}
    for _, row in ipairs(rows) do of[threads[row.thread + 1].tid] = row end
    assert.same({ 1, 1e7 }, { of[1].count, of[1].ns })
    assert.same({ 60000, 600e9 }, { of[2].count, of[2].ns })
    assert.equal(USER, of[3].state)
    assert.is_nil(of[4])
    assert.equal(600e9, of[5].ns)
    assert.same({ RUNNING, 5000 }, { of[6].state, of[6].ns })
    assert.is_nil(of[6].stack)
    assert.same({ "[unknown]" }, of[7].stack)
    assert.is_nil(of[8])
    assert.same({ KERNEL, 3 }, { of[9].state, of[9].count })
  end)

  it("that nobody asked for are not taken", function()
    run = snapshots.run { cpu_hz = 100 }
    local t = run:add { pid = 10 }
    sample(t)
    sample(t, { kind = "wall", state = WAITING })
    assert.equal(1, #samples())
    run = snapshots.run {}
    t = run:add { pid = 10 }
    sample(t)
    assert.equal(0, #samples())
    local built = run:snapshot(0, T0 + 5000)
    assert.equal(built.header.profile_from_ms, built.header.profile_to_ms)
  end)

  it("are bounded between two absorbs, and drops are counted", function()
    local t, other = run:add { pid = 10 }, run:add { pid = 11 }
    run:set_maps(t, maps)
    local deep = {}
    for i = 1, 128 do deep[i] = "main" end
    for _ = 1, 5000 do sample(t, {}, deep) end
    sample(other)
    local dropped = tonumber(status(10).sample_drops)
    assert.is_true(dropped > 500 and dropped < 2000, dropped)
    assert.equal(0, tonumber(status(11).sample_drops))
    assert.same({ [0] = 5000 - dropped, 1 }, counts_by_target())
    assert.is_false(core.lupe_aggregator_unabsorbed(run.a))
    sample(t)
    assert.is_true(core.lupe_aggregator_unabsorbed(run.a))
    assert.same({ [0] = 5001 - dropped, 1 }, counts_by_target())
  end)

  it("are counted as dropped where the log does not reach back to them", function()
    local t = run:add { pid = 10 }
    sample(t, { time_ms = 1000 })
    samples()
    sample(t, { time_ms = 700000 })
    samples()
    assert.equal(0, tonumber(status(10).sample_drops))
    sample(t, { time_ms = 1000 })
    samples()
    assert.equal(1, tonumber(status(10).sample_drops))
  end)

  it("bear the names of their threads, and of a process that ended the program's", function()
    local pid = ffi.C.getpid()
    local t, gone = run:add { pid = pid }, run:add { pid = 2 ^ 30, name = "a_rather_long_name" }
    sample(t, { tid = pid })
    sample(gone, { tid = 2 ^ 30 })
    sample(gone, { tid = 7 })
    died(gone)
    local _, threads = samples()
    local names = {}
    for _, thread in ipairs(threads) do names[thread.tid] = thread.name end
    assert.equal(support.read_file(("/proc/%d/comm"):format(pid)), names[pid] .. "\n")
    assert.equal("a_rather_long_n", names[2 ^ 30])
    assert.equal("", names[7])
  end)

  it("are not lost with the process, nor mixed with those of another of the same pid", function()
    local t = run:add { pid = 10, start_ticks = 1 }
    run:set_maps(t, maps)
    sample(t, { weight = 3 })
    died(t)
    assert.same({ [0] = 3 }, counts_by_target(10))
    assert.same({ [0] = 3 }, counts_by_target(-1))
    local reused = run:add { pid = 10, start_ticks = 2 }
    sample(reused, { weight = 5 })
    assert.same({ [0] = 5 }, counts_by_target(10))
    assert.same({ [0] = 3, 5 }, counts_by_target(-1))
  end)

  it("are the forked child's own, and shown with the parent when the child is gone", function()
    local parent = run:add { pid = 10 }
    local child = run:add { pid = 11, ppid = 10, forked = 1 }
    sample(parent, { tid = 10, weight = 3 })
    sample(child, { tid = 11, weight = 5 })
    assert.same({ [0] = 3, 5 }, counts_by_target(0))
    assert.same({ [0] = 5 }, counts_by_target(11))
    died(child)
    assert.same({ [0] = 8 }, counts_by_target(0))
    assert.same({ [0] = 3 }, counts_by_target(10))
    assert.same({ [0] = 5 }, counts_by_target(11))
  end)

  it("of a shell go on in the program that it became", function()
    local other = run:add { pid = 9 }
    local shell = run:add { pid = 10, name = "sh" }
    sample(other)
    sample(shell, { weight = 3 })
    died(shell)
    local program = run:add { pid = 10, name = "app" }
    sample(program, { weight = 5 })
    assert.same({ [0] = 1, 8 }, counts_by_target(0))
    assert.same({ [0] = 5 }, counts_by_target(10))
  end)

  it("of processes that are forgotten stay with what started them", function()
    run:add { pid = 1000 }
    run:add { pid = 1 }
    for i = 1, 700 do
      local child = run:add { pid = 2000 + i, ppid = i % 2 == 0 and 1000 or 5 }
      run:set_maps(child, maps)
      sample(child, { tid = 2000 + i })
      died(child, i)
    end
    assert.is_true(tonumber(core.lupe_aggregator_targets(run.a, nil, 0)) < 600) -- also where nothing absorbs
    samples()
    assert.equal(66, tonumber(core.lupe_aggregator_targets(run.a, nil, 0)))
    local found = counts_by_target(0)
    assert.equal(700 - tonumber(status(1000).sample_drops), found[0])
    assert.is_nil(found[1])
  end)

  it("leave no descriptor behind", function()
    local function descriptors() -- of mappings
      local pipe = io.popen(("ls -l /proc/%d/fd | grep -c maps$"):format(ffi.C.getpid()))
      local count = tonumber(pipe:read("*l"))
      pipe:close()
      return count
    end
    local before = descriptors()
    for i = 1, 100 do
      local t = run:add { pid = i }
      for _ = 1, 3 do core.lupe_target_set_maps(t, ffi.C.open("/proc/self/maps", 0x80000)) end
      if i % 2 == 0 then sample(t) end
      if i % 3 == 0 then core.lupe_aggregator_absorb(run.a) end
      died(t)
    end
    core.lupe_aggregator_absorb(run.a)
    assert.is_true(descriptors() <= before) -- earlier specs may have left some to the garbage collector
  end)
end)

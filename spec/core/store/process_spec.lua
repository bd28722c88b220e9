local ffi = require("ffi")
local support = require("spec.support")

ffi.cdef("typedef int pid_t; int getpid(void);")
support.declare("core/store/process.h")
support.declare("core/store/cgroup.h")
local core = support.core()
local own_pid = ffi.C.getpid()

local function figures(pid)
  local out = ffi.new("lupe_memory_figures")
  return core.lupe_process_read(pid, out), out
end

local function start_ticks(pid)
  local out = ffi.new("uint64_t[1]")
  return core.lupe_process_start_ticks(pid, out), out[0]
end

local function text_of(read, pid, capacity)
  local out = ffi.new("char[?]", capacity or 256)
  local status = read(pid, out, capacity or 256)
  return status == core.LUPE_OK and ffi.string(out) or nil, status
end

--- A running program, named as given, that sleeps.
local function sleeper(name)
  local folder = support.temp_dir()
  local path = folder .. "/" .. name
  support.write_file(path, support.read_file("/bin/sleep"))
  assert(os.execute("env -u LD_PRELOAD chmod 700 '" .. path .. "'"))
  return support.spawn({ path, "1000" })
end

describe("a process", function()
  after_each(support.cleanup)

  it("has the memory that /proc tells", function()
    local status, f = figures(own_pid)
    local pages = support.read_file("/proc/self/statm")
    local total, resident, shared = pages:match("(%d+) (%d+) (%d+)")
    assert.are.equal(core.LUPE_OK, status)
    local function near(expected, got) assert.is_true(math.abs(expected * 4096 - tonumber(got)) < 2 ^ 20) end
    near(total, f.virtual_bytes)
    near(resident, f.rss_bytes)
    near(shared, f.shared_bytes)
    assert.are.equal(0, tonumber(f.allocated_bytes + f.has_allocator))
    assert.is_true(f.threads >= 1 and f.minor_faults > 0)
    assert.is_true(math.abs(f.time_ms / 1000 - os.time()) < 60)
  end)

  it("has used the CPU time that it burnt", function()
    local _, before = figures(own_pid)
    support.eventually(function()
      for _ = 1, 1000 do tostring({}):rep(10) end
      local _, now = figures(own_pid)
      local used = (now.user_ns + now.system_ns) - (before.user_ns + before.system_ns)
      return used >= 50e6
    end, 30, "50 ms of CPU time")
    local _, after = figures(own_pid)
    assert.is_true(tonumber(after.user_ns + after.system_ns) / 1e9 < os.clock() + 1)
  end)

  it("is read whatever its name looks like", function()
    for _, name in ipairs({ "a) R 1 (b", "x y  z", ") 9 9 9" }) do
      local p = sleeper(name)
      support.eventually(function() return text_of(core.lupe_process_comm, p.pid) == name end, 10, "exec")
      assert.are.equal(name, text_of(core.lupe_process_name, p.pid))
      support.eventually(function()
        local fields = {}
        local rest = support.read_file("/proc/" .. p.pid .. "/stat"):match(".*%) (.*)")
        for field in rest:gmatch("%S+") do fields[#fields + 1] = tonumber(field) or field end
        local status, f = figures(p.pid)
        local _, ticks = start_ticks(p.pid)
        return status == core.LUPE_OK and f.threads == 1 and ticks == fields[20] and f.minor_faults == fields[8]
      end, 10, "the figures of /proc/PID/stat")
    end
  end)

  it("keeps the name of a program that was deleted", function()
    local p = sleeper("short-lived")
    support.eventually(function() return text_of(core.lupe_process_comm, p.pid) == "short-lived" end, 10, "exec")
    os.remove(p.argv[1])
    assert.are.equal("short-lived", text_of(core.lupe_process_name, p.pid))
  end)

  it("has a name that is never cut silently", function()
    local p = sleeper("twelve-bytes")
    support.eventually(function() return text_of(core.lupe_process_name, p.pid) == "twelve-bytes" end, 10, "exec")
    assert.are.equal("twelve-bytes", text_of(core.lupe_process_name, p.pid, 13))
    local _, status = text_of(core.lupe_process_name, p.pid, 12)
    assert.are.equal(core.LUPE_EINVAL, status)
  end)

  it("has a start time until it ends, also while nobody has waited for it", function()
    local p = support.spawn({ "sleep", "1000" })
    local status, ticks = start_ticks(p.pid)
    assert.are.equal(core.LUPE_OK, status)
    assert.is_true(ticks > 0)
    ffi.C.kill(p.pid, 9) -- and not reaped yet: a zombie
    support.eventually(function() return start_ticks(p.pid) == core.LUPE_ENOENT end, 10, "the zombie")
    assert.are.equal(core.LUPE_ENOENT, (figures(p.pid)))
    p:wait(10)
    assert.are.equal(core.LUPE_ENOENT, (start_ticks(p.pid)))
  end)

  it("that is gone leaves every result as it was", function()
    local p = support.run({ "true" })
    local out = ffi.new("lupe_memory_figures")
    ffi.fill(out, ffi.sizeof(out), 0x5a)
    for _, pid in ipairs({ p.pid, 0, -1, 2 ^ 30 }) do
      assert.are.equal(core.LUPE_ENOENT, core.lupe_process_read(pid, out))
      assert.are.equal(core.LUPE_ENOENT, (start_ticks(pid)))
      assert.is_nil(text_of(core.lupe_process_name, pid))
    end
    assert.are.equal(("\x5a"):rep(ffi.sizeof(out)), ffi.string(out, ffi.sizeof(out)))
  end)

  it("lives on when its main thread has ended, with its memory", function()
    local p = support.spawn({ support.fixture("main_thread_exits") })
    support.eventually(function()
      return (support.read_file("/proc/" .. p.pid .. "/stat") or ""):match(".*%) (%a)") == "Z"
    end, 10, "the main thread to end")
    assert.are.equal(core.LUPE_OK, (start_ticks(p.pid)))
    support.eventually(function()
      local status, f = figures(p.pid)
      return status == core.LUPE_OK and f.rss_bytes > 8 * 2 ^ 20
    end, 10, "8 MiB of memory")
  end)
end)

describe("the host", function()
  it("has load averages and cores", function()
    local l = ffi.new("lupe_host_load")
    assert.are.equal(core.LUPE_OK, core.lupe_host_load_read(l))
    assert.is_true(l.load_1m >= 0 and l.load_5m >= 0 and l.load_15m >= 0 and l.cores >= 1)
  end)
end)

describe("a memory cgroup", function()
  local folder
  before_each(function() folder = support.temp_dir() end)
  after_each(support.cleanup)

  local function group(path, files)
    assert(os.execute("env -u LD_PRELOAD mkdir -p '" .. folder .. path .. "'"))
    for name, text in pairs(files) do support.write_file(folder .. path .. "/" .. name, text .. "\n") end
  end

  local function read(membership, mounts)
    support.write_file(folder .. "/cgroup", membership)
    support.write_file(folder .. "/mountinfo", (mounts:gsub("%$F", folder)))
    local out = ffi.new("lupe_cgroup_memory")
    local status = core.lupe__cgroup_memory_from(folder .. "/cgroup", folder .. "/mountinfo", out)
    return status, tonumber(out.limit_bytes), tonumber(out.used_bytes)
  end

  local v2 = "30 23 0:26 / $F/v2 rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
  local v1 = "35 31 0:32 / $F/v1 rw,relatime - cgroup cgroup rw,memory\n"

  it("of version 2 has a limit and use", function()
    group("/v2/app", { ["memory.max"] = "1073741824", ["memory.current"] = "5000" })
    assert.are.same({ core.LUPE_OK, 1073741824, 5000 }, { read("0::/app\n", v2) })
  end)

  it("tells what the kernel can take back of the use", function()
    local function reclaimable(membership, mounts)
      read(membership, mounts)
      local out = ffi.new("lupe_cgroup_memory")
      core.lupe__cgroup_memory_from(folder .. "/cgroup", folder .. "/mountinfo", out)
      return tonumber(out.reclaimable_bytes)
    end
    local stat = "anon 100\ninactive_file 70\nactive_file 30"
    group("/v2/app", { ["memory.max"] = "500", ["memory.current"] = "200", ["memory.stat"] = stat })
    group("/v2/odd", { ["memory.max"] = "500", ["memory.current"] = "20", ["memory.stat"] = stat })
    group("/v2/bare", { ["memory.max"] = "500", ["memory.current"] = "20" })
    group("/v1/app", {
      ["memory.limit_in_bytes"] = "500", ["memory.usage_in_bytes"] = "200",
      ["memory.stat"] = "inactive_file 1\ntotal_inactive_file 60",
    })
    assert.are.same({ 70, 20, 0 }, { reclaimable("0::/app\n", v2), reclaimable("0::/odd\n", v2),
      reclaimable("0::/bare\n", v2) })
    assert.are.equal(60, reclaimable("4:memory:/app\n", v1))
  end)

  it("is the one up the tree that will be hit first", function()
    group("/v2/slice", { ["memory.max"] = "300", ["memory.current"] = "200" })
    group("/v2/slice/app", { ["memory.max"] = "max", ["memory.current"] = "100" })
    group("/v2/slice/app/leaf", { ["memory.max"] = "900", ["memory.current"] = "50" })
    assert.are.same({ core.LUPE_OK, 300, 200 }, { read("0::/slice/app/leaf\n", v2) })
  end)

  it("without any limit tells the use of the process's own group", function()
    group("/v2/slice", { ["memory.max"] = "max", ["memory.current"] = "200" })
    group("/v2/slice/app", { ["memory.max"] = "max", ["memory.current"] = "100" })
    assert.are.same({ core.LUPE_OK, 0, 100 }, { read("0::/slice/app\n", v2) })
  end)

  it("of version 1 is read beside a version 2 without the controller", function()
    group("/v2/app", { ["cgroup.procs"] = "" })
    group("/v1", { ["memory.limit_in_bytes"] = "9223372036854771712", ["memory.usage_in_bytes"] = "7777" })
    group("/v1/app", { ["memory.limit_in_bytes"] = "4096000", ["memory.usage_in_bytes"] = "123" })
    local membership = "12:cpu,cpuacct:/app\n4:memory:/app\n0::/app\n"
    local cpu = "36 31 0:33 / $F/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    assert.are.same({ core.LUPE_OK, 4096000, 123 }, { read(membership, cpu .. v2 .. v1) })
    assert.are.same({ core.LUPE_OK, 0, 7777 }, { read("4:memory:/\n0::/\n", v2 .. v1) })
  end)

  it("is found in a container, by the mount's root or as that root", function()
    group("/v2", { ["memory.max"] = "500", ["memory.current"] = "40" })
    group("/v2/inner", { ["memory.max"] = "400", ["memory.current"] = "30" })
    local mount = v2:gsub(" / ", " /docker/abc ", 1)
    assert.are.same({ core.LUPE_OK, 400, 30 }, { read("0::/docker/abc/inner\n", mount) })
    assert.are.same({ core.LUPE_OK, 500, 40 }, { read("0::/docker/abcdef\n", mount) })
    assert.are.same({ core.LUPE_OK, 500, 40 }, { read("0::/../elsewhere\n", v2) })
  end)

  it("is found below a mount point with a blank in it", function()
    group("/v 2/app", { ["memory.max"] = "500", ["memory.current"] = "40" })
    assert.are.same({ core.LUPE_OK, 500, 40 }, { read("0::/app\n", (v2:gsub("v2 rw", "v\\0402 rw", 1))) })
  end)

  it("is absent where none is mounted, or the process is gone", function()
    assert.are.equal(core.LUPE_ENOENT, (read("0::/app\n", "")))
    assert.are.equal(core.LUPE_ENOENT, (read("", v2)))
    assert.are.equal(core.LUPE_ENOENT, (read("garbage\n:::\n4:memory\n", "garbage\n - \na b - c\n" .. v1)))
    local out = ffi.new("lupe_cgroup_memory")
    assert.are.equal(core.LUPE_ENOENT, core.lupe_cgroup_memory_read(2 ^ 30, out))
  end)

  it("is left out where its files hold no numbers", function()
    group("/v2/app", { ["memory.max"] = "lots", ["memory.current"] = "40" })
    assert.are.equal(core.LUPE_ENOENT, (read("0::/app\n", v2)))
  end)
end)

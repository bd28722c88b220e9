--- Profiles for pprof, as `go tool pprof` reads them.
local ffi = require("ffi")
local literal = require("lupe.view_literal") -- before what declares C: see support.declare
local snapshots = require("spec.support_snapshot")
local support = require("spec.support")

support.declare("core/export/pprof.h")
ffi.cdef("void free(void *block);")

local TYPES = {
  heap = "LUPE_PPROF_HEAP", allocs = "LUPE_PPROF_ALLOCS", cpu = "LUPE_PPROF_CPU", wall = "LUPE_PPROF_WALL",
}

local function encode(snapshot, kind)
  local core, out, count = support.core(), ffi.new("uint8_t *[1]"), ffi.new("size_t[1]")
  assert.equal(0, tonumber(core.lupe_pprof_encode(snapshot, core[TYPES[kind]], out, count)))
  local bytes = ffi.string(out[0], count[0])
  ffi.C.free(out[0])
  return bytes
end

--- What `go tool pprof -raw` prints of a profile: { head, samples = { line }, locations = { id = text }, mappings }.
local function read(bytes)
  local path = support.write_file(support.temp_dir() .. "/profile.pb.gz", bytes)
  local done = support.run({ "go", "tool", "pprof", "-raw", path }, { env = { HOME = support.temp_dir() } })
  assert.equal(0, done.code, done.err)
  local head, samples, locations, mappings =
    done.out:match("^(.-)\nSamples:\n(.-)\nLocations\n(.-)Mappings\n?(.*)$")
  local raw = { head = head, samples = {}, locations = {}, mappings = {}, text = done.out }
  for line in samples:gmatch("[^\n]+") do
    if line:find("^ +%d+ +") or line:find("^ *%d+ ") then raw.samples[#raw.samples + 1] = line end
  end
  raw.types = samples:match("^[^\n]+")
  local id
  for line in locations:gmatch("[^\n]+") do
    id = tonumber(line:match("^ +(%d+): ")) or id
    raw.locations[id] = raw.locations[id] or {}
    table.insert(raw.locations[id], (line:gsub("^ +%d+: 0x%x+ ", ""):gsub("^ +", "")))
  end
  for line in mappings:gmatch("[^\n]+") do raw.mappings[#raw.mappings + 1] = line end
  return raw
end

--- Figures and first function of a sample's line.
local function sample(raw, number)
  local line = raw.samples[number]
  local figures, ids = line:match("^ *([%d ]+): ([%d ]+)")
  local names = {}
  for id in ids:gmatch("%d+") do
    for _, text in ipairs(raw.locations[tonumber(id)]) do
      names[#names + 1] = text:gsub("^M=%d+ ", ""):match("^(%S+)")
    end
  end
  return (figures:gsub(" +", " "):gsub(" $", "")), table.concat(names, " ")
end

local function profiled(profile)
  local address, size, owner = literal({ profile = profile })
  return snapshots.mapped(address, size), owner
end

describe("a heap profile for pprof", function()
  local built, raw

  setup(function()
    built = snapshots.build({
      period_bytes = 1,
      sites = {
        { stack = { "malloc", "leaky", "main" }, space = { 100, 2000 }, objects = { 5, 20 }, samples = 30 },
        { stack = { "libz.so!inflate", "main" }, space = { 640, 6400 } },
        { stack = { "malloc", "libz.so!operator_new" }, space = { 64, 64 } },
      },
      wrappers = { { "name", "malloc" }, { "name", "operator_new" } },
      targets = { { name = "app" } },
    })
    raw = read(encode(built.snapshot, "heap"))
  end)

  teardown(support.cleanup)

  it("has the types of Go's heap profiles, and shows what lives first", function()
    assert.equal("alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt]", raw.types)
    assert.truthy(raw.head:find("PeriodType: space bytes\nPeriod: 1\n", 1, true))
    assert.equal("alloc_objects/count alloc_space/bytes[dflt] inuse_objects/count inuse_space/bytes",
      read(encode(built.snapshot, "allocs")).types)
  end)

  it("has a sample for each stack, from the function that the memory is counted for outwards", function()
    assert.equal(3, #raw.samples)
    local figures, names = sample(raw, 1)
    assert.equal("leaky main", names)
    assert.truthy(figures:find(" 20 2000$"), figures)
    figures, names = sample(raw, 2)
    assert.equal("inflate main", names)
    assert.equal("100 6400 100 6400", figures)
    assert.equal("operator_new", (select(2, sample(raw, 3)))) -- of nothing but wrappers the outermost
  end)

  it("maps the program first, and no two modules to one place", function()
    local ranges = {}
    for i, line in ipairs(raw.mappings) do
      local from, to, offset, path = line:match("^%d+: 0x(%x+)/0x(%x+)/0x(%x+) (%S+) +%[FN%]$")
      ranges[i] = { from = tonumber(from, 16), to = tonumber(to, 16), offset = tonumber(offset, 16), path = path }
    end
    assert.equal(2, #ranges)
    assert.matches("/app$", ranges[1].path)
    assert.is_true(ranges[1].to <= ranges[2].from)
    for _, range in ipairs(ranges) do assert.equal(4096, range.offset) end
  end)

  it("is the same every time, and gzip'd", function()
    local bytes = encode(built.snapshot, "heap")
    assert.equal(bytes, encode(built.snapshot, "heap"))
    assert.equal("\31\139", bytes:sub(1, 2))
    local path = support.write_file(support.temp_dir() .. "/p.gz", bytes)
    assert.equal(0, support.run({ "gzip", "-t", path }).code)
  end)
end)

describe("a profile of time for pprof", function()
  teardown(support.cleanup)

  local PROFILE = {
    from_ms = 1700000000000, to_ms = 1700000010000, cpu_hz = 100, wall_hz = 20,
    threads = { { tid = 7, name = "main" }, { tid = 8, name = "worker" } },
    samples = {
      {
        stack = {
          { name = "spin", file = "/src/spin.c", line = 12, inlines = {
            { name = "innermost", file = "/src/inner.h", line = 3 },
            { name = "between", file = "/src/inner.h", line = 9 },
          } },
          "main",
        },
        thread = 2, state = "user", count = 50,
      },
      { stack = { "libc.so!write", "main" }, thread = 1, state = "kernel", count = 2 },
      { stack = { "libc.so!poll", "main" }, thread = 1, state = "waiting", syscall = 7, count = 4, ns = 9e9 },
      { thread = 2, state = "running", count = 5, ns = 5e8 },
    },
  }

  it("has CPU samples with lines, inlined calls and threads", function()
    local snapshot, owner = profiled(PROFILE)
    local raw = read(encode(snapshot, "cpu"))
    assert.truthy(owner)
    assert.equal("samples/count cpu/nanoseconds[dflt]", raw.types)
    assert.truthy(raw.head:find("PeriodType: cpu nanoseconds\nPeriod: 10000000\n", 1, true), raw.head)
    assert.truthy(raw.head:find("Time: 2023-11-14 22:13:20", 1, true), raw.head)
    assert.truthy(raw.head:find("Duration: 10", 1, true), raw.head)
    assert.equal(2, #raw.samples)
    local figures, names = sample(raw, 1)
    assert.same({ "50 500000000", "innermost between spin main" }, { figures, names })
    local first = raw.locations[tonumber(raw.samples[1]:match(": (%d+)"))]
    assert.truthy(first[1]:find("innermost /src/inner.h:3", 1, true), first[1])
    assert.truthy(first[3]:find("spin /src/spin.c:12", 1, true), first[3])
    assert.same({ "2 20000000", "write main" }, { sample(raw, 2) })
    for _, label in ipairs({ "thread:[worker]", "state:[user]", "tid:[8", "pid:[1", "state:[kernel]" }) do
      assert.truthy(raw.text:find(label, 1, true), label .. " in " .. raw.text)
    end
    assert.truthy(table.concat(raw.mappings):find("app  [FN][FL][LN][IN]", 1, true), raw.text)
  end)

  it("has by the clock what ran and what waited", function()
    local snapshot, owner = profiled(PROFILE)
    local raw = read(encode(snapshot, "wall"))
    assert.truthy(owner)
    assert.equal("samples/count wall/nanoseconds[dflt]", raw.types)
    assert.equal(3, #raw.samples)
    assert.same({ "4 9000000000", "poll main" }, { sample(raw, 3) })
    assert.truthy(raw.text:find("syscall:[7", 1, true), raw.text)
  end)

  it("knows that something ran also where no CPU samples say what", function()
    local profile = { cpu_hz = 0, samples = { PROFILE.samples[3], PROFILE.samples[4] } }
    for name, value in pairs(PROFILE) do if profile[name] == nil then profile[name] = value end end
    local snapshot, owner = profiled(profile)
    local raw = read(encode(snapshot, "wall"))
    assert.truthy(owner)
    assert.same({ "5 500000000", "[running]" }, { sample(raw, 2) })
  end)

  it("is whole, however many samples there are", function()
    local samples = {}
    for i = 1, 3000 do
      samples[i] = { stack = { "f" .. i, "g" .. i % 700, "main" }, thread = 1, state = "user", count = 1 + i % 3 }
    end
    local snapshot, owner = profiled({ cpu_hz = 100, threads = { { tid = 1, name = "t" } }, samples = samples })
    local raw = read(encode(snapshot, "cpu"))
    assert.truthy(owner)
    assert.equal(3000, #raw.samples)
    for i = 1, 3000, 271 do
      assert.same({ ("%d %d0000000"):format(1 + i % 3, 1 + i % 3), ("f%d g%d main"):format(i, i % 700) },
        { sample(raw, i) })
    end
  end)

  it("of nothing is a profile without samples", function()
    local address, size, owner = literal({})
    local raw = read(encode(snapshots.mapped(address, size), "cpu"))
    assert.truthy(owner)
    assert.equal(0, #raw.samples)
  end)
end)

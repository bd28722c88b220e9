--- Profiles for google-pprof: what it prints of them, and the symbols that it asks for.
local ffi = require("ffi")
local literal = require("lupe.view_literal") -- before what declares C: see support.declare
local snapshots = require("spec.support_snapshot")
local support = require("spec.support")

support.declare("core/export/gperftools.h")
ffi.cdef("void free(void *block);")

--- What a function of gperftools.h makes.
local function made(name, ...)
  local out, count = ffi.new("char *[1]"), ffi.new("size_t[1]")
  local arguments = { ... }
  arguments[#arguments + 1], arguments[#arguments + 2] = out, count
  assert.equal(0, tonumber(support.core()[name](unpack(arguments))))
  local bytes = ffi.string(out[0], count[0])
  ffi.C.free(out[0])
  return bytes
end

--- A profile with its symbols before it is what google-pprof reads without the program.
local function report(snapshot, profile, marker)
  local addresses = {}
  if profile:byte() == 0 then
    for i = 1, #profile - 7, 8 do
      local low, high = profile:byte(i), 0
      for k = 1, 7 do high = high + profile:byte(i + k) * 256 ^ (k - 1) end
      addresses[#addresses + 1] = ("0x%x"):format(high * 256 + low)
    end
  else
    for address in profile:gmatch("0x%x+") do addresses[#addresses + 1] = address end
  end
  -- As google-pprof does: callers are asked for by the address before.
  local asked = {}
  for i, address in ipairs(addresses) do
    asked[2 * i - 1], asked[2 * i] = address, ("0x%x"):format(tonumber(address) - 1)
  end
  local text = table.concat(asked, "+")
  local symbols = made("lupe_gperftools_symbols", snapshot, text, #text)
  -- In such a file callers are by the address before already: here both are named.
  local both = {}
  for address, name in symbols:gmatch("(0x%x+)\t([^\n]+)\n") do
    both[#both + 1] = ("%s %s\n0x%x %s\n"):format(address, name, tonumber(address) + 1, name)
  end
  local path = support.write_file(support.temp_dir() .. "/profile",
    "--- symbol\nbinary=app\n" .. table.concat(both) .. "---\n" .. marker .. profile)
  local done = support.run({ "google-pprof", "--text", path }, { env = { HOME = support.temp_dir() } })
  assert.equal(0, done.code, done.err)
  return done.out, symbols
end

describe("a profile for google-pprof", function()
  teardown(support.cleanup)

  it("of the heap has what lives, by function", function()
    local built = snapshots.build({
      period_bytes = 1,
      sites = {
        { stack = { "malloc", "leaky", "main" }, space = { 3 * 2 ^ 20 }, size = 4096 },
        { stack = { "libz.so!inflate", "main" }, space = { 2 ^ 20 }, size = 4096 },
      },
      wrappers = { { "name", "malloc" } },
    })
    local profile = made("lupe_gperftools_heap", built.snapshot)
    assert.matches("^heap profile: +1024: +4194304 %[ *1024: +4194304%] @ heapprofile\n", profile)
    assert.matches("\nMAPPED_LIBRARIES:\n2000001000%-2000002000 r%-xp 00001000 00:00 0 %S+/app\n", profile)
    local text = report(built.snapshot, profile, "")
    assert.truthy(text:find("Total: 4.0 MB", 1, true), text)
    assert.matches("\n +3.0 +75.0%% +75.0%% +3.0 +75.0%% leaky\n", text)
    assert.matches("\n +1.0 +25.0%% +100.0%% +1.0 +25.0%% inflate\n", text)
    assert.matches("\n +0.0 +0.0%% +100.0%% +4.0 +100.0%% main\n", text)
  end)

  local function snapshot_of(samples, cpu_hz)
    local address, size, owner = literal({
      profile = { cpu_hz = cpu_hz or 100, threads = { { tid = 1, name = "t" } }, samples = samples },
    })
    -- The literal's frames are all at address 0; google-pprof tells functions apart by their addresses.
    local columns = require("lupe.ffi").snapshot(address, size)
    local frames = ffi.cast("lupe_snapshot_frame *", columns.frames)
    local functions = ffi.cast("lupe_snapshot_function *", columns.functions)
    for i = 0, columns.count.functions - 1 do functions[i].start = 0x1000 + 64 * i end
    for i = 0, columns.count.frames - 1 do frames[i].address = functions[frames[i]["function"]].start + 8 + i % 32 end
    return snapshots.mapped(address, size), owner
  end

  it("of CPU time has its samples", function()
    local snapshot, owner = snapshot_of({
      { stack = { { name = "spin", inlines = { { name = "operator--" } } }, "work", "main" }, thread = 1, count = 30 },
      { stack = { "libc.so!write", "main" }, thread = 1, state = "kernel", count = 10 },
      { stack = { "libc.so!poll", "main" }, thread = 1, state = "waiting", syscall = 7, count = 500, ns = 1e9 },
    })
    assert.truthy(owner)
    local text, symbols = report(snapshot, made("lupe_gperftools_cpu", snapshot), "--- profile\n")
    assert.matches("\tspin%-%-operator%- %-\n", symbols)
    assert.truthy(text:find("Total: 40 samples", 1, true), text)
    assert.matches("\n +10 +25.0%% +%d+.0%% +10 +25.0%% write\n", text)
    assert.matches(" 40 100.0%% main\n", text)
    assert.is_nil(text:find("poll", 1, true))
  end)

  it("leaves tags out", function()
    local snapshot, owner = snapshot_of({
      { stack = { "spin", "main", "[tag]!cache", "[tag]!http" }, thread = 1, count = 30 },
    })
    assert.truthy(owner)
    local text = report(snapshot, made("lupe_gperftools_cpu", snapshot), "--- profile\n")
    assert.truthy(text:find("Total: 30 samples", 1, true), text)
    assert.is_nil(text:find("cache", 1, true) or text:find("http", 1, true), text)
    assert.matches(" 30 +100.0%% spin\n", text)
  end)

  it("of CPU time keeps samples of a finer rate than today's, and those from before it was switched off", function()
    for _, cpu_hz in ipairs({ 10, 0 }) do
      local snapshot, owner = snapshot_of({
        { stack = { "early", "main" }, thread = 1, count = 3, ns = 3e7 }, -- 10 ms each
        { stack = { "late", "main" }, thread = 1, count = 2, ns = 2e8 },
      }, cpu_hz)
      assert.truthy(owner)
      local profile = made("lupe_gperftools_cpu", snapshot)
      local words = ffi.cast("const uint64_t *", profile)
      assert.equal(10000, tonumber(words[3])) -- microseconds
      local text = report(snapshot, profile, "--- profile\n")
      assert.truthy(text:find("Total: 23 samples", 1, true), text)
      assert.matches("\n +3 +13.0%% +%d+.0%% +3 +13.0%% early\n", text)
    end
  end)

  it("has no more addresses than google-pprof may ask for at once", function()
    local core = support.core()
    local samples = {}
    for i = 1, core.LUPE_GPERFTOOLS_ADDRESSES do
      samples[i] = { stack = { { name = "f" .. i % 100, line = i }, "main" }, thread = 1 }
    end
    local snapshot, owner = snapshot_of(samples)
    assert.truthy(owner)
    local profile = made("lupe_gperftools_cpu", snapshot)
    local text, symbols = report(snapshot, profile, "--- profile\n")
    local named, count = {}, 0
    for address in symbols:gmatch("0x%x+") do
      if not named[address] then named[address], count = true, count + 1 end
    end
    assert.equal(101, count)
    assert.truthy(text:find("Total: 3400 samples", 1, true), text)
    assert.matches("\n +34 +1.0%% +%d.0%% +34 +1.0%% f%d+\n", text)
  end)

  it("names nothing for addresses that no profile has", function()
    local built = snapshots.build({ sites = { { stack = { "leaky" }, space = { 100 } } } })
    for _, text in ipairs({ "", "0x", "0x12345", "zzz+--", "0x" .. ("f"):rep(40), "+0x2000001010+" }) do
      local symbols = made("lupe_gperftools_symbols", built.snapshot, text, #text)
      assert.equal(text == "+0x2000001010+" and "0x2000001010\tleaky\n" or "", symbols)
    end
  end)
end)

--- The parts of a scan that stand alone: words in memory, lists of mappings, thread caches, what memory is left.
local ffi = require("ffi")
local bit = require("bit")
local support = require("spec.support")

support.declare("core/agent/proof_words.h")
support.declare("core/agent/proof_mappings.h")
support.declare("core/agent/proof_caches.h")
support.declare("core/agent/proof_room.h")
local core = support.core()

describe("words that may be pointers", function()
  local MASK = bit.lshift(1ULL, 47) - 1
  local LO, HI = 0x7f1200000000ULL, 0x7f1240000000ULL
  local found = ffi.new("lupe_proof_word[?]", ffi.C.LUPE_PROOF_WORDS_MAX)

  -- Two lists of "offset:value", of the search under test and of one that looks at each place by itself.
  local function both(memory, from, bytes)
    local start = ffi.cast("uint64_t", ffi.cast("uintptr_t", memory + from))
    local count = tonumber(core.lupe_proof_words_find(start, bytes, LO, HI, found))
    local seen, expected = {}, {}
    for i = 0, count - 1 do
      seen[#seen + 1] = tonumber(found[i].at - start) .. ":" .. bit.tohex(found[i].value, 16)
    end
    local word = ffi.new("uint64_t[1]")
    for at = 0, bytes - 8, 4 do
      ffi.copy(word, memory + from + at, 8)
      local value = at % 8 == 0 and bit.band(word[0], MASK) or word[0]
      if value >= LO and value < HI then expected[#expected + 1] = at .. ":" .. bit.tohex(value, 16) end
    end
    return seen, expected
  end

  local function put(memory, at, value) ffi.copy(memory + at, ffi.new("uint64_t[1]", value), 8) end

  it("are found at every multiple of four, whatever lies between them", function()
    math.randomseed(7)
    local hits = 0
    for _ = 1, 400 do
      local bytes = math.random(0, 70) * 4 + (math.random(4) == 1 and math.random(3) or 0)
      local memory = ffi.new("uint8_t[?]", bytes + 64)
      for i = 0, bytes + 63 do memory[i] = math.random(0, 255) end
      for _ = 1, math.random(0, 12) do
        local value = LO + math.random(0, 0x3fffffff)
        local mark = bit.lshift(ffi.cast("uint64_t", math.random(0, 65535)), 48)
        if math.random(3) == 1 then value = bit.bor(value, mark) end
        if bytes >= 8 then put(memory, math.random(0, math.floor((bytes - 8) / 4)) * 4, value) end
      end
      local seen, expected = both(memory, 0, bytes)
      assert.are.same(expected, seen)
      hits = hits + #expected
    end
    assert.is_true(hits > 1000)
  end)

  it("are found from any address on", function()
    local memory = ffi.new("uint8_t[?]", 256)
    for from = 0, 40, 4 do
      ffi.fill(memory, 256)
      for at = from, 200, 12 do put(memory, at, LO + at) end
      local seen, expected = both(memory, from, 180)
      assert.are.same(expected, seen)
      assert.is_true(#expected >= 14)
    end
  end)

  it("count from the lowest address on, and up to the highest", function()
    local memory = ffi.new("uint8_t[?]", 128)
    local values = { LO - 1, LO, HI - 1, HI, 0, MASK, bit.bnot(0ULL), LO + bit.lshift(1ULL, 63) }
    for i, value in ipairs(values) do put(memory, 8 * (i - 1), value) end
    local seen, expected = both(memory, 0, 64)
    assert.are.same(expected, seen)
    local at = {}
    for i, text in ipairs(seen) do at[i] = text:match("^%d+") end
    assert.are.same({ "8", "16", "56" }, at)
  end)

  it("are found in the last bytes, and not behind them", function()
    local memory = ffi.new("uint8_t[?]", 256)
    for bytes = 0, 120, 4 do
      ffi.fill(memory, 256)
      if bytes >= 8 then put(memory, bytes - 8, LO + 16) end
      put(memory, bytes - bytes % 8 + (bytes % 8 == 0 and 0 or 8), LO + 32) -- begins behind the end
      local seen, expected = both(memory, 0, bytes)
      assert.are.same(expected, seen, bytes .. " bytes")
    end
  end)

  it("fill the room for them at most", function()
    local bytes = ffi.C.LUPE_PROOF_STEP_BYTES + ffi.C.LUPE_PROOF_OVERLAP_BYTES
    local memory = ffi.new("uint32_t[?]", bytes / 4)
    for i = 0, bytes / 4 - 1 do memory[i] = 0x7f12 end -- each place reads 0x7f1200007f12
    local start = ffi.cast("uint64_t", ffi.cast("uintptr_t", memory))
    local count = tonumber(core.lupe_proof_words_find(start, bytes, LO, HI, found))
    assert.are.equal(bytes / 4 - 1, count)
    assert.is_true(count <= ffi.C.LUPE_PROOF_WORDS_MAX)
  end)
end)

describe("the list of a process's mappings", function()
  after_each(support.cleanup)

  -- What ends in a blank ends in ";" here.
  local function read(text)
    local list = {}
    text = text:gsub(";\n", "\n")
    local path = support.write_file(support.temp_dir() .. "/maps", text)
    local take = ffi.cast("void (*)(void *, const lupe_proof_mapping *)", function(_, m)
      list[#list + 1] = {
        lo = tonumber(m.span.lo), hi = tonumber(m.span.hi), path = ffi.string(m.path), flags = ffi.string(m.flags),
        kind = (m.readable and "r" or "-") .. (m.writable and "w" or "-") .. (m.executable and "x" or "-")
          .. (m.shared and "s" or "p") .. (m.anonymous and "a" or "f") .. (m.filled and "+" or ""),
        dontfork = core.lupe_proof_mapping_has(m, "dc"),
      }
    end)
    local whole = core.lupe_proof_mappings_read(path, take, nil)
    take:free()
    return list, whole
  end

  it("is read with all that a line tells", function()
    local list, whole = read([[
55a0c0000000-55a0c0021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 r-xp 00001000 08:01 1234                       /usr/lib/a library.so (deleted)
7f0000001000-7f0000002000 ---p 00000000 00:00 0 ;
7f0000002000-7f0000003000 rw-s 00000000 00:01 99                         /dev/zero (deleted)
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
]])
    assert.is_true(whole)
    local kinds, paths = {}, {}
    for i, m in ipairs(list) do kinds[i], paths[i] = m.kind, m.path end
    assert.are.same({ "rw-pa", "r-xpf", "---pa", "rw-sf", "--xpa" }, kinds)
    assert.are.same({ "[heap]", "/usr/lib/a library.so (deleted)", "", "/dev/zero (deleted)", "[vsyscall]" }, paths)
    assert.are.same({ 0x55a0c0000000, 0x55a0c0021000 }, { list[1].lo, list[1].hi })
  end)

  it("has the flags of each, and whether there is anything in it", function()
    local list = read([[
7f0000000000-7f0000001000 rw-p 00000000 00:00 0 ;
Size:                  4 kB
Rss:                   0 kB
SwapPss:               4 kB
Swap:                  0 kB
VmFlags: rd wr mr mw me dc sd ;
7f0000001000-7f0000002000 rw-p 00000000 00:00 0 ;
Rss:                   4 kB
VmFlags: rd wr mr mw me ac dcx ;
7f0000002000-7f0000003000 ---p 00000000 00:00 0 ;
Rss:                   0 kB
Swap:                  8 kB
]])
    assert.are.same({ "rw-pa", "rw-pa+", "---pa+" }, { list[1].kind, list[2].kind, list[3].kind })
    assert.are.same({ true, false, false }, { list[1].dontfork, list[2].dontfork, list[3].dontfork })
    assert.are.equal("", list[3].flags)
  end)

  it("keeps the end of a long path, and passes over what is no mapping", function()
    local long = "/" .. ("d"):rep(250) .. "/" .. ("e"):rep(250)
    local list, whole = read("nothing of the kind\n\nzz-7f00 rw-p 0 0:0 0\n7f00 rw-p\n7f00-\n7f00-7f10\n7f00-7f10 rw\n"
      .. "VmFlags: rd\n"
      .. "1000-2000 rw-p 00000000 08:01 7 " .. long .. "\n"
      .. "2000-3000 rw-p 00000000 08:01 7 /" .. ("f"):rep(9000) .. "\n"
      .. "3000-4000 r--p 00000000 00:00 0 [last]")
    assert.is_true(whole)
    assert.are.equal(2, #list) -- a line that does not end is none
    assert.are.equal(ffi.C.LUPE_PROOF_PATH_BYTES - 1, #list[1].path)
    assert.are.equal(long:sub(-#list[1].path), list[1].path)
    assert.are.same({ 0x2000, 0x3000 }, { list[2].lo, list[2].hi })
  end)

  it("of more than one read is the same", function()
    local parts = {}
    for i = 1, 2000 do parts[i] = ("%x000-%x000 rw-p 00000000 00:00 0 [%d]\n"):format(i, i + 1, i) end
    local list, whole = read(table.concat(parts))
    assert.is_true(whole)
    assert.are.equal(2000, #list)
    for i, m in ipairs(list) do assert.are.equal("[" .. i .. "]", m.path) end
  end)

  it("that cannot be read says so", function()
    local take = ffi.cast("void (*)(void *, const lupe_proof_mapping *)", function() error("a mapping of nobody") end)
    assert.is_false(core.lupe_proof_mappings_read("/proc/0/maps", take, nil))
    assert.is_false(core.lupe_proof_mappings_read("/proc/self", take, nil))
    take:free()
  end)
end)

describe("a thread cache", function()
  local NONE, IN_USE, EMPTY = 0, 1, 2
  ffi.cdef("typedef struct { uint64_t head, requests; uint16_t low_water, full, empty, unused; } spec_bin;")
  local BASE = 0x7f120000f000ULL -- its parts lie across a multiple of 64 KiB

  -- Bins of 10 places each, `filled` of them with so many.
  local function bins(filled)
    local list = ffi.new("spec_bin[?]", #filled)
    for i, n in ipairs(filled) do
      local from = BASE + (i - 1) * 800
      list[i - 1].full, list[i - 1].empty = tonumber(from % 65536ULL), tonumber((from + 800) % 65536ULL)
      list[i - 1].head = from + 800 - n * 8
    end
    return list
  end

  local function ask(list, count, i)
    local start = ffi.cast("uint64_t", ffi.cast("uintptr_t", list))
    local out = ffi.new("lupe_proof_span")
    local kind = core.lupe_proof_cache_bin(start + i * 24,
      ffi.new("lupe_proof_span", { start, start + count * 24 }), out)
    return tonumber(kind), tonumber((out.hi - out.lo) / 8)
  end

  it("is told by bins whose parts touch, with what is in each", function()
    local filled = { 3, 0, 100, 7, 0, 0, 1, 12, 13, 14 }
    local list = bins(filled)
    for i, n in ipairs(filled) do assert.are.same({ IN_USE, n }, { ask(list, #filled, i - 1) }) end
  end)

  it("is empty where all bins are", function()
    local list = bins({ 0, 0, 0, 0, 0, 0 })
    for i = 0, 5 do assert.are.equal(EMPTY, (ask(list, 6, i))) end
  end)

  it("is none where too few touch, and never made of zeros", function()
    assert.are.equal(NONE, (ask(bins({ 1, 2, 3 }), 3, 0)))
    local broken = bins({ 1, 2, 3, 4, 5 })
    broken[2].full = broken[2].full + 8
    for i = 0, 4 do assert.are.equal(NONE, (ask(broken, 5, i))) end
    local table_of_parts = ffi.new("spec_bin[64]")
    for i = 0, 63 do table_of_parts[i].head = 0x7f1200000000ULL + i * 65536 end
    for i = 0, 63 do assert.are.equal(NONE, (ask(table_of_parts, 64, i))) end
  end)

  it("is looked at no further than what may be read", function()
    local list = bins({ 1, 2, 3, 4 })
    assert.are.equal(NONE, (ask(list, 3, 2)))
    assert.are.equal(IN_USE, (ask(list, 4, 2)))
  end)
end)

describe("the memory that is left", function()
  it("is what the machine has, at most", function()
    local room = tonumber(core.lupe_proof_room_bytes())
    local meminfo = support.read_file("/proc/meminfo")
    local total = tonumber(meminfo:match("MemTotal:%s+(%d+)")) * 1024
    assert.is_true(room > 0 and room <= total, room .. " of " .. total)
  end)

  it("is told from what a process has to itself", function()
    local own = tonumber(core.lupe_proof_anonymous_bytes())
    local status = support.read_file("/proc/self/status")
    assert.is_near(tonumber(status:match("RssAnon:%s+(%d+)")) * 1024, own, 4e6)
    local block = ffi.new("uint8_t[?]", 50000000)
    ffi.fill(block, 50000000, 1)
    assert.is_true(tonumber(core.lupe_proof_anonymous_bytes()) >= own + 45000000)
    assert.are.equal(1, block[49999999])
  end)
end)

local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/store/heap_parser.h")
local core = support.core()

-- The events of one parse, in a table that the callbacks fill. LuaJIT's callbacks are few: made once.
local seen
local events = ffi.new("lupe_heap_events")
events.period = ffi.cast("lupe_status (*)(void *, uint64_t)", function(_, bytes)
  seen.period = tonumber(bytes)
  return 0
end)
events.stack = ffi.cast("lupe_status (*)(void *, const lupe_heap_stack *)", function(_, s)
  local addresses = {}
  for i = 0, tonumber(s.depth) - 1 do addresses[i + 1] = ("0x%x"):format(tonumber(s.addresses[i])) end
  seen.stacks[#seen.stacks + 1] = {
    addresses = addresses,
    objects = tonumber(s.objects),
    bytes = tonumber(s.bytes),
    inuse_objects = s.inuse_objects,
    inuse_space = s.inuse_space,
  }
  return seen.stop or 0
end)
events.mapping = ffi.cast("lupe_status (*)(void *, const char *, size_t)", function(_, line, bytes)
  seen.mappings[#seen.mappings + 1] = ffi.string(line, bytes)
  return 0
end)

--- Parses `text`, cut into pieces of the sizes that `piece` gives. Returns status, message, events.
local function parse(text, piece, stop)
  seen = { stacks = {}, mappings = {}, stop = stop }
  local out = ffi.new("lupe_heap_parser *[1]")
  assert(core.lupe_heap_parser_create(out, events) == 0)
  local p, at, status = out[0], 0, 0
  local bytes = ffi.new("char[?]", #text + 1, text)
  while at < #text do
    local n = math.min(piece and piece() or #text, #text - at)
    status = core.lupe_heap_parser_feed(p, bytes + at, n)
    at = at + n
  end
  if status == 0 then status = core.lupe_heap_parser_finish(p) end
  local message = ffi.string(core.lupe_heap_parser_error(p))
  core.lupe_heap_parser_free(p)
  return tonumber(status), message, seen
end

local real = [[
heap_v2/524288
  t*: 2: 1544 [0: 0]
  t0: 1: 1024 [0: 0]
  t3: 1: 520 [0: 0] worker: 7 [x]
@ 0x7f10a2630 0x563ca2d21 0x56365c3a119b
  t*: 1: 1024 [0: 0]
  t0: 1: 1024 [0: 0]
@ 0x7f10a2630 0 0x56365c3a1162
  t*: 2: 520 [10: 5200]
  t3: 2: 520 [10: 5200] worker: 7 [x]
@
  t*: 4: 64 [0: 0]
  t0: 4: 64 [0: 0]

MAPPED_LIBRARIES:
56365c3a1000-56365c3a2000 r-xp 00001000 fe:00 10953012                   /tmp/leak
7ffedcc4c000-7ffedcc6d000 rw-p 00000000 00:00 0                          [stack]
]]

local function replaced(what, by)
  local from, to = real:find(what, 1, true)
  return real:sub(1, from - 1) .. by .. real:sub(to + 1)
end

describe("the heap_v2 parser", function()
  it("reads what jemalloc writes", function()
    local status, message, found = parse(real)
    assert.are.equal("", message)
    assert.are.equal(0, status)
    assert.are.equal(524288, found.period)
    assert.are.equal(3, #found.stacks)
    assert.are.same({ "0x7f10a2630", "0x563ca2d21", "0x56365c3a119b" }, found.stacks[1].addresses)
    assert.are.same({ "0x7f10a2630", "0x0", "0x56365c3a1162" }, found.stacks[2].addresses)
    assert.are.equal(2, found.stacks[2].objects)
    assert.are.equal(520, found.stacks[2].bytes)
    assert.are.same({ "0x0" }, found.stacks[3].addresses) -- a stack without a frame
    assert.are.equal(2, #found.mappings)
    assert.is_truthy(found.mappings[1]:match("/tmp/leak$"))
  end)

  it("reads the same in pieces of any size", function()
    local _, _, whole = parse(real)
    for size = 1, 40 do
      local status, _, found = parse(real, function() return size end)
      assert.are.equal(0, status)
      assert.are.same(whole.stacks, found.stacks)
      assert.are.same(whole.mappings, found.mappings)
    end
  end)

  it("corrects each stack by its own mean object size", function()
    local _, _, found = parse(real)
    local first = found.stacks[1]
    local factor = 1 / (1 - math.exp(-1024 / 524288))
    assert.is_true(math.abs(first.inuse_space / (1024 * factor) - 1) < 1e-9)
    assert.is_true(math.abs(first.inuse_objects / factor - 1) < 1e-9)
    assert.are.equal(16, found.stacks[3].inuse_space / found.stacks[3].inuse_objects)
  end)

  it("has a correction for every mean and period, which is never less than 1 nor infinite", function()
    for _, mean in ipairs { 0, -1, 1e-300, 1, 8, 524288, 1e9, 1e300, math.huge, 0 / 0 } do
      for _, period in ipairs { 0, 1, 4096, 524288, 2 ^ 48, math.huge, 0 / 0 } do
        local factor = core.lupe_heap_correction(mean, period)
        assert.is_true(factor >= 1 and factor < math.huge, mean .. " " .. period)
      end
    end
    assert.are.equal(1, core.lupe_heap_correction(1e9, 4096))
    assert.is_true(math.abs(core.lupe_heap_correction(16, 524288) - 32768.5) < 0.1)
  end)

  it("takes an empty profile", function()
    local status, _, found = parse("heap_v2/4096\n  t*: 0: 0 [0: 0]\n\nMAPPED_LIBRARIES:\n")
    assert.are.equal(0, status)
    assert.are.same({}, found.stacks)
  end)

  it("skips stacks where nothing lives", function()
    local status, _, found = parse(replaced("t*: 1: 1024", "t*: 0: 0"))
    assert.are.equal(0, status)
    assert.are.equal(2, #found.stacks)
  end)

  it("counts bytes whose objects were rounded away as one object", function()
    local status, _, found = parse(replaced("t*: 1: 1024", "t*: 0: 1024"))
    assert.are.equal(0, status)
    assert.are.equal(1024, found.stacks[1].inuse_space / found.stacks[1].inuse_objects)
  end)

  it("keeps the innermost 128 frames of a deeper stack", function()
    local deep = { "@" }
    for i = 1, 400 do deep[i + 1] = ("0x%x"):format(i) end
    local status, _, found = parse(replaced("@ 0x7f10a2630 0x563ca2d21 0x56365c3a119b", table.concat(deep, " ")))
    assert.are.equal(0, status)
    assert.are.equal(128, #found.stacks[1].addresses)
    assert.are.equal("0x80", found.stacks[1].addresses[128])
  end)

  local wrong = {
    { "another format", { "heap_v2/", "heap_v3/" }, 'expected "heap_v2/"' },
    { "no period", { "heap_v2/524288", "heap_v2/" }, "sample period" },
    { "a period of 0", { "heap_v2/524288", "heap_v2/0" }, "sample period" },
    { "an endless period", { "heap_v2/524288", "heap_v2/99999999999999999999" }, "sample period" },
    { "no total", { "  t*: 2: 1544 [0: 0]\n", "" }, '"t*"' },
    { "a stack without figures", { "  t*: 1: 1024 [0: 0]\n", "" }, '"t*"' },
    { "a negative count", { "t*: 1: 1024", "t*: -1: 1024" }, "count of objects" },
    { "more objects than any machine holds", { "t*: 1: 1024", "t*: 999999999999999999: 1024" }, "count of objects" },
    { "a count beyond 64 bits", { "t*: 1: 1024", "t*: 1: 99999999999999999999999" }, "count of bytes" },
    { "more objects than bytes", { "t*: 1: 1024", "t*: 2000: 1024" }, "at least one byte" },
    { "figures without brackets", { "t*: 1: 1024 [0: 0]", "t*: 1: 1024" }, "[OBJECTS: BYTES]" },
    { "something behind the figures", { "t*: 1: 1024 [0: 0]", "t*: 1: 1024 [0: 0] x" }, "end of the line" },
    { "an address that is none", { "0x563ca2d21", "0x563ca2g21" }, "an address" },
    { "an address of 17 digits", { "0x563ca2d21", "0x11112222333344445" }, "1 to 16 digits" },
    { "an address of no digits", { "0x563ca2d21", "0x" }, "1 to 16 digits" },
    { "a word that is no line of the format", { "@ 0x7f10a2630 0x563", "# 0x7f10a2630 0x563" }, "a thread" },
    { "another title", { "MAPPED_LIBRARIES:", "MAPPED_LIBRARIES" }, "MAPPED_LIBRARIES" },
    { "an end without mappings", { "\nMAPPED_LIBRARIES:\n", "" }, "a thread" },
  }
  for _, case in ipairs(wrong) do
    it("refuses " .. case[1] .. " and says where", function()
      local text = replaced(case[2][1], case[2][2])
      local status, message = parse(text)
      assert.are.equal(core.LUPE_ECORRUPT, status)
      assert.is_truthy(message:match("^heap profile, byte %d+: expected "), message)
      assert.is_truthy(message:find(case[3], 1, true), message)
      local pieces = { parse(text, function() return 7 end) }
      assert.are.same({ status, message }, { pieces[1], pieces[2] })
    end)
  end

  it("names the byte that is wrong", function()
    local text = replaced("0x563ca2d21", "0x563ca2g21")
    local _, message = parse(text)
    assert.are.equal(text:find("g21", 1, true) - 1, tonumber(message:match("byte (%d+)")))
  end)

  it("refuses a dump that is cut off, wherever", function()
    local mappings = real:find("MAPPED_LIBRARIES:\n", 1, true) + #"MAPPED_LIBRARIES:\n" - 1
    for length = 0, mappings - 1 do
      assert.are.equal(core.LUPE_ECORRUPT, (parse(real:sub(1, length))), "cut at " .. length)
    end
    assert.are.equal(core.LUPE_ECORRUPT, (parse(real:sub(1, -2)))) -- the last line has no end
    assert.are.equal(0, (parse(real:sub(1, mappings))))
  end)

  it("refuses a line without end, in bounded memory", function()
    for _, piece in ipairs { 1000, 10000000 } do
      local status, message = parse("heap_v2/1\n  t*: 0: 0 [0: 0]\n@" .. (" 0x1"):rep(20000),
        function() return piece end)
      assert.are.equal(core.LUPE_ECORRUPT, status)
      assert.is_truthy(message:find("lines of at most", 1, true))
      status, message = parse("heap_v2/1\n  t*: 0: 0 [0: 0]\n@" .. (" 0x1"):rep(513) .. "\n")
      assert.are.equal(core.LUPE_ECORRUPT, status)
      assert.is_truthy(message:find("at most 512 addresses", 1, true))
    end
  end)

  it("ends where its listener says so, for good", function()
    local status, _, found = parse(real, nil, core.LUPE_ENOMEM)
    assert.are.equal(core.LUPE_ENOMEM, status)
    assert.are.equal(1, #found.stacks)
    status, _, found = parse(real, function() return 50 end, core.LUPE_ENOMEM)
    assert.are.equal(core.LUPE_ENOMEM, status)
    assert.are.equal(1, #found.stacks)
  end)

  it("takes from a damaged dump either nothing or exactly what is written there", function()
    math.randomseed(20240607)
    local alphabet = "0123456789abcdefx@ \n:[]t*-/\0\255M"
    local accepted, refused = 0, 0
    for _ = 1, 6000 do
      local text = real
      for _ = 1, math.random(3) do
        local at, c = math.random(#text), math.random(#alphabet)
        local kind = math.random(4)
        if kind == 1 then text = text:sub(1, at - 1) .. alphabet:sub(c, c) .. text:sub(at + 1) end
        if kind == 2 then text = text:sub(1, at - 1) .. text:sub(at + math.random(30)) end
        if kind == 3 then text = text:sub(1, at) .. alphabet:sub(c, c) .. text:sub(at + 1) end
        if kind == 4 then text = text:sub(1, at) .. text:sub(math.max(1, at - math.random(60))) end
      end
      local status, message, found = parse(text, function() return math.random(64) end)
      local again, same, whole = parse(text)
      assert(status == again and message == same and #found.stacks == #whole.stacks, text)
      if status == 0 then
        accepted = accepted + 1
        local written = {}
        for stack, objects, bytes in text:gmatch("@([^\n]*)\n  t%*: (%d+): (%d+)") do
          if tonumber(bytes) > 0 then
            written[#written + 1] = { stack, tonumber(objects), tonumber(bytes) }
          end
        end
        assert(#written == #found.stacks, text)
        for i, w in ipairs(written) do
          local s = found.stacks[i]
          assert(s.objects == w[2] and s.bytes == w[3], text)
          assert(s.inuse_space >= s.bytes and s.inuse_space < math.huge, text)
          local depth = select(2, w[1]:gsub(" ", ""))
          assert(math.max(depth, 1) == #s.addresses, text)
        end
      else
        assert(status == core.LUPE_ECORRUPT and message:match("^heap profile, byte %d+: expected "), text)
        refused = refused + 1
      end
    end
    -- a mutation that always or never survives would test nothing
    assert.is_true(accepted > 300 and refused > 1000, accepted .. " accepted, " .. refused .. " refused")
  end)
end)

--- core/agent/unwind*.c: the capture. The fixtures do the comparing with libunwind and libgcc; this file says
-- what must come of it.
local support = require("spec.support")
local ffi = require("ffi")
local bit = require("bit")

support.declare("core/agent/unwind.h")
support.declare("core/agent/unwind_cfi.h")
local core = support.core()

local KIND = { empty = 0, ending = 1, uncovered = 2, unknown = 3, signal = 4, sp = 5, bp = 6, deref_bp = 9 }

local function kind(row) return tonumber(bit.band(row, 15ULL)) end
local function cfa(row) return tonumber(bit.arshift(ffi.cast("int64_t", row), 40)) end

-- A module at BASE: .eh_frame_hdr, one CIE, and one function at FUNCTION of SIZE bytes with this program.
local BASE, FUNCTION, SIZE = 0x10000, 0x12000, 64

local bytes_of = string.char

local function word(value)
  value = value % 4294967296
  local function byte(shift) return math.floor(value / 2 ^ shift) % 256 end
  return bytes_of(byte(0), byte(8), byte(16), byte(24))
end

local function entry(body)
  body = body .. ("\0"):rep(-#body % 4)
  return word(#body) .. body
end

-- CFA = rsp + 8, return address at CFA - 8: what every function starts with.
local AT_ENTRY = bytes_of(0x0c, 7, 8, 0x90, 1)

local function module_with(program, augmentation)
  local header_bytes = 12 + 8
  local common = entry(word(0) .. bytes_of(1) .. (augmentation or "zR") .. bytes_of(0, 1, 0x78, 16, 1, 0x1b)
    .. AT_ENTRY)
  local fde_at = header_bytes + #common
  local body = word(fde_at + 4 - header_bytes) .. word(FUNCTION - (BASE + fde_at + 8)) .. word(SIZE)
    .. bytes_of(0) .. program
  return bytes_of(1, 0x1b, 3, 0x3b) .. word(header_bytes - 4) .. word(1) .. word(FUNCTION - BASE) .. word(fde_at)
    .. common .. entry(body)
end

local function row_of(image, at, readable)
  readable = readable or #image
  local reader = ffi.cast("lupe_cfi_reader", function(_, address, to, count)
    local offset = tonumber(address) - BASE
    count = math.min(tonumber(count), readable - offset)
    if offset < 0 or count <= 0 then return 0 end
    ffi.copy(to, image:sub(offset + 1, offset + count), count)
    return count
  end)
  local described = ffi.new("lupe_cfi_image", { start = BASE, ["end"] = 0x20000, header = BASE, read = reader })
  local row = core.lupe_cfi_row(described, at)
  reader:free()
  return row
end

describe("a row of unwind information", function()
  it("follows the program up to the address asked for", function()
    -- +1: push rbp; +4: mov rbp, rsp; +20: leave
    local image = module_with(bytes_of(0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x50, 0x0c, 7, 8, 0xc6))
    local found = {}
    for i, at in ipairs({ 0, 1, 4, 20 }) do
      local row = row_of(image, FUNCTION + at)
      found[i] = { kind(row), cfa(row) }
    end
    assert.same({ { KIND.sp, 8 }, { KIND.sp, 16 }, { KIND.bp, 16 }, { KIND.sp, 8 } }, found)
  end)

  it("goes back to a remembered state", function()
    local image = module_with(bytes_of(0x41, 0x0a, 0x0e, 64, 0x41, 0x0b))
    assert.equal(64, cfa(row_of(image, FUNCTION + 1)))
    assert.equal(8, cfa(row_of(image, FUNCTION + 2)))
  end)

  it("decides a PLT's rule, which depends on the instruction, for its address", function()
    -- DW_CFA_def_cfa_expression: rsp + 8 + ((rip & 15) >= 11) * 8
    local image = module_with(bytes_of(0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22))
    assert.equal(8, cfa(row_of(image, FUNCTION + 16)))
    assert.equal(16, cfa(row_of(image, FUNCTION + 16 + 11)))
  end)

  it("holds the slot of a realigned stack", function()
    local image = module_with(bytes_of(0x0f, 3, 0x76, 0x78, 0x06)) -- CFA = *(rbp - 8)
    assert.equal(KIND.deref_bp, kind(row_of(image, FUNCTION)))
  end)

  it("is the end of the stack where the return address is undefined", function()
    assert.equal(KIND.ending, kind(row_of(module_with(bytes_of(0x07, 16)), FUNCTION)))
  end)

  it("covers a function from its first byte to its last", function()
    local image = module_with("")
    assert.equal(KIND.uncovered, kind(row_of(image, FUNCTION - 1)))
    assert.equal(KIND.sp, kind(row_of(image, FUNCTION)))
    assert.equal(KIND.sp, kind(row_of(image, FUNCTION + SIZE - 1)))
    assert.equal(KIND.uncovered, kind(row_of(image, FUNCTION + SIZE)))
  end)

  it("is unknown where the information is malformed or beyond what rows hold", function()
    for name, program in pairs({
      ["an instruction that does not exist"] = bytes_of(0x3f),
      ["a state restored that was never remembered"] = bytes_of(0x0b),
      ["an expression that pops from nothing"] = bytes_of(0x0f, 1, 0x22),
      ["an expression longer than its function"] = bytes_of(0x0f, 0x7f, 0x77, 8),
      ["a CFA kept in r10"] = bytes_of(0x0c, 10, 0),
      ["a return address in a register"] = bytes_of(0x09, 16, 0),
    }) do
      assert.equal(KIND.unknown, kind(row_of(module_with(program), FUNCTION)), name)
    end
    assert.equal(KIND.unknown, kind(row_of(module_with("", "eh"), FUNCTION)), "an augmentation of the last century")
  end)

  it("is left open where the memory cannot be read, so that a later try may succeed", function()
    local image = module_with("")
    for _, readable in ipairs({ 0, 3, 12, 20, 30 }) do
      assert.equal(KIND.empty, kind(row_of(image, FUNCTION, readable)), readable .. " bytes readable")
    end
  end)
end)

describe("the unwinder", function()
  after_each(support.cleanup)

  it("is supported here", function() assert.is_true(core.lupe_unwind_supported()) end)

  it("writes no more than it has room for, and says that the stack goes on", function()
    local pcs, truncated = ffi.new("uint64_t[3]", 0, 0, 77), ffi.new("bool[1]")
    assert.equal(2, tonumber(core.lupe_unwind(pcs, 2, truncated)))
    assert.is_true(truncated[0])
    assert.is_true(pcs[0] ~= 0 and pcs[1] ~= 0 and pcs[2] == 77)
    assert.equal(0, tonumber(core.lupe_unwind(pcs, 0, truncated)))
    assert.is_true(truncated[0])
  end)

  it("keeps errno, also where it reads what is not there", function()
    local pcs, truncated = ffi.new("uint64_t[8]"), ffi.new("bool[1]")
    local code = ffi.cast("uintptr_t", ffi.cast("void *", core.lupe_unwind_from))
    local garbage = ffi.new("lupe_registers", { pc = code, sp = 0x123456788, bp = 3, bx = 0 })
    ffi.errno(99)
    assert.equal(1, tonumber(core.lupe_unwind_from(garbage, pcs, 8, truncated)))
    assert.equal(99, ffi.errno())
    assert.is_true(truncated[0])
    assert.is_true(pcs[0] == code)
  end)

  -- Where the end of the stack cannot be known.
  local CUT = { ["below generated code"] = true }

  for _, build in ipairs({ "o2", "o0" }) do
    it("takes the stacks that libunwind and libgcc take, in code of every kind, compiled -" .. build:upper(), function()
      local run = support.run({ support.fixture("unwind_stacks_" .. build), support.fixture("unwind_plugin.so") })
      assert.equal(0, run.code, run.err)
      local scenes, wrong = 0, {}
      for line in run.out:gmatch("[^\n]+") do
        local scene, depth, extent, libunwind, libgcc = line:match("^([^\t]+)\t(%d+)\t(%a+)\t(%a+)\t(%a+)$")
        assert(scene, line)
        if support.sanitized then libgcc = "same" end -- backtrace() is asan's own there
        local fine = tonumber(depth) >= 3 and extent == (CUT[scene] and "truncated" or "whole")
          and libunwind == "same" and libgcc == "same"
        if not fine then wrong[#wrong + 1] = line end
        scenes = scenes + 1
      end
      assert.same({}, wrong)
      assert.equal(31, scenes)
    end)
  end

  it("agrees with libunwind at every instruction of a program, or stops short and says so", function()
    local run = support.run({ support.fixture("unwind_steps"), support.sanitized and "100000" or "250000" },
      { seconds = 120 })
    assert.equal(0, run.code, run.err)
    local seen = {}
    for name, count in run.out:gmatch("(%a+) (%d+)") do seen[name] = tonumber(count) end
    assert.is_true(seen.instructions >= 100000, run.out)
    assert.equal(0, seen.different, run.out)
    assert.is_true(seen.equal >= 0.995 * seen.instructions, run.out)
    assert.is_true(seen.longer <= 0.001 * seen.instructions, run.out) -- libunwind's own ends
  end)

  it("survives damaged unwind information and garbage in the registers", function()
    local run = support.run({ support.fixture("unwind_garbage"), "100000" })
    assert.equal(0, run.code, run.err)
    assert.is_truthy(run.out:match("walks 20000 frames %d+"), run.out)
  end)

  it("takes right stacks again after a module was replaced by another build in the same place", function()
    local run = support.run({
      support.fixture("unwind_reload"), support.fixture("unwind_reload_a_plugin.so"),
      support.fixture("unwind_reload_b_plugin.so"), "3",
    })
    assert.equal(0, run.code, run.err)
    local stayed = run.out:match("^reloads 3 same_place %d+ wrong_at_first %d+ stayed_wrong (%d+)")
    assert.equal("0", stayed, run.out)
  end)

  it("gives many threads the right stacks while they fill and grow the shared cache", function()
    local run = support.run({ support.fixture("unwind_stress"), "8", "3000" })
    assert.equal(0, run.code, run.err)
    assert.equal("walks 24000 wrong 0\n", run.out)
  end)
end)

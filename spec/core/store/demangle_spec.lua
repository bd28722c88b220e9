local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/store/demangle.h")
local core = support.core()

local function demangle(name, capacity)
  capacity = capacity or 1024
  local out = ffi.new("char[?]", capacity + 1)
  out[capacity] = 0x55
  local length = tonumber(core.lupe_demangle(name, out, capacity))
  assert.are.equal(0x55, out[capacity], "written past the end")
  local text = ffi.string(out)
  assert.are.equal(#text, length)
  return text
end

describe("a symbol's readable name", function()
  it("is C++ with parameters and without the return type", function()
    assert.are.equal("foo::bar(int, char const*)", demangle("_ZN3foo3barEiPKc"))
    assert.are.equal("operator new(unsigned long)", demangle("_Znwm"))
    assert.are.equal("twice<int>(int)", demangle("_Z5twiceIiET_S0_"))
    assert.are.equal("std::vector<int, std::allocator<int> >::push_back(int const&)",
      demangle("_ZNSt6vectorIiSaIiEE9push_backERKi"))
  end)

  it("is Rust without the hash, legacy and v0", function()
    assert.are.equal("core::fmt::Formatter::pad", demangle("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE"))
    assert.are.equal("<alloc::vec::Vec<T> as core::ops::drop::Drop>::drop",
      demangle("_ZN66_$LT$alloc..vec..Vec$LT$T$GT$$u20$as$u20$core..ops..drop..Drop$GT$4drop17h0123456789abcdefE"))
    assert.are.equal("mycrate::example", demangle("_RNvCs15kBYyAo9fc_7mycrate7example"))
  end)

  it("is a C name as it is, without its version", function()
    assert.are.equal("zmalloc", demangle("zmalloc"))
    assert.are.equal("memcpy", demangle("memcpy@@GLIBC_2.14"))
    assert.are.equal("foo()", demangle("_Z3foov@@V1"))
    assert.are.equal("quick.part.0", demangle("quick.part.0"))
    assert.are.equal("_Zebra", demangle("_Zebra"))
    assert.are.equal("_R", demangle("_R"))
    assert.are.equal("", demangle(""))
  end)

  it("is valid UTF-8 without control characters", function()
    assert.are.equal("a?b?c?", demangle("a\1b\127c\n"))
    assert.are.equal("größe", demangle("größe"))
    assert.are.equal("?????", demangle("\192\175\237\160\128"))
    assert.are.equal("x?", demangle("x\226"))
  end)

  it("is cut where it is too long, never inside a character", function()
    assert.are.equal(("x"):rep(12) .. "...", demangle(("x"):rep(50), 16))
    assert.are.equal("xé...", demangle("xééééé", 8))
    assert.are.equal(("x"):rep(15), demangle(("x"):rep(15), 16))
    assert.are.equal(1023, #demangle(("_Z"):rep(4000)))
    local long = demangle("_ZN" .. ("9something"):rep(60) .. "E", 64)
    assert.are.equal("something::something", long:sub(1, 20))
    assert.are.equal("...", long:sub(-3))
  end)

  it("comes back for names that expand without end or nest without bottom", function()
    local bombs = {
      "_Z1f" .. ("P"):rep(1000) .. "v",
      "_Z1f" .. ("F"):rep(500) .. "v" .. ("E"):rep(500),
      "_ZN" .. ("1aI"):rep(300) .. "i" .. ("E"):rep(301),
      "_Z1fI" .. ("1aIiE"):rep(100) .. "Ev" .. ("RT_"):rep(160),
      "_Z1fISt4pairIiiES_IS0_S0_ES_IS1_S1_ES_IS2_S2_ES_IS3_S3_ES_IS4_S4_ES_IS5_S5_ES_IS6_S6_ES_IS7_S7_ES_IS8_S8_E" ..
        "S_IS9_S9_ES_ISA_SA_ES_ISB_SB_ES_ISC_SC_ES_ISD_SD_ES_ISE_SE_ES_ISF_SF_ES_ISG_SG_ES_ISH_SH_ES_ISI_SI_EEvv",
      "_RNvC1a" .. ("I"):rep(500) .. "B0_",
      "_RMC0" .. ("T"):rep(400) .. ("B_"):rep(200),
      "_RIC0" .. ("TB_B_B_"):rep(100) .. "E",
      "_RMC0RRRRRRRRRRRRB3_",
    }
    for _, name in ipairs(bombs) do
      local text = demangle(name)
      assert.is_true(#text > 0 and #text < 1024)
    end
  end)

  it("comes back for any damage done to real names", function()
    local names = {
      "_ZNSt6vectorISt4pairIKSsS0_IiS1_EESaIS3_EE9push_backERKS3_",
      "_ZZNSt8functionIFvvEEC4IZ4mainEUlvE_vvEET_ENUlS3_E_4_FUNES3_",
      "_RNvXs5_NtCs15kBYyAo9fc_4core3fmtINtNtB7_6option6OptionjENtB5_5Debug3fmt",
      "_ZN4core3ptr85drop_in_place$LT$std..rt..lang_start$LT$$LP$$RP$$GT$..$u7b$$u7b$closure$u7d$$u7d$$GT$" ..
        "17h0123456789abcdefE",
    }
    local alphabet = "_ZNSRTIEKPFLJBCDMXYUlvijsth0123459$.u7\1\255"
    local state = 7
    local function random(n)
      state = (state * 48271) % 2147483647
      return state % n
    end
    for round = 1, 20000 do
      local name = names[round % #names + 1]
      for _ = 1, 1 + random(4) do
        local at, letter = 2 + random(#name - 2), 1 + random(#alphabet)
        local kind = random(3)
        local insert = alphabet:sub(letter, letter)
        if kind == 2 then insert = name:sub(at, at + random(12)):rep(1 + random(8)) end
        name = (name:sub(1, at) .. insert .. name:sub(at + (kind == 0 and 2 or 1))):sub(1, 1500)
      end
      assert.is_true(#demangle(name) > 0)
    end
  end)
end)

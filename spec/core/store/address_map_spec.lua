local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/store/address_map.h")
local core = support.core()

local function modules_of()
  local out = ffi.new("lupe_module_table *[1]")
  assert.are.equal(0, tonumber(core.lupe_module_table_create(out)))
  return ffi.gc(out[0], core.lupe_module_table_free)
end

local function map_of(modules)
  local out = ffi.new("lupe_address_map *[1]")
  assert.are.equal(0, tonumber(core.lupe_address_map_create(out, modules, 1)))
  return ffi.gc(out[0], core.lupe_address_map_free)
end

local function line(map, text) return core.lupe_address_map_line(map, text, #text) end

local function read(map, lines)
  core.lupe_address_map_begin(map)
  for _, text in ipairs(lines) do assert.are.equal(0, tonumber(line(map, text))) end
  assert.are.equal(0, tonumber(core.lupe_address_map_commit(map)))
end

--- Path and offset of a return address; nil where it belongs to no file.
local function find(map, modules, address)
  local frame = core.lupe_address_map_frame(map, address)
  if frame == 0 then return nil end
  local module = tonumber(frame / 0x1000000000000ULL)
  return ffi.string(core.lupe_module_table_path(modules, module)), tonumber(frame % 0x1000000000000ULL)
end

local app = "00400000-00401000 r-xp 00002000 fe:00 77                         /usr/bin/app"
local lib = "7f0000000000-7f0000010000 r-xp 00000000 fe:00 78  /usr/lib/lib z.so\n"

describe("an address map", function()
  local modules, map
  before_each(function()
    modules = modules_of()
    map = map_of(modules)
  end)

  it("finds the calling instruction in its file", function()
    read(map, { app, lib })
    local path, offset = find(map, modules, 0x400124)
    assert.are.equal("/usr/bin/app", path)
    assert.are.equal(0x2123, offset)
    path, offset = find(map, modules, 0x7f0000000001)
    assert.are.equal("/usr/lib/lib z.so", path)
    assert.are.equal(0, offset)
  end)

  it("takes a call at the very end of a mapping for a part of it", function()
    read(map, { app, lib })
    assert.are.equal("/usr/bin/app", (find(map, modules, 0x401000)))
    assert.is_nil(find(map, modules, 0x401001))
    assert.is_nil(find(map, modules, 0x400000))
    assert.is_nil(find(map, modules, 0))
  end)

  it("keeps code and leaves data out", function()
    read(map, { "00400000-00401000 r--p 00000000 fe:00 77 /usr/bin/app",
      "00402000-00403000 rw-p 00000000 00:00 0 ", app:gsub("004", "005") .. "" })
    assert.are.equal(1, tonumber(core.lupe_address_map_count(map)))
    assert.is_nil(find(map, modules, 0x400124))
  end)

  it("lets a later reading win, and remembers what is gone until its place is taken", function()
    read(map, { app, lib })
    read(map, { app })
    assert.are.equal("/usr/lib/lib z.so", (find(map, modules, 0x7f0000000100)))
    read(map, { app, "7f0000008000-7f0000009000 r-xp 00000000 fe:00 79 /usr/lib/other.so" })
    assert.are.equal("/usr/lib/other.so", (find(map, modules, 0x7f0000008100)))
    assert.is_nil(find(map, modules, 0x7f0000000100))
    read(map, { "00400000-00401000 rwxp 00000000 00:00 0 " }) -- a JIT's memory
    assert.is_nil(find(map, modules, 0x400124))
  end)

  it("answers from the old reading until a new one is committed", function()
    read(map, { app })
    core.lupe_address_map_begin(map)
    line(map, lib)
    assert.is_nil(find(map, modules, 0x7f0000000100))
    core.lupe_address_map_begin(map)
    assert.are.equal(0, tonumber(core.lupe_address_map_commit(map)))
    assert.are.equal("/usr/bin/app", (find(map, modules, 0x400124)))
    assert.is_nil(find(map, modules, 0x7f0000000100))
  end)

  it("keeps overlapping lines of one reading apart", function()
    read(map, { "00400000-00404000 r-xp 00000000 fe:00 1 /a", "00402000-00403000 r-xp 00000000 fe:00 2 /b",
      "00402800-00405000 r-xp 00000000 fe:00 3 /c" })
    assert.are.equal("/a", (find(map, modules, 0x401000)))
    assert.are.equal("/b", (find(map, modules, 0x402100)))
    assert.are.equal("/c", (find(map, modules, 0x402900)))
  end)

  it("refuses lines that the kernel would not write", function()
    core.lupe_address_map_begin(map)
    for _, text in ipairs {
      "", "x", "00400000", "00400000-", "00400000-00401000", "00400000-00401000 r-xp",
      "00401000-00400000 r-xp 0 fe:00 1 /a", "00400000-00400000 r-xp 0 fe:00 1 /a",
      "00400000-00401000 r-?p 0 fe:00 1 /a", "00400000-00401000 r-xp g fe:00 1 /a",
      "00400000-00401000 r-xp 0 fe00 1 /a", "00400000-00401000 r-xp 0 fe:00 x /a",
      "112233445566778899-00401000 r-xp 0 fe:00 1 /a", "-1-00401000 r-xp 0 fe:00 1 /a",
    } do
      assert.are.equal(core.LUPE_ECORRUPT, line(map, text), text)
    end
  end)

  it("reads the map of this very process", function()
    core.lupe_address_map_begin(map)
    local path, start
    for text in io.lines("/proc/self/maps") do
      assert.are.equal(0, tonumber(line(map, text)), text)
      local from, file = text:match("^(%x+)%-%x+ r%-xp .* (/.*)$")
      if from then path, start = file, tonumber(from, 16) end
    end
    assert.are.equal(0, tonumber(core.lupe_address_map_commit(map)))
    assert.are.equal(path, (find(map, modules, start + 16)))
  end)
end)

describe("an address map's modules", function()
  local PLACE = "00400000-00401000 r-xp 00000000 "
  local modules, path
  before_each(function()
    modules, path = modules_of(), support.temp_dir() .. "/program"
    support.write_file(path, "one")
  end)

  teardown(support.cleanup)

  --- The module that a map takes a line for.
  local function module_in(map, text)
    read(map, { PLACE .. text })
    return tonumber(core.lupe_address_map_frame(map, 0x400010) / 0x1000000000000ULL)
  end

  local function module(text) return module_in(map_of(modules), text) end

  it("are others where another file is mapped from the same path later", function()
    local first = module("fe:00 77 " .. path)
    assert.are.equal(first, module("fe:00 77 " .. path))
    assert.are_not.equal(first, module("fe:00 78 " .. path))
    assert.are_not.equal(first, module("fe:01 77 " .. path))
    support.write_file(path, "longer") -- in place
    local second = module("fe:00 77 " .. path)
    assert.are_not.equal(first, second)
    assert.are.equal(0, os.execute("touch -d 2020-01-01 " .. path))
    assert.are_not.equal(second, module("fe:00 77 " .. path))
    assert.are_not.equal(module("fe:00 77 " .. path .. " (deleted)"), module("fe:00 78 " .. path .. " (deleted)"))
    assert.are.equal(path, ffi.string(core.lupe_module_table_path(modules, second)))
  end)

  it("stay what they are in a process whose file is replaced while it runs", function()
    local map = map_of(modules)
    local first = module_in(map, "fe:00 77 " .. path)
    support.write_file(path, "longer")
    assert.are.equal(first, module_in(map, "fe:00 77 " .. path))
    assert.are.equal(first, module_in(map, "fe:00 77 " .. path .. " (deleted)"))
    assert.are_not.equal(first, module_in(map, "fe:00 78 " .. path))
  end)

  it("are one for code without a file, whose memory is another in each process", function()
    assert.are.equal(module("00:01 5 /memfd:jit (deleted)"), module("00:01 6 /memfd:jit (deleted)"))
    assert.are.equal(module("00:00 0 [vdso]"), module("00:00 0 [vdso]"))
  end)
end)

describe("the module table", function()
  it("gives one id to a path, and 0 to what comes after 65,535 of them", function()
    local modules = modules_of()
    local function intern(path) return core.lupe_module_table_intern(modules, path, #path, nil, 1) end
    for i = 1, 65535 do assert(intern("/lib/" .. i) == i) end
    assert.are.equal(0, intern("/lib/65536"))
    assert.are.equal(0, intern("/lib/65537"))
    assert.are.equal(2, tonumber(core.lupe_module_table_overflows(modules)))
    assert.are.equal(500, intern("/lib/500"))
    assert.are.equal("/lib/65535", ffi.string(core.lupe_module_table_path(modules, 65535)))
    assert.are.equal(65536, core.lupe_module_table_count(modules))
  end)

  it("takes a path without an end for nothing", function()
    local modules = modules_of()
    assert.are.equal(0, core.lupe_module_table_intern(modules, "", 0, nil, 1))
    assert.are.equal(0, core.lupe_module_table_intern(modules, "a\0b", 3, nil, 1))
    assert.are.equal("", ffi.string(core.lupe_module_table_path(modules, 9)))
  end)
end)

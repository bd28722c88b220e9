local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/store/symbolizer.h")
ffi.cdef("int getpid(void);")
local core = support.core()

local folder
local symbolizers = {}

local function sh(command, ...)
  local text = command:format(...)
  local pipe = assert(io.popen("cd " .. folder .. " && env -u LD_PRELOAD sh -c '" .. text .. "' 2>&1"))
  local out = pipe:read("*a")
  assert(pipe:close(), text .. ": " .. out)
  return out
end

local function write(name, text) return support.write_file(folder .. "/" .. name, text) end

local function symbolizer(debug_root)
  local out = ffi.new("lupe_symbolizer *[1]")
  assert.are.equal(core.LUPE_OK, core.lupe_symbolizer_create(out, debug_root or (folder .. "/debug")))
  symbolizers[#symbolizers + 1] = out[0]
  return out[0]
end

local function open(s, path, alternative, build_id, version)
  local out = ffi.new("lupe_image *[1]")
  assert.are.equal(core.LUPE_OK, core.lupe_symbolizer_open(s, path, alternative, build_id, version, out))
  return out[0]
end

local function resolve(s, image, offset)
  local out = ffi.new("lupe_symbol")
  core.lupe_symbolizer_resolve(s, image, offset, out)
  return {
    name = ffi.string(out.name),
    start = tonumber(out.start),
    address = tonumber(out.address),
    named = out.named,
  }
end

--- Address of each symbol, by binutils: the ground truth.
local function addresses(file)
  local found = {}
  for value, name in sh("nm %s", file):gmatch("(%x+) %a ([^\n]+)") do found[name] = tonumber(value, 16) end
  return found
end

--- How far the code of a file lies from its place in it, by binutils.
local function code_shift(file)
  local offset, vaddr = sh("readelf -lW %s", file):match("LOAD%s+0x(%x+) 0x(%x+) 0x%x+ 0x%x+ 0x%x+ R E")
  return tonumber(vaddr, 16) - tonumber(offset, 16)
end

local source = [[
#define KEEP __attribute__((noinline, noclone, used))
static volatile int sink;
KEEP int first_exported(int a) { sink += a; return sink * 3; }
KEEP static int quiet(int a) { for (int i = 0; i < a; i++) sink ^= i * a; return sink + 1; }
KEEP int second_exported(int a) { return quiet(a) + 2; }
KEEP int __frozen_copy(int a) { sink -= a; return sink * 7; }
extern int frozen(int) __attribute__((weak, alias("__frozen_copy")));
static int hidden_frozen(int) __attribute__((alias("__frozen_copy"), used));
int main(void) { return first_exported(1) + second_exported(2) + frozen(3) + hidden_frozen(4); }
]]

local function build(name, text, flags)
  write(name .. ".c", text)
  sh("cc -O1 -Wl,--build-id=sha1 %s -o %s %s.c", flags or "", name, name)
  return folder .. "/" .. name
end

describe("the symbolizer", function()
  setup(function()
    folder = support.temp_dir()
    build("program", source, "-rdynamic")
    sh("cp program stripped && strip -s stripped")
  end)

  after_each(function()
    for _, s in ipairs(symbolizers) do core.lupe_symbolizer_free(s) end
    symbolizers = {}
  end)

  teardown(support.cleanup)

  it("names exported and static functions from .symtab, with their start", function()
    local s, at = symbolizer(), addresses("program")
    local image = open(s, folder .. "/program")
    for _, name in ipairs({ "first_exported", "quiet", "second_exported", "main" }) do
      for inside = 0, 8, 4 do
        assert.are.same({ name = name, start = at[name], address = at[name] + inside, named = true },
          resolve(s, image, at[name] + inside))
      end
    end
  end)

  it("turns offsets into addresses where the two differ", function()
    build("fixed", source, "-no-pie -Wl,-Ttext-segment=0x10000000")
    local s, at, shift = symbolizer(), addresses("fixed"), code_shift("fixed")
    assert.are.equal(0x10000000, shift)
    local found = resolve(s, open(s, folder .. "/fixed"), at.quiet + 3 - shift)
    assert.are.same({ name = "quiet", start = at.quiet, address = at.quiet + 3, named = true }, found)
  end)

  it("names a function without a symbol by its start in the unwind table", function()
    local s, at = symbolizer(), addresses("program")
    local image = open(s, folder .. "/stripped")
    local name = ("stripped+0x%x"):format(at.quiet)
    assert.are.same({ name = name, start = at.quiet, address = at.quiet, named = false }, resolve(s, image, at.quiet))
    assert.are.equal(name, resolve(s, image, at.quiet + 9).name)
    assert.are.equal("first_exported", resolve(s, image, at.first_exported + 1).name)
    assert.are.equal("second_exported", resolve(s, image, at.second_exported).name)
  end)

  it("gives the same names in the next run", function()
    local at = addresses("program")
    local one, two = symbolizer(), symbolizer()
    for _, offset in ipairs({ at.quiet + 1, at.main + 5, at.first_exported }) do
      assert.are.same(resolve(one, open(one, folder .. "/stripped"), offset),
        resolve(two, open(two, folder .. "/stripped"), offset))
    end
  end)

  it("prefers an exported alias without underscores", function()
    local s, at = symbolizer(), addresses("program")
    assert.are.equal("frozen", resolve(s, open(s, folder .. "/program"), at.__frozen_copy + 2).name)
    assert.are.equal("frozen", resolve(s, open(s, folder .. "/stripped"), at.__frozen_copy + 2).name)
  end)

  it("takes static functions from the separate debug file of the same build", function()
    local s, at = symbolizer(), addresses("program")
    local id = sh("readelf -n program"):match("Build ID: (%x+)")
    sh("mkdir -p debug/.build-id/%s && objcopy --only-keep-debug program debug/.build-id/%s/%s.debug",
      id:sub(1, 2), id:sub(1, 2), id:sub(3))
    local image = open(s, folder .. "/stripped")
    assert.are.equal(id, ffi.string(core.lupe_symbolizer_build_id(s, image)))
    assert.are.equal("quiet", resolve(s, image, at.quiet + 9).name)

    build("other", source:gsub("quiet", "noisy"))
    sh("objcopy --only-keep-debug other debug/.build-id/%s/%s.debug", id:sub(1, 2), id:sub(3))
    local fresh = symbolizer()
    assert.is_false(resolve(fresh, open(fresh, folder .. "/stripped"), at.quiet + 9).named)
    sh("rm -r debug")
  end)

  it("lets a symbol without size reach to the next function, and no further", function()
    write("bare.s", [[
      .text
      .globl bare_one, bare_two, sized_one
      bare_one: nop; nop; nop; nop; ret
      bare_two: nop; nop; ret
      .type sized_one, @function
      sized_one: nop; nop; ret
      .size sized_one, . - sized_one
      nop; nop; nop; nop
      data_like: nop; ret
      .section .rodata
      .globl table_of_numbers
      table_of_numbers: .quad 1
      .section .note.GNU-stack,"",@progbits
    ]])
    sh("cc -shared -nostdlib -o bare.so bare.s")
    local s, at = symbolizer(), addresses("bare.so")
    local image, shift = open(s, folder .. "/bare.so"), code_shift("bare.so")
    assert.are.equal("bare_one", resolve(s, image, at.bare_one + 4 - shift).name)
    assert.are.equal("bare_two", resolve(s, image, at.bare_two - shift).name)
    assert.are.equal("sized_one", resolve(s, image, at.sized_one + 2 - shift).name)
    local behind = at.sized_one + 3
    assert.are.same({ name = ("bare.so+0x%x"):format(behind), start = behind, address = behind, named = false },
      resolve(s, image, behind - shift))
    assert.are.equal("data_like", resolve(s, image, at.data_like - shift).name)
  end)

  it("does not count code behind a function's unwind entry to that function", function()
    write("gap.s", [[
      .text
      described: .cfi_startproc
      nop; nop; nop; ret
      .cfi_endproc
      nop; nop; nop; nop; nop; nop; nop; nop
      .section .note.GNU-stack,"",@progbits
    ]])
    sh("cc -shared -nostdlib -Wl,--eh-frame-hdr -o gap.so gap.s")
    local s, start, shift = symbolizer(), addresses("gap.so").described, code_shift("gap.so")
    sh("strip -s gap.so")
    local image = open(s, folder .. "/gap.so")
    assert.are.equal(("gap.so+0x%x"):format(start), resolve(s, image, start + 3 - shift).name)
    assert.are.equal(("gap.so+0x%x"):format(start + 6), resolve(s, image, start + 6 - shift).name)
  end)

  it("keeps a name's pointer, and gives the same one again", function()
    local s, at = symbolizer(), addresses("program")
    local image, one, two = open(s, folder .. "/program"), ffi.new("lupe_symbol"), ffi.new("lupe_symbol")
    core.lupe_symbolizer_resolve(s, image, at.quiet, one)
    for offset = 0x1000, 0x1400 do core.lupe_symbolizer_resolve(s, image, offset, two) end
    core.lupe_symbolizer_resolve(s, image, at.quiet + 1, two)
    assert.are.equal(one.name, two.name)
    assert.are.equal("quiet", ffi.string(one.name))
  end)

  it("opens the same module once", function()
    local s = symbolizer()
    assert.are.equal(open(s, "/a/b.so"), open(s, "/a/b.so"))
    assert.are_not.equal(open(s, "/a/b.so"), open(s, "/a/b.so", nil, "abcd"))
    assert.are.equal(core.LUPE_EINVAL, core.lupe_symbolizer_open(s, nil, nil, nil, nil, ffi.new("lupe_image *[1]")))
  end)

  it("serves more modules than it keeps files open for", function()
    local s, at, images = symbolizer(), addresses("program"), {}
    for i = 1, 40 do
      sh("cp program copy%d", i)
      images[i] = open(s, folder .. "/copy" .. i)
    end
    for _, name in ipairs({ "quiet", "main", "first_exported" }) do
      for i = 1, 40 do assert.are.equal(name, resolve(s, images[i], at[name]).name) end
    end
    local own = 0
    for link in sh("ls -l /proc/%d/fd", ffi.C.getpid()):gmatch("%-> ([^\n]+)") do
      own = own + (link:find(folder .. "/copy", 1, true) and 1 or 0)
    end
    assert.is_true(own > 0 and own <= 8, own .. " open")
  end)

  it("reads on from the other place of a file where its first one is gone", function()
    local s, at = symbolizer(), addresses("program")
    sh("mkdir ended && ln program lasting && ln program ended/lasting")
    local image = open(s, folder .. "/lasting", folder .. "/ended/lasting")
    assert.are.equal("quiet", resolve(s, image, at.quiet).name)
    sh("rm -r ended")
    for i = 1, 8 do -- so many files stay open
      sh("cp program other%d", i)
      resolve(s, open(s, folder .. "/other" .. i), at.main)
    end
    assert.are.equal("first_exported", resolve(s, image, at.first_exported).name)
  end)

  it("says where a file without a build id is now, and of none that another one has taken the place of", function()
    local s = symbolizer()
    local function file_of(image)
      local path = core.lupe_symbolizer_file(s, image, ffi.new("const char *[1]"))
      return path ~= nil and ffi.string(path) or nil
    end
    build("unmarked", source, "-Wl,--build-id=none")
    local at = addresses("unmarked")
    sh("mkdir first && ln unmarked first/unmarked")
    local image = open(s, folder .. "/unmarked", folder .. "/first/unmarked")
    assert.are.equal("quiet", resolve(s, image, at.quiet).name)
    assert.are.equal(folder .. "/first/unmarked", file_of(image))
    sh("cp program another && mv another first/unmarked")
    assert.are.equal(folder .. "/unmarked", file_of(image))
    sh("cp program another && mv another unmarked")
    assert.is_nil(file_of(image))
  end)

  it("does not take another file at a module's path for the module's", function()
    local s, at = symbolizer(), addresses("program")
    sh("cp program replaced")
    local bytes = #support.read_file(folder .. "/replaced")
    local nanoseconds = sh("stat -c %%.9Y replaced"):gsub("%D", "")
    local function of(size, time)
      return ffi.new("lupe_file_version", { device = 1, inode = 2, bytes = size, mtime_ns = time })
    end
    local time = ffi.cast("int64_t", tonumber(nanoseconds:sub(1, -10))) * 1000000000LL + tonumber(nanoseconds:sub(-9))
    local path = folder .. "/replaced"
    local image = open(s, path, nil, nil, of(bytes, time))
    assert.are.equal("quiet", resolve(s, image, at.quiet).name)
    assert.are.equal(image, open(s, path, nil, nil, of(bytes, time)))
    assert.is_false(resolve(s, open(s, path, nil, nil, of(bytes + 1, time)), at.quiet).named)
    assert.is_false(resolve(s, open(s, path, nil, nil, of(bytes, time + 1)), at.quiet).named)
    assert.are.equal("quiet", resolve(s, open(s, path, nil, nil, of(0, 0)), at.quiet).name)
  end)

  it("finds the vdso's functions", function()
    local s, names = symbolizer(), {}
    local image = open(s, "[vdso]")
    for offset = 0, 0x1fff, 8 do names[resolve(s, image, offset).name] = true end
    assert.is_true(names.clock_gettime or names.__vdso_clock_gettime)
  end)

  it("makes one function of all code without a file", function()
    local s = symbolizer()
    local expected = {
      [""] = "[anon]", ["//anon"] = "[anon]", ["[heap]"] = "[heap]", ["[stack]"] = "[stack]",
      ["[anon:js code]"] = "[anon:js code]", ["/memfd:jit-cache (deleted)"] = "[memfd:jit-cache]",
      ["/dev/zero (deleted)"] = "[zero]", ["[vsyscall]"] = "[vsyscall]",
    }
    for path, name in pairs(expected) do
      local image = open(s, path)
      assert.are.same({ name = name, start = 0, address = 0x7f0012345678, named = false },
        resolve(s, image, 0x7f0012345678))
      assert.are.equal(name, resolve(s, image, 5).name)
      assert.are.equal("", ffi.string(core.lupe_symbolizer_build_id(s, image)))
    end
    assert.are.equal("[unknown]", resolve(s, nil, 99).name)
  end)

  describe("with a file that is not what it should be", function()
    local function falls_back(path, base)
      local s = symbolizer()
      assert.are.same({ name = base .. "+0x1234", start = 0x1234, address = 0x1234, named = false },
        resolve(s, open(s, path), 0x1234))
    end

    it("falls back for one that is missing, empty, a folder, a pipe or text", function()
      falls_back("/nowhere/at/all.so.1", "all.so.1")
      falls_back(write("empty", ""), "empty")
      falls_back(write("script.sh", "#!/bin/sh\necho " .. ("x"):rep(5000)), "script.sh")
      sh("mkdir -p dir.so && mkfifo pipe.so")
      falls_back(folder .. "/dir.so", "dir.so")
      falls_back(folder .. "/pipe.so", "pipe.so")
    end)

    it("falls back for another class or byte order, and for a file cut short", function()
      local bytes = support.read_file(folder .. "/program")
      falls_back(write("class32", bytes:sub(1, 4) .. "\1" .. bytes:sub(6)), "class32")
      falls_back(write("big_endian", bytes:sub(1, 5) .. "\2" .. bytes:sub(7)), "big_endian")
      falls_back(write("short", bytes:sub(1, 40)), "short")
      falls_back(write("headers_cut", bytes:sub(1, 100)), "headers_cut")
    end)

    it("keeps names by the unwind table when the section table is cut off", function()
      local at, bytes = addresses("program"), support.read_file(folder .. "/program")
      write("no_sections", bytes:sub(1, #bytes - 3000))
      local s = symbolizer()
      assert.are.equal(("no_sections+0x%x"):format(at.quiet),
        resolve(s, open(s, folder .. "/no_sections"), at.quiet + 5).name)
    end)

    it("stops reading names from a file that was rewritten, and keeps those it has", function()
      local at, bytes = addresses("program"), support.read_file(folder .. "/program")
      local s = symbolizer()
      local image = open(s, write("rewritten", bytes))
      assert.are.equal("quiet", resolve(s, image, at.quiet).name)
      write("rewritten", ("\0"):rep(#bytes - 1))
      assert.are.equal("quiet", resolve(s, image, at.quiet + 1).name)
      assert.are.equal(("rewritten+0x%x"):format(at.main), resolve(s, image, at.main + 1).name)
    end)

    it("still reads a file that was replaced, as the process still runs it", function()
      local at = addresses("program")
      local s = symbolizer()
      sh("cp program replaced")
      local image = open(s, folder .. "/replaced")
      assert.are.equal("quiet", resolve(s, image, at.quiet).name)
      sh("rm replaced")
      assert.are.equal("main", resolve(s, image, at.main).name)
    end)

    it("believes a file only if it carries the build id that is asked for", function()
      local s, at = symbolizer(), addresses("program")
      local id = sh("readelf -n program"):match("Build ID: (%x+)")
      assert.are.equal("quiet", resolve(s, open(s, folder .. "/program", nil, id), at.quiet).name)
      local other = id:gsub("^.", id:sub(1, 1) == "0" and "1" or "0")
      assert.are.equal(("program+0x%x"):format(at.quiet),
        resolve(s, open(s, folder .. "/program", nil, other), at.quiet).name)
    end)

    it("reads a deleted program from the alternative, and is never misled by its successor", function()
      local s, at = symbolizer(), addresses("program")
      local gone = folder .. "/program (deleted)"
      assert.are.equal(("program+0x%x"):format(at.quiet), resolve(s, open(s, gone), at.quiet).name)
      local fresh = symbolizer()
      assert.are.equal("quiet", resolve(fresh, open(fresh, gone, folder .. "/program"), at.quiet).name)
      local id = sh("readelf -n program"):match("Build ID: (%x+)")
      assert.are.equal("quiet", resolve(fresh, open(fresh, gone, nil, id), at.quiet).name)
    end)

    it("cleans hostile file names", function()
      local s = symbolizer()
      assert.are.equal("a?b?+0x10", resolve(s, open(s, "/x/a\27b\255"), 0x10).name)
      local name = resolve(s, open(s, "/x/" .. ("n"):rep(5000)), 0x10).name
      assert.is_true(#name < 200 and name:find("+0x10", 1, true) ~= nil)
    end)
  end)

  it("survives thousands of damaged files", function()
    local files = {}
    for _, name in ipairs({ "program", "stripped" }) do files[#files + 1] = support.read_file(folder .. "/" .. name) end
    local at = addresses("program")
    local state = 20240229 -- any seed; the same files every time
    local function random(n)
      state = (state * 48271) % 2147483647
      return state % n
    end
    local edges = { 0, 1, 0x7f, 0x80, 0xff }
    local out, intact = ffi.new("lupe_symbol"), 0
    for round = 1, (support.sanitized and 1000 or 3000) do
      local bytes = files[round % #files + 1]
      local image_bytes = ffi.new("uint8_t[?]", #bytes)
      ffi.copy(image_bytes, bytes, #bytes)
      local sections = #bytes - 31 * 64
      for _ = 1, 1 + random(8) do
        -- most of the damage goes where the structure is: headers at the front, section table at the end
        local where = random(4)
        local place = where == 0 and random(#bytes) or where == 1 and random(64)
          or where == 2 and 64 + random(14 * 56) or sections + random(31 * 64)
        image_bytes[place] = random(3) == 0 and random(256) or edges[1 + random(#edges)]
      end
      local length = random(20) == 0 and random(#bytes) or #bytes
      local path = write("damaged", ffi.string(image_bytes, length))
      local s = symbolizer()
      local image = open(s, path)
      for i = 0, 15 do
        local offset = i < 4 and at.quiet + i or i < 8 and at.main + i or i < 12 and random(#bytes)
          or random(2 ^ 31) * 2 ^ 20
        core.lupe_symbolizer_resolve(s, image, offset, out)
        local name = ffi.string(out.name)
        assert(#name > 0 and #name < 1024 and not name:find("%c"), name)
        if name == "quiet" or name == "main" then intact = intact + 1 end
      end
      core.lupe_symbolizer_free(table.remove(symbolizers))
    end
    assert.is_true(intact > 100) -- the damage was not such that nothing was ever read
  end)
end)

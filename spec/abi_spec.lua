--- What programs that are linked to liblupe.so count on: its symbols, and the form of what they pass. abi/liblupe.abi
-- has it as it was; `./dev abi` writes that file anew.
local support = require("spec.support")

local REFERENCE = support.root .. "/abi/liblupe.abi"
local PRIVATE = support.root .. "/abi/private.abignore"
local VERSIONS = support.root .. "/core/embed/lupe.map"

--- Exported symbols: name -> version.
local function exports_of(library)
  local done = support.run({ "nm", "-D", "--defined-only", "--with-symbol-versions", library })
  assert.equal(0, done.code, done.err)
  local versions = {}
  for kind, symbol in done.out:gmatch("(%a) (%S+)\n") do
    local name, version = symbol:match("^(.-)@@?(.*)$")
    if kind ~= "A" then versions[name or symbol] = version or "" end -- A: the versions themselves
  end
  return versions
end

--- The functions of lupe.h.
local function header_functions()
  local names = {}
  for name in support.read_file(support.root .. "/core/lupe.h"):gmatch("\nLUPE_API [^\n(]-%*?(lupe_[%w_]+)%(") do
    names[name] = "LUPE_0.1"
  end
  return names
end

local function changes(library)
  local done = support.run({ "abidiff", "--harmless", "--suppressions", PRIVATE, REFERENCE, library })
  return done.code, done.out .. done.err
end

describe("liblupe.so", function()
  teardown(support.cleanup)

  it("exports the functions of lupe.h, and what its agent needs, in versions of their own", function()
    local public, private = {}, 0
    for name, version in pairs(exports_of(support.built("liblupe.so"))) do
      if version == "LUPE_PRIVATE" then
        assert.matches("^lupe_agent_%l+", name)
        private = private + 1
      else
        public[name] = version
      end
    end
    assert.same(header_functions(), public)
    assert.is_true(private > 0)
  end)

  it("needs libc alone", function()
    local done = support.run({ "readelf", "-d", support.built("liblupe.so") })
    assert.matches("SONAME[^\n]*%[liblupe%.so%.0%]", done.out)
    local needed = {}
    for name in done.out:gmatch("NEEDED[^\n]*%[([^\n]-)%]") do needed[#needed + 1] = name:gsub("%.so.*", "") end
    table.sort(needed)
    for _, name in ipairs(needed) do assert.is_truthy(name == "libc" or name:find("^ld%-linux"), name) end
  end)

  it("has a runtime that shows its entry only", function()
    assert.same({ lupe_embedded_main = "LUPE_PRIVATE" }, exports_of(support.built("liblupe-runtime.so")))
  end)

  it("keeps to the interface that programs were built against", function()
    local code, told = changes(support.built("liblupe.so"))
    assert.equal(0, code, told .. "\nWhere this is meant and compatible: ./dev abi")
  end)
end)

describe("the comparison of interfaces", function()
  local folder

  setup(function() folder = support.temp_dir() end)
  teardown(support.cleanup)

  --- A library with all functions of lupe.h, which do nothing: made of what LUPE_DISABLE has. `change(header)` may
  -- return another header.
  local function library_of(change)
    local header = support.read_file(support.root .. "/core/lupe.h")
    local exported, count = header:gsub("\n#define LUPE__NOTHING [^\n]*",
      "\n#define LUPE__NOTHING __attribute__((visibility(\"default\")))")
    assert.equal(1, count)
    if change then
      header = exported
      exported = change(header)
      assert.are_not.equal(header, exported)
    end
    support.write_file(folder .. "/lupe.h", exported)
    support.write_file(folder .. "/all.c", "#define LUPE_DISABLE\n#include \"lupe.h\"\n")
    local library = folder .. "/liblupe.so"
    local done = support.run({ "gcc", "-g", "-shared", "-fPIC", "-fvisibility=hidden", "-Wl,-soname,liblupe.so.0",
      "-Wl,--version-script=" .. VERSIONS, "-o", library, folder .. "/all.c" })
    assert.equal(0, done.code, done.err)
    return library
  end

  it("finds none between two libraries of one header", function()
    local code, told = changes(library_of())
    assert.equal(0, code, told)
  end)

  for what, change in pairs({
    ["a field amid a struct"] = { "\n  const char %*rule;", "\n  int added;%0", "int added" },
    ["a field at a struct's end"] = { "\n} lupe_options;", "\n  int added;%0", "int added" },
    ["a status that moves the others"] = { "\n  LUPE_ENOENT,", "\n  LUPE_EADDED,%0", "LUPE_EADDED" },
    ["another type of an argument"] = { "lupe_get%(const char %*p, int %*s", "lupe_get(const char *p, long *s",
      "lupe_get" },
    ["a function that is gone"] = { "\nLUPE__NOTHING lupe_status lupe_stop%b()[^\n]*", "",
      "Removed function.*lupe_stop" },
    ["a function that is new"] = { "\n#undef LUPE__NOTHING", "\nLUPE__NOTHING void lupe_added(void) {}%0",
      "Added function.*lupe_added" },
  }) do
    it("reports " .. what, function()
      local code, told = changes(library_of(function(header) return (header:gsub(change[1], change[2])) end))
      assert.are_not.equal(0, code)
      assert.matches(change[3], told)
    end)
  end
end)

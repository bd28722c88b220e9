--- lupe.h, as a stranger's compiler sees it: with the library, and with LUPE_DISABLE alone.
local support = require("spec.support")

local FIXTURES = support.root .. "/spec/fixtures/header"
local WARNINGS = {
  "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wshadow", "-Wconversion", "-Wsign-conversion", "-Wcast-qual",
  "-Wundef", "-Wmissing-declarations", "-Wredundant-decls", "-Wunused-macros",
}
local OF_C = { "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wold-style-definition", "-Wc++-compat" }
local OF_CXX = { "-Wold-style-cast", "-Wnon-virtual-dtor" }
local COMPILERS = { "gcc", "clang" }
local LINKED = { "-L" .. support.build_dir, "-llupe", "-Wl,-rpath," .. support.build_dir }
if support.sanitized then LINKED[#LINKED + 1] = "-fsanitize=address,undefined" end
local STANDARDS = { { "c", "c99" }, { "c", "c11" }, { "c", "c17" }, { "c++", "c++11" }, { "c++", "c++20" } }

describe("lupe.h", function()
  local folder, header

  --- An include folder that has lupe.h and nothing else, as an installation has.
  setup(function()
    folder = support.temp_dir()
    header = assert(support.read_file(support.root .. "/core/lupe.h"))
    support.write_file(folder .. "/lupe.h", header)
  end)
  teardown(support.cleanup)

  local function words(...)
    local list = {}
    for _, part in ipairs({ ... }) do
      for _, word in ipairs(type(part) == "table" and part or { part }) do list[#list + 1] = word end
    end
    return list
  end

  --- Compiles files of the fixtures' folder.
  local function compile(compiler, language, standard, files, arguments)
    local sources = {}
    for i, name in ipairs(files) do sources[i] = FIXTURES .. "/" .. name end
    local done = support.run(words(compiler, "-x", language, "-std=" .. standard, WARNINGS,
      language == "c" and OF_C or OF_CXX, "-O2", "-I" .. folder, sources, "-x", "none", arguments), { seconds = 60 })
    return done.code == 0, ("%s -std=%s %s: %s"):format(compiler, standard, table.concat(arguments, " "), done.err)
  end

  --- Compiles and links the program that uses all of the header, and runs it.
  local function try_everything(compiler, standard, arguments)
    local language, version = unpack(standard)
    local program = folder .. "/everything"
    assert(compile(compiler, language, version,
      { language == "c" and "everything.c" or "everything.cc", "other_unit.c" },
      words(arguments, "-lstdc++", "-o", program)))
    local done = support.run({ program })
    assert.equal(0, done.code, done.err)
  end

  local function functions_of(text)
    local names = {}
    for name in text:gmatch("\nLUPE_API [%w_ ]-%*?(lupe_[%w_]+)%(") do names[#names + 1] = name end
    for name in text:gmatch("\nLUPE__NOTHING [%w_ ]-%*?(lupe_[%w_]+)%(") do names[#names + 1] = name end
    table.sort(names)
    return names
  end

  local function parts()
    local enabled, disabled = header:match("\n#ifndef LUPE_DISABLE\n(.-)\n#else /%* LUPE_DISABLE %*/\n(.-)\n#endif\n")
    return "\n" .. enabled, "\n" .. disabled
  end

  it("has the same functions with LUPE_DISABLE as without, and the specs' programs use them all", function()
    local enabled, disabled = parts()
    local names = functions_of(enabled)
    assert.is_true(#names >= 20)
    assert.same(names, functions_of(disabled))
    for name in header:gmatch("\n#define (LUPE_[A-Z][%w_]*)%f[(]") do names[#names + 1] = name end
    names[#names + 1] = "LUPE_OPTIONS_INIT"
    local used = support.read_file(FIXTURES .. "/everything.h") .. support.read_file(FIXTURES .. "/scopes.h")
    for _, name in ipairs(names) do
      assert.is_truthy(used:find("%f[%w_]" .. name .. "%f[^%w_]"), name .. " is not used in the fixtures")
    end
  end)

  for _, compiler in ipairs(COMPILERS) do
    for _, standard in ipairs(STANDARDS) do
      -- The sanitizer of one compiler cannot be linked by the other.
      if compiler == "gcc" or not support.sanitized then
        it(("is used without a warning, and the library does what it says while none runs, by %s as %s"):format(
          compiler, standard[2]), function()
          try_everything(compiler, standard, LINKED)
        end)
      end

      it(("is all that a program needs with LUPE_DISABLE, by %s as %s"):format(compiler, standard[2]), function()
        try_everything(compiler, standard, { "-DLUPE_DISABLE" })
      end)
    end

    for _, language in ipairs({ "c", "c++" }) do
      it(("costs nothing with LUPE_DISABLE, by %s as %s"):format(compiler, language), function()
        local function object_of(define)
          local path = folder .. "/cost.o"
          assert(compile(compiler, language, language == "c" and "c11" or "c++11", { "cost.c" },
            { "-D" .. define, "-c", "-o", path }))
          return support.read_file(path)
        end
        local unmarked = object_of("UNMARKED")
        assert.is_true(object_of("LUPE_DISABLE") == unmarked, "other code or data than without marks")
        assert.is_false(object_of("MARKED") == unmarked) -- what is compared can differ
      end)
    end
  end

  it("takes string literals only where it says so, with LUPE_DISABLE too", function()
    local source = support.write_file(folder .. "/literal.c",
      "#include <lupe.h>\nint main(int c, char **v) { (void)c; LUPE_SPAN(v[0]); return 0; }\n")
    for _, define in ipairs({ "-DLUPE_DISABLE", "-DMARKED" }) do
      local done = support.run({ "gcc", define, "-I" .. folder, "-c", source, "-o", folder .. "/literal.o" })
      assert.equal(1, done.code)
    end
  end)
end)

--- Where lupe finds the program that belongs to one of its libraries.
local ffi = require("ffi")
local support = require("spec.support")

support.declare("core/paths.h")
local core = support.core()
local ENOENT = 7

local function program_beside(file)
  local out = ffi.new("char[4096]")
  local status = tonumber(core.lupe__paths_program_beside(file, out))
  return status, status == 0 and ffi.string(out) or nil
end

describe("a library of lupe's", function()
  local root
  before_each(function() root = support.run({ "realpath", support.temp_dir() }).out:gsub("\n", "") end)
  after_each(function() support.cleanup() end)

  local function make(path, mode)
    assert(os.execute(("mkdir -p '%s/%s'"):format(root, path:match("^(.*)/") or ".")))
    support.write_file(root .. "/" .. path, "")
    assert(os.execute(("chmod %s '%s/%s'"):format(mode or "644", root, path)))
    return root .. "/" .. path
  end

  for _, place in ipairs({
    { "a build folder", "build/liblupe-runtime.so", "build/lupe" },
    { "lib", "usr/lib/liblupe.so.0", "usr/bin/lupe" },
    { "lib/lupe", "usr/lib/lupe/liblupe-runtime.so", "usr/bin/lupe" },
    { "lib/ARCHITECTURE/lupe", "usr/lib/x86_64-linux-gnu/lupe/liblupe-runtime.so", "usr/bin/lupe" },
  }) do
    it("finds its program from " .. place[1], function()
      local library, program = make(place[2]), make(place[3], "755")
      assert.same({ 0, program }, { program_beside(library) })
    end)
  end

  it("takes neither a folder nor a file that cannot be executed for its program", function()
    local library, program = make("usr/lib/liblupe.so.0"), make("usr/bin/lupe", "755")
    make("usr/lib/lupe/liblupe-agent.so")
    assert.same({ 0, program }, { program_beside(library) })
    os.execute(("chmod 644 '%s'"):format(program))
    if program_beside(library) ~= ENOENT then
      local _, found = program_beside(library) -- one that is installed on this machine
      assert.are_not.equal(program, found)
    end
  end)

  it("finds the build's program, and all that belongs to it, from the library that it is in itself", function()
    local out, missing = ffi.new("lupe_paths"), ffi.new("const char *[1]")
    assert.equal(0, tonumber(core.lupe_paths_find(out, missing)))
    assert.equal(support.built("lupe"), ffi.string(out.executable))
    assert.equal(support.built("liblupe-agent.so"), ffi.string(out.agent))
  end)
end)

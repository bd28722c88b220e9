--- The Debian package: what is in it, unpacked into some folder, and installed by dpkg; a stranger's programs are built
-- on it, run, and profiled.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local STRANGER = support.root .. "/spec/fixtures/package"
local folder, package, version

--- Runs a command that has to succeed; returns what it printed.
local function must(argv, options)
  local done = support.run(argv, options or { seconds = 60 })
  assert(done.code == 0, ("%s: %s%s"):format(table.concat(argv, " "), done.out, done.err))
  return done.out
end

local function field(name) return (must({ "dpkg-deb", "-f", package, name }):gsub("\n$", "")) end

setup(function()
  folder = support.temp_dir()
  version = must({ support.built("lupe"), "--version" }):match("^lupe (%S+)\n$")
  must({ "cpack", "-G", "DEB", "-B", folder, "--config", support.build_dir .. "/CPackConfig.cmake" }, { seconds = 120 })
  package = ("%s/lupe_%s_%s.deb"):format(folder, version, (must({ "dpkg", "--print-architecture" }):gsub("\n", "")))
end)

teardown(support.cleanup)

describe("the package", function()
  it("says what it is and what it needs", function()
    assert.equal("lupe", field("Package"))
    assert.equal(version, field("Version"))
    assert.matches("^profiler for native Linux programs[^\n]*\n lupe profiles", field("Description"))
    assert.matches("^The lupe maintainers <[^>]+>$", field("Maintainer"))
    local needed = {}
    for name in field("Depends"):gmatch("[%w.+-]+") do needed[name] = true end
    for _, name in ipairs({
      "libc6", "libjemalloc2", "lua-cjson", "libluajit-5.1-2", "libuv1", "libmicrohttpd12", "libdw1", "libelf1",
      "libprotobuf-c1", "zlib1g",
    }) do
      assert.is_true(needed[name], "does not depend on " .. name)
    end
  end)

  it("has files of root's below /usr, none of them a configuration", function()
    local count = 0
    for line in must({ "dpkg-deb", "-c", package }):gmatch("[^\n]+") do
      local mode, owner, path = line:match("^(%S+) (%S+) +%d+ %S+ %S+ %./([^ ]*)")
      assert.equal("root/root", owner, line)
      assert.is_truthy(path:find("^usr/"), line)
      assert.is_truthy(mode:find("^l") or not mode:find("^.....w") and not mode:find("^........w"), line)
      count = count + 1
    end
    assert.is_true(count > 100)
    local control = support.temp_dir()
    must({ "dpkg-deb", "-e", package, control })
    assert.is_nil(support.read_file(control .. "/conffiles"))
    assert.equal("activate-noawait ldconfig\n", support.read_file(control .. "/triggers"))
    assert.equal(("liblupe 0 lupe (>= %s)\n"):format(version), support.read_file(control .. "/shlibs"))
  end)
end)

describe("the package, unpacked into a folder", function()
  local usr, lib

  setup(function()
    must({ "dpkg-deb", "-x", package, folder .. "/moved" })
    usr = folder .. "/moved/usr"
    lib = (must({ "sh", "-c", "dirname " .. usr .. "/lib/*/liblupe.so.0" }):gsub("\n", ""))
  end)

  it("has the program, the library with its names, manual pages, documents and the unit", function()
    for _, path in ipairs({
      usr .. "/bin/lupe", usr .. "/include/lupe.h", lib .. "/liblupe.so", lib .. "/liblupe.so.0",
      lib .. "/liblupe.so." .. version, lib .. "/lupe/liblupe-agent.so", lib .. "/lupe/liblupe-runtime.so",
      lib .. "/pkgconfig/lupe.pc", lib .. "/cmake/lupe/lupeConfig.cmake", usr .. "/share/lupe/lua/lupe/report.lua",
      usr .. "/share/lupe/rules/steady_growth.lua", usr .. "/share/doc/lupe/README.md",
      usr .. "/share/doc/lupe/docs/rules.md", usr .. "/share/doc/lupe/examples/rules/one_holder.lua",
      usr .. "/share/man/man1/lupe.1.gz", usr .. "/share/man/man3/lupe.3.gz",
      usr .. "/share/man/man3/lupe_start.3.gz", usr .. "/lib/systemd/system/lupe.service",
    }) do
      assert.is_truthy(support.read_file(path), path .. " is missing")
    end
  end)

  it("names no folder of the sources or the build", function()
    local done = support.run({ "grep", "-rlF", support.root, usr })
    assert.equal(1, done.code, done.out)
  end)

  it("documents every command, every flag and every function", function()
    local function page(name)
      local text = must({ "sh", "-c", ("gzip -dc %s/share/man/%s.gz | groff -man -Tascii -ww -P-cbou 2>&1"):format(
        usr, name) })
      assert.is_nil(text:find("warning:", 1, true))
      return text:gsub("%s+", " ")
    end
    local commands = page("man1/lupe.1")
    for _, command in ipairs(require("lupe.commands")) do
      assert.is_truthy(commands:find(command.usage, 1, true), command.usage)
      for _, flag in ipairs(command.flags or {}) do assert.is_truthy(commands:find(flag.flag, 1, true), flag.flag) end
    end
    for _, setting in ipairs(require("lupe.settings")) do
      local name = setting.flag or setting.name
      assert.is_truthy(commands:find(name, 1, true), name)
      if setting.env then assert.is_truthy(commands:find(setting.env, 1, true), setting.env) end
    end
    local functions, count = page("man3/lupe.3"), 0
    for name in support.read_file(usr .. "/include/lupe.h"):gmatch("\nLUPE_API [^\n(]-%*?(lupe_[%w_]+)%(") do
      assert.is_truthy(functions:find(name .. "(", 1, true), name)
      assert.is_truthy(support.read_file(("%s/share/man/man3/%s.3.gz"):format(usr, name)), name)
      count = count + 1
    end
    assert.is_true(count >= 20)
  end)

  --- Starts a stranger's program; it profiles itself and answers until it is ended.
  local function profile_itself(program, mode, env)
    local port = support.free_port()
    env.MALLOC_CONF = "prof:true,prof_active:false,lg_prof_sample:12"
    env.LUPE_HEAP_INTERVAL_SECS, env.LUPE_RATE_READS = 0.2, 0
    local run = support.spawn({ program, "127.0.0.1:" .. port, mode }, { env = env })
    support.eventually(function()
      assert(run:alive(), run:stderr())
      local answer = support.http(port, "/api/profiling/allocations")
      for _, pair in ipairs(answer and answer.status == 200 and answer.json().top_allocators or {}) do
        if pair[1] == "stranger::rows" then return true end
      end
      return false, answer and answer.body:sub(1, 1000)
    end, 30, "the tag under which rows are kept among those that allocate")
    run:kill(15)
    assert.equal(0, run:wait(15), run:stderr())
    assert.equal(("lupe %s\n"):format(version), run:stdout())
  end

  local function jemalloc()
    return (must({ "sh", "-c", "ls /usr/lib/*/libjemalloc.so.2 | head -n 1" }):gsub("\n", ""))
  end

  for _, mode in ipairs({ "in-process", "helper" }) do
    it("builds a program by pkg-config, which profiles itself " .. mode, function()
      local program = folder .. "/by_pkg_config"
      must({ "sh", "-c", ('gcc -g -O1 -Wall -Werror "%s/stranger.c" $(pkg-config --cflags --libs lupe) -o %s'):format(
        STRANGER, program) }, { seconds = 60, env = { PKG_CONFIG_LIBDIR = lib .. "/pkgconfig" } })
      profile_itself(program, mode, { LD_LIBRARY_PATH = lib, LD_PRELOAD = jemalloc() })
    end)
  end

  local function configure(prefix, wanted, into)
    return support.run({ "cmake", "-S", STRANGER, "-B", into, "-G", "Ninja", "-DWANTED=" .. wanted,
      "-DCMAKE_PREFIX_PATH=" .. prefix, "-DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF" }, { seconds = 60 })
  end

  it("builds programs by CMake's find_package", function()
    local done = configure(usr, "0.1", folder .. "/by_cmake")
    assert.equal(0, done.code, done.err)
    must({ "cmake", "--build", folder .. "/by_cmake" })
    must({ folder .. "/by_cmake/stranger_cxx" })
    profile_itself(folder .. "/by_cmake/stranger", "in-process", { LD_PRELOAD = jemalloc() })
  end)

  it("is not found by who wants a version that it does not serve", function()
    for _, wanted in ipairs({ "0.99", "1.0" }) do
      local done = configure(usr, wanted, folder .. "/by_cmake") -- which knows its compilers already
      assert.equal(1, done.code)
      assert.matches("lupeConfig.cmake, version: " .. version, done.err)
    end
  end)

  it("is not needed by who builds on a build folder", function()
    local done = configure(support.build_dir, "0.1", folder .. "/by_build")
    assert.equal(0, done.code, done.err)
    must({ "cmake", "--build", folder .. "/by_build" })
    must({ folder .. "/by_build/stranger_cxx" })
    local opened = must({ "ldd", folder .. "/by_build/stranger_cxx" })
    assert.is_truthy(opened:find("liblupe.so.0 => " .. support.build_dir, 1, true), opened)
  end)

  it("profiles a command, and explains the daemon", function()
    local example = folder .. "/leaky_server"
    must({ "sh", "-c", ("gcc -g -O1 %s/leaky_server.c -o %s $(pkg-config --cflags --libs libuv) -lm"):format(
      usr .. "/share/doc/lupe/examples", example) })
    local run = lupe_run.start({ example, "--self-drive", 3 },
      { lupe = usr .. "/bin/lupe", flags = { "--sample-bytes", "16K", "--heap-interval", "0.2" } })
    local report = run:finish()
    local names = {}
    for _, site in ipairs(report.allocators) do names[site.name] = true end
    assert.is_true(names.remember_session)
    assert.matches("^Usage: lupe serve", must({ usr .. "/bin/lupe", "serve", "--help" }))
  end)
end)

describe("the package, installed by dpkg", function()
  --- In a copy of this machine that nobody else sees; what is left running in it ends with it.
  local function in_a_copy(argv)
    local command = { "unshare", "--mount", "--pid", "--fork", "--kill-child", STRANGER .. "/in_overlay.sh", folder }
    for _, word in ipairs(argv) do command[#command + 1] = word end
    return support.run(command, { seconds = 120 })
  end

  it("works at once, and leaves nothing behind when it is purged", function()
    -- The copy has no other file systems than the one of / and this folder.
    must({ "cp", STRANGER .. "/install.sh", STRANGER .. "/stranger.c", folder })
    local done = in_a_copy({ folder .. "/install.sh", package, folder .. "/stranger.c", support.free_port() })
    if done.code == 77 or done.err:find("^unshare: unshare failed") then
      pending("not root, or no overlay of / to be had: " .. done.err)
      return
    end
    assert.equal(0, done.code, done.out .. done.err)
    assert.is_truthy(done.out:find(("lupe %s\n"):format(version), 1, true), done.out)
    assert.matches("\nreadyz 200\n", done.out)
    assert.matches("\ngone\n$", done.out)
  end)
end)

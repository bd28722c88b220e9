--- The folders that agents' sockets are in, and what becomes of those that a killed runtime leaves.
local ffi = require("ffi")
local support = require("spec.support")

ffi.cdef("typedef int pid_t; typedef unsigned uid_t;")
support.declare("core/agents_socket.h")
support.declare("core/wire/channel.h")
ffi.cdef([[
int setenv(const char *name, const char *value, int overwrite);
int unsetenv(const char *name);
int close(int fd);
unsigned umask(unsigned mask);
uid_t geteuid(void);
]])
local core = support.core()

describe("the folder of an agents' socket", function()
  local base, before
  local made = {}

  before_each(function()
    base, before = support.temp_dir(), os.getenv("XDG_RUNTIME_DIR")
    ffi.C.setenv("XDG_RUNTIME_DIR", base, 1)
  end)

  after_each(function()
    for _, one in ipairs(made) do core.lupe_agents_socket_release(one) end
    made = {}
    if before then ffi.C.setenv("XDG_RUNTIME_DIR", before, 1) else ffi.C.unsetenv("XDG_RUNTIME_DIR") end
    support.cleanup()
  end)

  local function make()
    local out, text = ffi.new("lupe_agents_socket"), ffi.new("char[512]")
    assert.equal(0, tonumber(core.lupe_agents_socket_make(out, text, 512)), ffi.string(text))
    made[#made + 1] = out
    return ffi.string(out.folder), ffi.string(out.path)
  end

  local function listen(path)
    local fd = ffi.new("int[1]")
    assert.equal(0, tonumber(core.lupe_channel_listen(path, fd)))
    return fd[0]
  end

  --- One whose process has ended without a word: unlocked, its socket there, and nobody at it.
  local function left(name)
    local folder = base .. "/" .. name
    assert(os.execute(("mkdir -m 700 %s"):format(folder)))
    ffi.C.close(listen(folder .. "/agents"))
    return folder
  end

  local function age(folder) assert(os.execute(("touch -d '10 minutes ago' %s"):format(folder))) end

  local function there(path) return os.execute(("test -e %s"):format(path)) == 0 end

  it("is its user's alone, and empty", function()
    local folder, path = make()
    assert.equal(folder .. "/agents", path)
    assert.equal("700 0", (support.run({ "sh", "-c", ("stat -c %%a %s; ls -A %s | wc -l"):format(folder, folder) }).out
      :gsub("\n$", ""):gsub("\n", " ")))
  end)

  it("is removed by the next runtime where its own was killed some minutes ago", function()
    local folder, without_socket = left("lupe-aB3dE6"), base .. "/lupe-aB3dE7"
    assert(os.execute("mkdir -m 700 " .. without_socket))
    age(folder)
    age(without_socket)
    make()
    assert.is_false(there(folder))
    assert.is_false(there(without_socket))
  end)

  it("stays while it is new, since it may be one that is just being made", function()
    local folder = left("lupe-aB3dE6")
    make()
    assert.is_true(there(folder .. "/agents"))
  end)

  it("stays, however old, while its runtime lives", function()
    local folder, path = make()
    ffi.C.close(listen(path)) -- even of one that has lost its socket
    age(folder)
    make()
    assert.is_true(there(path))
    core.lupe_agents_socket_release(made[1]) -- its folder is not empty
    make()
    assert.is_false(there(path))
  end)

  it("stays while somebody listens who has not locked it", function()
    local folder = base .. "/lupe-aB3dE6"
    assert(os.execute(("mkdir -m 700 %s"):format(folder)))
    local fd = listen(folder .. "/agents")
    age(folder)
    make()
    assert.is_true(there(folder .. "/agents"))
    ffi.C.close(fd)
  end)

  it("stays where it is not one of ours: a daemon's, others' to write to, with other things in it", function()
    local daemons, open, full, other = left("lupe-100000"), left("lupe-aB3dE5"), left("lupe-aB3dE6"), left("lupe-ab")
    support.write_file(daemons .. "/agents.lock", "")
    assert(os.execute("chmod 777 " .. open))
    support.write_file(full .. "/kept", "")
    for _, folder in ipairs({ daemons, open, full, other }) do age(folder) end
    make()
    assert.is_true(there(daemons .. "/agents"))
    assert.is_true(there(open .. "/agents"))
    assert.is_true(there(full .. "/kept"))
    assert.is_true(there(other .. "/agents"))
  end)
end)

describe("the folder of a socket whose path others know", function()
  after_each(support.cleanup)

  local function claim(folder, shared)
    local out, text = ffi.new("lupe_agents_socket"), ffi.new("char[512]")
    local status = tonumber(core.lupe_agents_socket_claim(out, folder .. "/agents", shared, text, 512))
    if status == 0 then core.lupe_agents_socket_release(out) end
    return status, ffi.string(text)
  end

  it("is made with its mode whatever the umask, and not where a link is", function()
    local base = support.temp_dir()
    local function mode(folder)
      return (support.run({ "stat", "-c", "%a", folder }).out:gsub("\n$", ""))
    end
    local before = ffi.C.umask(63) -- 077
    local first, second = claim(base .. "/shared", true), claim(base .. "/own", false)
    ffi.C.umask(before)
    assert.same({ 0, 0 }, { first, second })
    assert.same({ "755", "700" }, { mode(base .. "/shared"), mode(base .. "/own") })
    assert(os.execute(("ln -s %s/own %s/link"):format(base, base)))
    local status, text = claim(base .. "/link", true)
    assert.equal(8, status)
    assert.matches("is not a folder", text, 1, true)
    assert.equal("700", mode(base .. "/own"))
  end)

  local function shell(line, ...) assert.equal(0, os.execute(line:format(...))) end

  it("is refused where others could put another in the place of a folder around it", function()
    local base = support.temp_dir()
    shell("mkdir -p %s/open/between && chmod 777 %s/open", base, base)
    for _, name in ipairs({ "open/socket", "open/between/socket", "open/../open/socket" }) do
      local status, text = claim(base .. "/" .. name, false)
      assert.equal(8, status, name)
      assert.matches(base .. "/open has mode 0777: others could put a folder of their own in the place", text, 1, true)
      assert.matches("expected: chmod go-w " .. base .. "/open, or another path by --socket", text, 1, true)
    end
    assert.equal(8, (claim(base .. "/open/socket", true)))
    assert.equal("between\n", support.run({ "ls", "-A", base .. "/open" }).out)
    for _, mode in ipairs({ "775", "757" }) do
      shell("chmod %s %s/open", mode, base)
      assert.equal(8, (claim(base .. "/open/between/socket", false)), mode)
    end
    for _, mode in ipairs({ "1777", "755", "700" }) do
      shell("chmod %s %s/open", mode, base)
      assert.equal(0, (claim(base .. "/open/between/socket", false)), mode)
    end
  end)

  it("is refused where a link on the way lies among others' or leads through them", function()
    local base = support.temp_dir()
    shell("mkdir -p %s/mine %s/open/between %s/links && chmod 777 %s/open", base, base, base, base)
    shell("ln -s %s/mine %s/open/link; ln -s %s/open/link %s/links/past", base, base, base, base)
    shell("cd %s/links; ln -s ../open/between into; ln -s ../mine to; ln -s round round", base)
    for _, name in ipairs({ "open/link", "links/into", "links/past" }) do
      local status, text = claim(base .. "/" .. name .. "/socket", false)
      assert.equal(8, status, name)
      assert.matches(base .. "/open has mode 0777", text, 1, true)
    end
    assert.equal(0, (claim(base .. "/links/to/socket", false)))
    local status, text = claim(base .. "/links/round/socket", false)
    assert.equal(9, status)
    assert.matches("links/round: Too many levels of symbolic links", text, 1, true)
    status, text = claim(base .. "/nowhere/socket", false)
    assert.equal(9, status)
    assert.equal(base .. "/nowhere: No such file or directory", text)
  end)

  it("is refused where a folder around it, or a link on the way, is another user's", function()
    if ffi.C.geteuid() ~= 0 then return pending("needs root, who can give away what it has made") end
    local base = support.temp_dir()
    shell("mkdir -p %s/theirs/between %s/mine; ln -s mine %s/link", base, base, base)
    shell("chown 1 %s/theirs; chown -h 1 %s/link", base, base)
    for _, name in ipairs({ "theirs", "link" }) do
      for _, folder in ipairs({ name .. "/socket", name .. "/between/socket" }) do
        local status, text = claim(base .. "/" .. folder, false)
        assert.equal(8, status, folder)
        assert.matches(("%s/%s belongs to user 1,"):format(base, name), text, 1, true)
      end
    end
    assert.equal(0, (claim(base .. "/mine/socket", false)))
  end)
end)

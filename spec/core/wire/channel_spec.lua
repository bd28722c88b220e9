--- The control socket: whole messages, descriptors that never leak, peers that vanish without harm.
local ffi = require("ffi")
local support = require("spec.support")

ffi.cdef([[
typedef int pid_t;
typedef unsigned uid_t;
int open(const char *path, int flags, ...);
int pipe(int *ends);
int dup(int fd);
int getpid(void);
unsigned geteuid(void);
int socketpair(int domain, int type, int protocol, int *ends);
typedef struct { void *base; size_t bytes; } spec_part;
typedef struct {
  void *name; unsigned name_bytes; spec_part *parts; size_t part_count;
  void *control; size_t control_bytes; int flags;
} spec_datagram;
intptr_t sendmsg(int fd, const spec_datagram *m, int flags);
]])
support.declare("core/lupe.h")
support.declare("core/wire/message.h")
support.declare("core/wire/channel.h")
local C, core = ffi.C, support.core()

local OK, INVALID, AGAIN, CORRUPT, GONE, IN_USE = 0, 1, 4, 5, 7, 11

local function open_descriptors()
  local n = 0
  for fd = 0, 255 do
    local copy = C.dup(fd)
    if copy >= 0 then
      n = n + 1
      C.close(copy)
    end
  end
  return n
end

describe("the control channel", function()
  local folder, path, listener, agent, runtime

  before_each(function()
    folder = support.temp_dir()
    path = folder .. "/socket"
    local fd = ffi.new("int[1]")
    assert.are.equal(OK, tonumber(core.lupe_channel_listen(path, fd)))
    listener = fd[0]
    assert.are.equal(OK, tonumber(core.lupe_channel_connect(path, fd)))
    agent = fd[0]
    assert.are.equal(OK, tonumber(core.lupe_channel_accept(listener, fd)))
    runtime = fd[0]
  end)

  after_each(function()
    C.close(listener)
    C.close(agent)
    C.close(runtime)
    support.cleanup()
  end)

  local head, body, passed = ffi.new("lupe_message"), ffi.new("char[512]"), ffi.new("int[1]")
  local function receive(fd, capacity)
    return tonumber(core.lupe_channel_receive(fd, head, body, capacity or 512, passed))
  end
  local function send(fd, text, pass)
    return tonumber(core.lupe_channel_send(fd, 3, text, #text, pass or -1))
  end

  it("carries a message with its type and body, whole and in order", function()
    assert.are.equal(OK, send(agent, "first"))
    assert.are.equal(OK, send(agent, ""))
    assert.are.equal(OK, receive(runtime))
    assert.are.same({ 3, 5, "first", -1 }, { head.type, head.body_bytes, ffi.string(body, 5), passed[0] })
    assert.are.equal(OK, receive(runtime))
    assert.are.equal(0, head.body_bytes)
    assert.are.equal(AGAIN, receive(runtime))
  end)

  it("carries a descriptor", function()
    local file = support.write_file(folder .. "/file", "hello")
    local fd = C.open(file, 0)
    assert.are.equal(OK, send(agent, "x", fd))
    C.close(fd)
    assert.are.equal(OK, receive(runtime))
    assert.are.equal("hello", support.read_file("/proc/self/fd/" .. passed[0]))
    C.close(passed[0])
  end)

  it("closes a descriptor that nobody asked for or that came with a bad message", function()
    local fd = C.open("/dev/null", 0)
    local before = open_descriptors()
    send(agent, "x", fd)
    assert.are.equal(OK, tonumber(core.lupe_channel_receive(runtime, head, body, 512, nil)))
    send(agent, "too long for that", fd)
    assert.are.equal(CORRUPT, receive(runtime, 4))
    assert.are.equal(before, open_descriptors())
    C.close(fd)
  end)

  it("closes the surplus of many descriptors", function()
    local fd = C.open("/dev/null", 0)
    for _, count in ipairs({ 3, 9 }) do
      local before = open_descriptors()
      local message = ffi.new("lupe_message", { type = 3, body_bytes = 0 })
      local part = ffi.new("spec_part[1]", { { base = message, bytes = ffi.sizeof(message) } })
      local control = ffi.new("char[128]")
      ffi.cast("size_t *", control)[0] = 16 + 4 * count
      ffi.cast("int *", control)[2], ffi.cast("int *", control)[3] = 1, 1 -- SOL_SOCKET, SCM_RIGHTS
      for i = 0, count - 1 do ffi.cast("int *", control + 16)[i] = fd end
      local datagram = ffi.new("spec_datagram", {
        parts = part, part_count = 1, control = control, control_bytes = 16 + math.ceil(count / 2) * 8,
      })
      assert.are.equal(ffi.sizeof(message), tonumber(C.sendmsg(agent, datagram, 0x4000)))
      local status = receive(runtime)
      if status == OK then C.close(passed[0]) end
      assert.are.equal(count == 3 and OK or CORRUPT, status)
      assert.are.equal(before, open_descriptors())
    end
    C.close(fd)
  end)

  it("refuses a datagram whose length is not what its head says", function()
    for _, bytes in ipairs({ "\1", "\1\0\0\0\5\0\0\0abc", "\1\0\0\0\1\0\0\0abc", "\1\0\0\0\255\255\255\255" }) do
      C.send(agent, bytes, #bytes, 0x4000)
      assert.are.equal(CORRUPT, receive(runtime))
    end
    assert.are.equal(OK, send(agent, "fine"))
    assert.are.equal(OK, receive(runtime))
  end)

  it("refuses to send a body that the other side would refuse", function()
    assert.are.equal(INVALID, send(agent, ("x"):rep(513)))
    assert.are.equal(OK, send(agent, ("x"):rep(512)))
  end)

  it("tells that the peer is gone, both ways, without a signal", function()
    C.close(runtime)
    assert.are.equal(GONE, receive(agent))
    assert.are.equal(GONE, send(agent, "x"))
  end)

  it("delivers the last words of a peer that left without reading ours", function()
    send(runtime, "unread")
    send(agent, "profile")
    send(agent, "goodbye")
    C.close(agent)
    assert.are.equal(OK, receive(runtime))
    assert.are.equal("profile", ffi.string(body, 7))
    assert.are.equal(OK, receive(runtime))
    assert.are.equal("goodbye", ffi.string(body, 7))
    assert.are.equal(GONE, receive(runtime))
    assert.are.equal(GONE, receive(runtime))
  end)

  it("does not wait for a peer that does not read", function()
    local status
    for _ = 1, 100000 do
      status = send(agent, ("x"):rep(500))
      if status ~= OK then break end
    end
    assert.are.equal(AGAIN, status)
  end)

  it("knows who is at the other end", function()
    local pid, uid = ffi.new("pid_t[1]"), ffi.new("uid_t[1]")
    assert.are.equal(OK, tonumber(core.lupe_channel_peer(agent, pid, uid)))
    assert.are.same({ C.getpid(), C.geteuid() }, { pid[0], uid[0] })
  end)

  it("says what is wrong with a path", function()
    local fd = ffi.new("int[1]")
    assert.are.equal(IN_USE, tonumber(core.lupe_channel_listen(path, fd)))
    assert.are.equal(INVALID, tonumber(core.lupe_channel_listen("", fd)))
    assert.are.equal(INVALID, tonumber(core.lupe_channel_listen("/" .. ("x"):rep(200), fd)))
    assert.are.equal(GONE, tonumber(core.lupe_channel_connect(folder .. "/nobody", fd)))
    assert.are.equal(AGAIN, tonumber(core.lupe_channel_accept(listener, fd)))
  end)

  it("makes the socket file private", function()
    local p = support.run({ "stat", "-c", "%a", path })
    assert.are.equal("600\n", p.out)
  end)
end)

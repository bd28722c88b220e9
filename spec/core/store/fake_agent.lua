--- An agent as the runtime sees one, as far as leak proofs need it: connects, says HELLO, hears what it is asked,
-- answers. In the spec's own process, or as a process of its own (fake_agent.spawn).
local ffi = require("ffi")
local support = require("spec.support")

ffi.cdef("typedef int pid_t; typedef unsigned uid_t; pid_t getpid(void);")
support.declare("core/wire/ring.h")
support.declare("core/wire/channel.h")
local proofs = require("spec.support_proof")
local snapshots = require("spec.support_snapshot")
local core = support.core()

local HELLO, WELCOME, GOODBYE, MAPS, COMMANDED, PROVE, PROVED = 1, 2, 5, 6, 8, 9, 10
local BODIES = { [WELCOME] = "lupe_welcome", [PROVE] = "lupe_proof_request" }

local fake_agent = {}
fake_agent.__index = fake_agent

function fake_agent:send(kind, body, fd)
  local bytes = body and ffi.sizeof(body) or 0
  assert(tonumber(core.lupe_channel_send(self.fd, kind, body, bytes, fd or -1)) == 0, "send")
end

--- Connects, and says HELLO with `maps` (the text of /proc/PID/maps) behind it.
function fake_agent.connect(path, maps)
  local fd, segment = ffi.new("int[1]"), ffi.new("lupe_segment *[1]")
  assert(tonumber(core.lupe_channel_connect(path, fd)) == 0, "connect")
  local self = setmetatable({ fd = fd[0] }, fake_agent)
  assert(tonumber(core.lupe_segment_create(fd, segment)) == 0, "segment")
  local hello = ffi.new("lupe_hello", { version = ffi.C.LUPE_WIRE_VERSION, pid = ffi.C.getpid(), heap_state = 1 })
  self:send(HELLO, hello, fd[0])
  snapshots.close(fd[0])
  core.lupe_segment_unmap(segment[0])
  if maps then
    local text = snapshots.memfd(maps)
    self:send(MAPS, nil, text)
    snapshots.close(text)
  end
  return self
end

--- The next WELCOME or PROVE that is there: its kind and body; nil: there is none.
function fake_agent:heard()
  local head, body = ffi.new("lupe_message"), ffi.new("uint64_t[64]")
  while tonumber(core.lupe_channel_receive(self.fd, head, body, 512, nil)) == 0 do
    local ctype = BODIES[head.type]
    if ctype then
      local copy = ffi.new(ctype)
      ffi.copy(copy, body, ffi.sizeof(copy))
      return head.type == PROVE and "prove" or "welcome", copy
    end
  end
end

--- The next one of that kind; others are passed over.
function fake_agent:heard_of(wanted)
  while true do
    local kind, body = self:heard()
    if not kind or kind == wanted then return body end
  end
end

--- Answers a proof. `reply`: fields of lupe_proof_reply; `text`: the block, nil: none.
function fake_agent:prove(reply, text)
  local fd = text and proofs.sealed(text) or -1
  self:send(PROVED, ffi.new("lupe_proof_reply", reply), fd)
  if fd >= 0 then snapshots.close(fd) end
end

function fake_agent:answer_command(serial)
  self:send(COMMANDED, ffi.new("lupe_command_reply", { serial = serial }))
end

function fake_agent:say_goodbye() self:send(GOODBYE) end

function fake_agent:close()
  if self.fd then snapshots.close(self.fd) end
  self.fd = nil
end

--- What the core was built with must be there before an interpreter loads it.
local function sanitizers()
  local found, list = {}, {}
  for path in support.read_file("/proc/self/maps"):gmatch("(/%S*/lib[au]b?san%.so%S*)") do
    if not found[path] then list[#list + 1] = path end
    found[path] = true
  end
  table.sort(list) -- asan's must come first
  return list[1] and table.concat(list, ":")
end

--- A process that answers one PROVE with a complete proof of one lost object of `size` bytes, once the file `go` is
-- there, and lives until the other end closes.
function fake_agent.spawn(path, go, size)
  local code = ("require('spec.core.store.fake_agent').main(%q, %q, %d)"):format(path, go, size)
  local folders = support.root .. "/?.lua;" .. support.root .. "/lua/?.lua;;"
  return support.spawn({ "luajit", "-e", code }, {
    env = { LUA_PATH = folders, LUPE_BUILD = support.build_dir, LD_PRELOAD = sanitizers() },
  })
end

function fake_agent.main(path, go, size)
  local self = fake_agent.connect(path)
  local request = support.eventually(function() return self:heard_of("prove") end, 30, "a request")
  support.eventually(function() return support.read_file(go) end, 30, go)
  self:prove({ serial = request.serial, elapsed_ns = size }, proofs.block {
    stacks = { { 0x1000 } }, objects = { { size = size, state = "unreachable", group = 0, head = true } },
  })
  local head, body = ffi.new("lupe_message"), ffi.new("uint64_t[64]")
  support.eventually(function()
    return tonumber(core.lupe_channel_receive(self.fd, head, body, 512, nil)) == tonumber(core.LUPE_ENOENT)
  end, 30, "the end")
end

return fake_agent

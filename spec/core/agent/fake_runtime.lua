--- The runtime's end of the wire, as small as the agent's specs need it: listens, takes HELLOs, asks for
-- profiles, reads the ring. Programs are started under the agent by `spawn`.
local ffi = require("ffi")
local support = require("spec.support")

ffi.cdef([[
typedef int pid_t;
typedef unsigned uid_t;
intptr_t pread(int fd, void *bytes, size_t count, long offset);
void *mmap(void *at, size_t bytes, int protection, int flags, int fd, long offset);
int munmap(void *at, size_t bytes);
int chmod(const char *path, unsigned mode);
]])
support.declare("core/lupe.h")
support.declare("core/wire/message.h")
support.declare("core/wire/proof.h")
support.declare("core/wire/record.h")
support.declare("core/wire/ring.h")
support.declare("core/wire/channel.h")
support.declare("core/wire/marks.h")

local OK, AGAIN, GONE = 0, 4, 7 -- LUPE_OK, LUPE_EAGAIN, LUPE_ENOENT
local core = support.core()

local connection = {}
connection.__index = connection
local fake_runtime = {}
fake_runtime.__index = fake_runtime

fake_runtime.state = { on = 0, no_jemalloc = 1, no_profiling = 2, prof_disabled = 3, no_hook = 4, switched_off = 5 }
fake_runtime.sampling = { off = 0, on = 1, foreign = 2, refused = 3, unreadable = 4, unsupported = 5 }
fake_runtime.jemalloc = "libjemalloc.so.2"

--- Listens in a directory of its own, in which it also meets programs: `here` is a file that they make at the command
-- `tell`, `go` one that they wait for at `wait`.
function fake_runtime.new()
  local self = setmetatable({ folder = support.temp_dir(), connections = {}, silent = {} }, fake_runtime)
  self.path, self.here, self.go = self.folder .. "/socket", self.folder .. "/here", self.folder .. "/go"
  self.tell, self.wait = "tell=" .. self.here, "wait=" .. self.go
  local fd = ffi.new("int[1]")
  assert(core.lupe_channel_listen(self.path, fd) == OK, "listen")
  self.fd = fd[0]
  return self
end

--- Waits until a program has made a file (nil: `here`).
function fake_runtime:reached(path)
  support.eventually(function() return support.read_file(path or self.here) end, 20, "the host to get there")
end

--- Lets a program go on that waits for a file (nil: `go`).
function fake_runtime:release(path) support.write_file(path or self.go, "") end

--- Lets another program meet us at the same files.
function fake_runtime:meet_again()
  os.remove(self.here)
  os.remove(self.go)
end

--- Where a program without rights can meet us; the runtime's own directory is private.
function fake_runtime.open_directory()
  local path = support.temp_dir()
  ffi.C.chmod(path, 511) -- 0777
  return path
end

--- What to put into a program's environment.
-- @tparam[opt] table options `jemalloc` (false: none), `conf` (MALLOC_CONF), `env` (added)
function fake_runtime:environment(options)
  options = options or {}
  local agent = support.built("liblupe-agent.so")
  local env = {
    LUPE_SOCKET = self.path,
    LD_PRELOAD = options.jemalloc == false and agent or (fake_runtime.jemalloc .. ":" .. agent),
    MALLOC_CONF = options.conf or "prof:true,prof_active:false,lg_prof_sample:12",
  }
  for name, value in pairs(options.env or {}) do env[name] = value end
  return env
end

function fake_runtime:spawn(argv, options)
  return support.spawn(argv, { env = self:environment(options) })
end

--- agent_host under the agent.
function fake_runtime:host(commands, options)
  local argv = { support.fixture("agent_host") }
  for _, command in ipairs(commands) do argv[#argv + 1] = command end
  return self:spawn(argv, options)
end

--- The next connection, whether or not it says anything.
function fake_runtime:accept(seconds)
  local fd = ffi.new("int[1]")
  support.eventually(function() return core.lupe_channel_accept(self.fd, fd) == OK end, seconds, "a connection")
  local c = setmetatable({ fd = fd[0], samples = {} }, connection)
  self.connections[#self.connections + 1] = c
  return c
end

--- A connection that has said HELLO, if there is a new one; those that go without a word are passed over.
function fake_runtime:try_hello()
  local fd = ffi.new("int[1]")
  while core.lupe_channel_accept(self.fd, fd) == OK do
    local c = setmetatable({ fd = fd[0], samples = {} }, connection)
    self.connections[#self.connections + 1] = c
    self.silent[#self.silent + 1] = c
  end
  local silent, found = {}, nil
  for _, c in ipairs(self.silent) do -- oldest first
    local name = not found and c:try()
    if name == "hello" then
      found = c
    elseif not name then
      silent[#silent + 1] = c
    end
  end
  self.silent = silent
  return found
end

--- Waits for the next HELLO.
function fake_runtime:hello(seconds)
  return support.eventually(function() return self:try_hello() end, seconds, "a HELLO")
end

--- The end of a spec: that of its programs, too.
function fake_runtime:close()
  if self.fd then ffi.C.close(self.fd) end
  self.fd = nil
  for _, c in ipairs(self.connections) do c:close() end
  self.connections = {}
  support.cleanup()
end

--- What a descriptor shows from its beginning on.
function fake_runtime.read_whole(fd)
  local parts, at, buffer = {}, 0, ffi.new("char[65536]")
  while true do
    local n = tonumber(ffi.C.pread(fd, buffer, 65536, at))
    if n <= 0 then return table.concat(parts) end
    parts[#parts + 1] = ffi.string(buffer, n)
    at = at + n
  end
end

local names = {
  "hello", "welcome", "profile", "profiled", "goodbye", "maps", "command", "commanded", "prove", "proved", "marks",
}

--- Takes one message if there is one: its name, its body (cdata, false), its descriptor. "gone" at the end.
function connection:try()
  if not self.fd then return "gone" end
  local head, body, fd = ffi.new("lupe_message"), ffi.new("uint64_t[64]"), ffi.new("int[1]")
  local status = core.lupe_channel_receive(self.fd, head, body, 512, fd)
  if status == AGAIN then return nil end
  if status == GONE then return "gone" end
  assert(status == OK, "receive: status " .. tonumber(status))
  local name = names[head.type]
  if name == "hello" then
    assert(head.body_bytes == ffi.sizeof("lupe_hello"))
    self.hello = ffi.new("lupe_hello")
    ffi.copy(self.hello, body, ffi.sizeof(self.hello))
    local reader = ffi.new("lupe_ring_reader *[1]")
    assert(fd[0] >= 0, "HELLO came without a segment")
    local made = core.lupe_ring_reader_create(reader, fd[0])
    ffi.C.close(fd[0])
    assert(made == OK, "reader: status " .. tonumber(made))
    self.reader = reader[0]
    return name, self.hello
  elseif name == "profiled" then
    local reply = ffi.new("lupe_profile_reply")
    ffi.copy(reply, body, ffi.sizeof(reply))
    local text
    if fd[0] >= 0 then
      text = support.read_file("/proc/self/fd/" .. fd[0])
      ffi.C.close(fd[0])
    end
    return name, reply, text
  elseif name == "proved" then
    local reply = ffi.new("lupe_proof_reply")
    ffi.copy(reply, body, ffi.sizeof(reply))
    local bytes
    if fd[0] >= 0 then
      bytes = fake_runtime.read_whole(fd[0])
      ffi.C.close(fd[0])
    end
    return name, reply, bytes
  elseif name == "commanded" then
    local reply = ffi.new("lupe_command_reply")
    ffi.copy(reply, body, ffi.sizeof(reply))
    return name, reply
  elseif name == "maps" then
    local text = fake_runtime.read_whole(fd[0])
    ffi.C.close(fd[0])
    if text ~= "" then self.maps = text end -- else the process has ended
    return name
  elseif name == "marks" then
    self:set_marks(fd[0])
    return name
  end
  return name
end

-- Takes over the descriptor of a segment of marks.h.
function connection:set_marks(fd)
  assert(fd >= 0, "MARKS came without a segment")
  local bytes = ffi.sizeof("lupe_marks")
  local at = ffi.C.mmap(nil, bytes, 3, 1, fd, 0) -- PROT_READ | PROT_WRITE, MAP_SHARED
  ffi.C.close(fd)
  assert(tonumber(ffi.cast("intptr_t", at)) ~= -1, "the segment of marks cannot be mapped")
  self.marks = ffi.gc(ffi.cast("lupe_marks *", at), function(marks) ffi.C.munmap(marks, bytes) end)
end

--- The next message, which must be of that name; maps and marks come unasked and are passed over.
function connection:expect(wanted, seconds)
  local body, extra
  support.eventually(function()
    local name
    name, body, extra = self:try()
    if (name == "maps" or name == "marks") and wanted ~= name then return nil end
    if name and name ~= wanted then error("expected " .. wanted .. ", got " .. name, 0) end
    return name
  end, seconds, "message " .. wanted)
  return body, extra
end

function connection:say(type, body)
  return tonumber(core.lupe_channel_send(self.fd, type, body, body and ffi.sizeof(body) or 0, -1))
end

local function proof_limits(given)
  local limits = {
    interval_ms = 50, max_ms = 50000, max_heap_bytes = 2 ^ 40, max_table_bytes = 2 ^ 30, min_free_bytes = 0,
    min_free_share = 0,
  }
  for name, value in pairs(given or {}) do limits[name] = value end
  return limits
end

function connection:welcome(options)
  options = options or {}
  return self:say(2, ffi.new("lupe_welcome", {
    version = options.version or ffi.C.LUPE_WIRE_VERSION, enabled = options.enabled == false and 0 or 1,
    figures_interval_ms = options.figures_interval_ms or 50,
    cpu_hz = options.cpu_hz or 0, wall_hz = options.wall_hz or 0,
    proof_at_exit = options.proof_at_exit and 1 or 0, proof = proof_limits(options.proof_at_exit),
  }))
end

--- A heap profile: its text and the reply.
function connection:profile(serial)
  assert(self:say(3, ffi.new("lupe_profile_request", { serial = serial or 1 })) == OK)
  local reply, text = self:expect("profiled")
  return text, reply
end

local commands = { sampling = 1, purge = 2, decay = 3 }

--- Has a command carried out; what does not fit a name is sent as it is. Returns the reply.
function connection:command(kind, fields)
  local command = ffi.new("lupe_agent_command", fields or {})
  command.serial, command.kind = self.commanded or 1, commands[kind] or kind
  self.commanded = (self.commanded or 1) + 1
  assert(self:say(7, command) == OK)
  local reply = self:expect("commanded")
  assert(reply.serial == command.serial, "the reply to another command")
  return reply
end

local kinds = { [2] = "heap", [3] = "cpu", [4] = "wall" }

--- Asks for a leak proof. False: there is nobody any more.
function connection:prove(limits, serial)
  return self:say(9, ffi.new("lupe_proof_request", { serial = serial or 1, limits = proof_limits(limits) })) == OK
end

--- The answer to that: the reply, and where it is complete its block: { head, objects (from 1), stacks (arrays of
-- addresses, by the objects' `stack`) }.
function connection:proved(seconds)
  local reply, bytes = self:expect("proved", seconds or 30)
  if not bytes then return reply end
  local head = ffi.new("lupe_proof_head")
  ffi.copy(head, bytes, ffi.sizeof(head))
  local at, objects = ffi.sizeof(head), {}
  for i = 1, head.object_count do
    objects[i] = ffi.new("lupe_proof_object")
    ffi.copy(objects[i], bytes:sub(at + 1, at + ffi.sizeof(objects[i])), ffi.sizeof(objects[i]))
    at = at + ffi.sizeof(objects[i])
  end
  local pcs, first = ffi.new("uint64_t[?]", head.pc_count), ffi.new("uint32_t[?]", head.stack_count + 1)
  ffi.copy(pcs, bytes:sub(at + 1), 8 * head.pc_count)
  at = at + 8 * head.pc_count
  assert(at + 4 * (head.stack_count + 1) == #bytes, "a block of another length than its head says")
  ffi.copy(first, bytes:sub(at + 1), 4 * (head.stack_count + 1))
  local stacks = {}
  for s = 0, head.stack_count - 1 do
    stacks[s] = {}
    for i = first[s], first[s + 1] - 1 do table.insert(stacks[s], pcs[i]) end
  end
  return reply, { head = head, objects = objects, stacks = stacks }
end

--- Empties the ring. Returns all samples so far: { kind, depth, flags, tid, weight, state, frames = {...} }.
function connection:drain()
  local copy = ffi.new("lupe_record_copy")
  while true do
    local status = core.lupe_ring_reader_pop(self.reader, copy)
    if status == AGAIN then return self.samples end
    assert(status == OK, "pop: status " .. tonumber(status))
    local frames = {}
    for i = 0, copy.depth - 1 do frames[i + 1] = copy.frames[i] end
    self.samples[#self.samples + 1] = {
      kind = kinds[copy.kind], state = copy.state,
      period_ns = copy.period_ns, depth = copy.depth, flags = copy.flags, tid = copy.tid, weight = copy.weight,
      time_ns = copy.time_ns,
      frames = frames,
    }
  end
end

function connection:counter(name) return tonumber(core.lupe_ring_reader_counters(self.reader)[name]) end

--- The newest figures (cdata), or nil while there are none.
function connection:figures()
  local figures = ffi.new("lupe_allocator_figures")
  if core.lupe_ring_reader_figures(self.reader, figures) == OK then return figures end
end

function connection:gone(seconds)
  support.eventually(function()
    local name = self:try()
    return name == "gone"
  end, seconds, "the agent to leave")
end

function connection:close()
  if self.fd then ffi.C.close(self.fd) end
  self.fd = nil
  if self.reader then core.lupe_ring_reader_free(self.reader) end
  self.reader = nil
end

--- Sums of a heap_v2 text: objects, bytes, stacks (a list of { objects, bytes, frames }).
function fake_runtime.parse(text)
  assert(text:match("^heap_v2/%d+\n"), "not a heap profile: " .. text:sub(1, 40))
  local sum = { objects = 0, bytes = 0, stacks = {} }
  for addresses, objects, bytes in text:gmatch("@ ([^\n]*)\n%s+t%*: (%d+): (%d+) ") do
    local frames = {}
    for address in addresses:gmatch("0x(%x+)") do frames[#frames + 1] = address end
    objects, bytes = tonumber(objects), tonumber(bytes)
    sum.objects, sum.bytes = sum.objects + objects, sum.bytes + bytes
    sum.stacks[#sum.stacks + 1] = { objects = objects, bytes = bytes, frames = frames }
  end
  return sum
end

return fake_runtime

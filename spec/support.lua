--- What the specs share: the build under test, processes, files, ports, HTTP.
-- Everything that waits takes a deadline in seconds and fails loudly when it passes.
-- Whatever a spec starts or creates through this file is ended and removed by `support.cleanup()`:
-- call it from `after_each` (or `teardown`).
local ffi = require("ffi")
local bit = require("bit")

ffi.cdef([[
typedef struct { long tv_sec, tv_nsec; } spec_timespec;
typedef struct { uint16_t family, port; uint8_t address[4]; uint8_t zero[8]; } spec_sockaddr;
typedef union { char bytes[512]; uint64_t aligned; } spec_opaque;
int clock_gettime(int clock, spec_timespec *now);
int nanosleep(const spec_timespec *wanted, spec_timespec *left);
int posix_spawnp(int *pid, const char *file, const spec_opaque *actions, const spec_opaque *attributes,
                 const char *const argv[], const char *const envp[]);
int posix_spawn_file_actions_init(spec_opaque *actions);
int posix_spawn_file_actions_destroy(spec_opaque *actions);
int posix_spawn_file_actions_addopen(spec_opaque *actions, int fd, const char *path, int flags,
                                     unsigned mode);
int posix_spawn_file_actions_addchdir_np(spec_opaque *actions, const char *path);
int posix_spawnattr_init(spec_opaque *attributes);
int posix_spawnattr_destroy(spec_opaque *attributes);
int posix_spawnattr_setflags(spec_opaque *attributes, short flags);
int posix_spawnattr_setsigmask(spec_opaque *attributes, const void *mask);
int sigemptyset(void *set);
int waitpid(int pid, int *status, int options);
int kill(int pid, int signal);
char *mkdtemp(char *template);
int socket(int domain, int type, int protocol);
int bind(int fd, const spec_sockaddr *address, unsigned bytes);
int connect(int fd, const spec_sockaddr *address, unsigned bytes);
int getsockname(int fd, spec_sockaddr *address, unsigned *bytes);
int setsockopt(int fd, int level, int option, const void *value, unsigned bytes);
intptr_t send(int fd, const void *bytes, size_t count, int flags);
intptr_t recv(int fd, void *bytes, size_t count, int flags);
uint16_t htons(uint16_t value);
int close(int fd);
char *strerror(int error);
char *getcwd(char *buffer, size_t bytes);
void *dlopen(const char *path, int flags);
int unsetenv(const char *name);
extern char **environ;
]])

local C = ffi.C
local support = {}

-- LD_PRELOAD is how a sanitizer came into this interpreter; it is in now, and never meant for children
-- (curl hangs with it).
C.unsetenv("LD_PRELOAD")

local function absolute(path)
  if path:match("^/") then return path end
  local buffer = ffi.new("char[4096]")
  assert(C.getcwd(buffer, 4096) ~= nil, "getcwd")
  return ffi.string(buffer) .. "/" .. path
end

--- Root of the sources, and the build folder under test (environment LUPE_BUILD, else `build`).
support.root = absolute(debug.getinfo(1, "S").source:match("^@(.*)/spec/support%.lua$") or "."):gsub("/%.$", "")
support.build_dir = absolute(os.getenv("LUPE_BUILD") or (support.root .. "/build"))
support.sanitized = os.getenv("LUPE_SANITIZED") == "1" -- true where C runs under asan: slower, larger
package.path = support.root .. "/lua/?.lua;" .. support.root .. "/?.lua;" .. package.path

local function last_error() return ffi.string(C.strerror(ffi.errno())) end

local function quote(word) return "'" .. tostring(word):gsub("'", "'\\''") .. "'" end

--- A file of the build folder; a missing one is an error that says how to get it.
-- @string name such as "lupe", "liblupe-agent.so", "spec/storm"
function support.built(name)
  local path = support.build_dir .. "/" .. name
  local file = io.open(path, "rb")
  if not file then error(path .. " is not built: run ./dev build (or ./dev test)", 2) end
  file:close()
  return path
end

--- A C program of spec/fixtures, built by the target spec-fixtures.
function support.fixture(name) return support.built("spec/" .. name) end

local core
--- liblupe-core.so, loaded once. Declare what is called with `ffi.cdef` or `support.declare`.
function support.core()
  if not core then
    local path = support.built("liblupe-core.so")
    C.dlopen(path, 0x1002) -- RTLD_NOW|RTLD_NODELETE: a leak checker at exit still finds its symbols
    core = ffi.load(path)
  end
  return core
end

local declared = {}
--- Gives LuaJIT the declarations of one of our headers, so that a spec cannot drift from it.
-- The preprocessor runs over the header; only what our own files declare is kept, each file once. Who needs lupe.ffi
-- too loads it first.
-- `_Atomic` is dropped (same size and place for every type we use), `_Alignas` becomes an attribute.
-- @string header such as "core/store/stack_table.h"
function support.declare(header)
  local command = "cd " .. quote(support.root) .. " && cc -E -I. $(pkg-config --cflags luajit) " .. quote(header)
  local pipe = assert(io.popen(command, "r"))
  if package.loaded["lupe.ffi"] then declared["core/store/snapshot_layout.h"] = true end -- that hands it to LuaJIT too
  local kept, file, fresh = {}, nil, {}
  for line in pipe:lines() do
    local marker = line:match('^# %d+ "([^"]*)"')
    if marker then
      file = marker:gsub("^%./", "")
      if file:match("^core/") and declared[file] == nil then
        declared[file], fresh[file] = true, true
      end
    elseif fresh[file] then
      kept[#kept + 1] = line
    end
  end
  local fine = pipe:close()
  if not fine then error(header .. ": the preprocessor failed", 2) end
  local text = table.concat(kept, "\n")
  text = text:gsub("_Atomic%s+", ""):gsub("_Alignas(%b())", "__attribute__((aligned%1))")
  text = text:gsub("_Static_assert%s*%b();", ""):gsub("static inline[^{;]*%b{}", "")
  ffi.cdef(text)
end

--- Seconds on the monotonic clock.
function support.now()
  local t = ffi.new("spec_timespec")
  C.clock_gettime(1, t)
  return tonumber(t.tv_sec) + tonumber(t.tv_nsec) / 1e9
end

function support.sleep(seconds)
  local t = ffi.new("spec_timespec", math.floor(seconds), (seconds % 1) * 1e9)
  C.nanosleep(t, nil)
end

--- Calls `check` until it returns something true, and returns that; an error past the deadline.
-- @param seconds deadline
-- @string what said in the error
function support.eventually(check, seconds, what)
  local deadline, pause = support.now() + (seconds or 10), 0.001
  while true do
    local result, detail = check()
    if result then return result, detail end
    if support.now() > deadline then
      error(("not within %g s: %s%s"):format(seconds or 10, what or "the condition",
        detail and (" (" .. tostring(detail) .. ")") or ""), 2)
    end
    support.sleep(pause)
    pause = math.min(pause * 1.5, 0.05)
  end
end

--- The whole file, or nil and the reason.
function support.read_file(path)
  local file, reason = io.open(path, "rb")
  if not file then return nil, reason end
  local text = file:read("*a")
  file:close()
  return text
end

function support.write_file(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
  return path
end

--- pids of a process's children, by the lists of its threads.
function support.children(pid)
  local pipe = assert(io.popen(("cat /proc/%d/task/*/children 2>/dev/null"):format(pid)))
  local list = {}
  for word in pipe:read("*a"):gmatch("%d+") do list[#list + 1] = tonumber(word) end
  pipe:close()
  return list
end

--- A worker process of the runtime in this process, and its keeper (core/spawn.h); nil: it has none.
function support.worker_of(pid)
  for _, child in ipairs(support.children(pid)) do
    if support.read_file(("/proc/%d/comm"):format(child)) == "lupe-keeper\n" then
      return support.children(child)[1], child
    end
  end
end

local directories = {}
--- A fresh private directory, removed by `cleanup`.
function support.temp_dir()
  local base = os.getenv("TMPDIR") or "/tmp"
  local template = base .. "/lupe-spec-XXXXXX"
  local buffer = ffi.new("char[?]", #template + 1, template)
  if C.mkdtemp(buffer) == nil then error("mkdtemp " .. template .. ": " .. last_error(), 2) end
  local path = ffi.string(buffer)
  directories[#directories + 1] = path
  return path
end

--- A TCP port of the loopback that nothing listens on now.
function support.free_port()
  local fd = C.socket(2, 1, 0)
  assert(fd >= 0, "socket: " .. last_error())
  local address = ffi.new("spec_sockaddr", { family = 2, address = { 127, 0, 0, 1 } })
  local bytes = ffi.new("unsigned[1]", ffi.sizeof(address))
  assert(C.bind(fd, address, bytes[0]) == 0, "bind: " .. last_error())
  assert(C.getsockname(fd, address, bytes) == 0, "getsockname: " .. last_error())
  C.close(fd)
  return C.htons(address.port)
end

-- Processes ---------------------------------------------------------------------------------

local process = {}
process.__index = process
local processes = {}

local function words(list)
  local array = ffi.new("const char *[?]", #list + 1)
  for i, word in ipairs(list) do array[i - 1] = word end
  return array -- points into the strings of `list`: keep that alive beside it
end

local function environment(changes)
  local set, list = {}, {}
  for name, value in pairs(changes or {}) do set[name] = value end
  local i = 0
  while C.environ[i] ~= nil do
    local entry = ffi.string(C.environ[i])
    if set[entry:match("^[^=]*")] == nil then list[#list + 1] = entry end
    i = i + 1
  end
  for name, value in pairs(set) do
    if value then list[#list + 1] = name .. "=" .. tostring(value) end
  end
  return list
end

--- Starts a program; its stdout and stderr go to files (`process:stdout()`, `process:stderr()`).
-- @tparam {string,...} argv looked up in PATH
-- @tparam[opt] table options `env` (name -> value, false removes), `cwd`, `stdin` (a path),
--   `stdout`, `stderr` (paths)
function support.spawn(argv, options)
  options = options or {}
  local folder = (not options.stdout or not options.stderr) and support.temp_dir()
  local self = setmetatable({
    argv = argv,
    stdout_path = options.stdout or (folder .. "/stdout"),
    stderr_path = options.stderr or (folder .. "/stderr"),
  }, process)
  local actions, attributes = ffi.new("spec_opaque"), ffi.new("spec_opaque")
  local pid, mask = ffi.new("int[1]"), ffi.new("spec_opaque")
  C.posix_spawn_file_actions_init(actions)
  C.posix_spawnattr_init(attributes)
  C.sigemptyset(mask)
  C.posix_spawnattr_setsigmask(attributes, mask)
  C.posix_spawnattr_setflags(attributes, 0x08) -- POSIX_SPAWN_SETSIGMASK
  local create = bit.bor(0x1, 0x40, 0x200) -- O_WRONLY|O_CREAT|O_TRUNC
  C.posix_spawn_file_actions_addopen(actions, 0, options.stdin or "/dev/null", 0, 0)
  C.posix_spawn_file_actions_addopen(actions, 1, self.stdout_path, create, 0x180) -- 0600
  C.posix_spawn_file_actions_addopen(actions, 2, self.stderr_path, create, 0x180)
  if options.cwd then C.posix_spawn_file_actions_addchdir_np(actions, options.cwd) end
  local env = environment(options.env)
  local strings = {}
  for i, word in ipairs(argv) do strings[i] = tostring(word) end
  local failed = C.posix_spawnp(pid, strings[1], actions, attributes, words(strings), words(env))
  C.posix_spawn_file_actions_destroy(actions)
  C.posix_spawnattr_destroy(attributes)
  if failed ~= 0 then error(strings[1] .. ": " .. ffi.string(C.strerror(failed)), 2) end
  self.pid = pid[0]
  processes[#processes + 1] = self
  return self
end

--- True while it has not ended. Reaps it otherwise: then `code` or `signal` is set.
function process:alive()
  if self.ended then return false end
  local status = ffi.new("int[1]")
  local got = C.waitpid(self.pid, status, 1) -- WNOHANG
  if got == 0 then return true end
  self.ended = true
  if got == self.pid then
    local low = bit.band(status[0], 0x7f)
    if low == 0 then
      self.code = bit.band(bit.rshift(status[0], 8), 0xff)
    else
      self.signal = low
    end
  end
  return false
end

--- Waits for the end. Returns code, signal: one of them is nil. Past the deadline it is an error.
function process:wait(seconds)
  support.eventually(function() return not self:alive() end, seconds or 30,
    ("%s (pid %d) to end; stderr: %s"):format(self.argv[1], self.pid, self:stderr():sub(-2000)))
  return self.code, self.signal
end

--- Sends a signal (15 where none is given).
function process:kill(signal)
  if self:alive() then C.kill(self.pid, signal or 15) end
end

function process:stdout() return support.read_file(self.stdout_path) or "" end

function process:stderr() return support.read_file(self.stderr_path) or "" end

--- Spawns, waits (`options.seconds`, 30) and returns the ended process with `out` and `err` read.
function support.run(argv, options)
  local self = support.spawn(argv, options)
  self:wait(options and options.seconds or 30)
  self.out, self.err = self:stdout(), self:stderr()
  return self
end

-- What a sanitizer said of a process that the spec did not look at.
local function complaint_of(p)
  local text = support.sanitized and p:stderr() or ""
  local from = text:find("ERROR: %a+Sanitizer") or text:find("runtime error:", 1, true)
  return from and ("%s (pid %d): %s"):format(p.argv[1], p.pid, text:sub(from, from + 4000))
end

--- Ends what was spawned (by its pid, and only that) and removes temporary directories. An error where a sanitizer
-- had something to say of one of them.
function support.cleanup()
  local complaint
  for _, p in ipairs(processes) do
    if p:alive() then
      C.kill(p.pid, 15)
      local gone = pcall(support.eventually, function() return not p:alive() end, 3)
      if not gone then
        C.kill(p.pid, 9)
        support.eventually(function() return not p:alive() end, 10, "pid " .. p.pid .. " to die of SIGKILL")
      end
    end
    complaint = complaint or complaint_of(p)
  end
  processes = {}
  for _, path in ipairs(directories) do os.execute("rm -rf " .. quote(path)) end
  directories = {}
  if complaint then error(complaint, 0) end
end

-- HTTP --------------------------------------------------------------------------------------

local function dechunk(text)
  local parts, at = {}, 1
  while true do
    local from, to, size = text:find("^(%x+)[^\r\n]*\r\n", at)
    if not from then return nil, "a broken chunk" end
    local bytes = tonumber(size, 16)
    if bytes == 0 then return table.concat(parts) end
    parts[#parts + 1] = text:sub(to + 1, to + bytes)
    at = to + bytes + 3
  end
end

--- Sends bytes to a port of the loopback, returns all that comes back until the peer closes.
-- nil and the reason where it can't connect or nothing comes in time.
function support.exchange(port, bytes, seconds)
  local fd = C.socket(2, 1, 0)
  if fd < 0 then return nil, "socket: " .. last_error() end
  local timeout = ffi.new("spec_timespec", math.floor(seconds or 10), ((seconds or 10) % 1) * 1e6) -- a timeval
  C.setsockopt(fd, 1, 20, timeout, ffi.sizeof(timeout)) -- SO_RCVTIMEO
  C.setsockopt(fd, 1, 21, timeout, ffi.sizeof(timeout)) -- SO_SNDTIMEO
  local address = ffi.new("spec_sockaddr", { family = 2, port = C.htons(port), address = { 127, 0, 0, 1 } })
  local function fail(what)
    local reason = what .. ": " .. last_error()
    C.close(fd)
    return nil, reason
  end
  if C.connect(fd, address, ffi.sizeof(address)) ~= 0 then return fail("connect") end
  local sent = 0
  while sent < #bytes do
    local from = ffi.cast("const char *", bytes) + sent
    local n = tonumber(C.send(fd, from, #bytes - sent, 0x4000)) -- MSG_NOSIGNAL
    if n < 0 then break end -- an early answer may be there all the same
    sent = sent + n
  end
  local buffer, parts = ffi.new("char[65536]"), {}
  while true do
    local n = tonumber(C.recv(fd, buffer, 65536, 0))
    if n == 0 then break end
    if n < 0 then
      if #parts > 0 then break end
      return fail("recv")
    end
    parts[#parts + 1] = ffi.string(buffer, n)
  end
  C.close(fd)
  return table.concat(parts)
end

--- One HTTP request to 127.0.0.1. Returns { status, headers (lower case), body, json() }, or nil, reason.
-- @tparam number port
-- @string path with the query
-- @tparam[opt] table options `method`, `headers`, `body`, `seconds`
function support.http(port, path, options)
  options = options or {}
  local lines = {
    ("%s %s HTTP/1.1"):format(options.method or (options.body and "POST" or "GET"), path), "Connection: close",
  }
  local headers = { Host = "127.0.0.1:" .. port }
  if options.body then
    headers["Content-Length"] = #options.body
    headers["Content-Type"] = "application/json"
  end
  for name, value in pairs(options.headers or {}) do headers[name] = value or nil end
  for name, value in pairs(headers) do lines[#lines + 1] = name .. ": " .. tostring(value) end
  local request = table.concat(lines, "\r\n") .. "\r\n\r\n" .. (options.body or "")
  local text, reason = support.exchange(port, request, options.seconds)
  if not text then return nil, reason end
  local head, body = text:match("^(.-\r\n)\r\n(.*)$")
  local status = head and head:match("^HTTP/1%.[01] (%d%d%d)")
  if not status then return nil, "not an HTTP answer: " .. text:sub(1, 200) end
  local answer = { status = tonumber(status), headers = {}, body = body }
  for name, value in head:gmatch("\r\n([^:\r\n]+):[ \t]*([^\r\n]*)") do answer.headers[name:lower()] = value end
  if (answer.headers["transfer-encoding"] or ""):lower() == "chunked" then
    answer.body, reason = dechunk(body)
    if not answer.body then return nil, reason end
  end
  function answer.json() return support.json.decode(answer.body) end
  return answer
end

support.json = require("cjson")

return support

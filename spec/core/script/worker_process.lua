--- Drives lupe_worker from a spec: a uv loop run by hand, replies as tables.
local ffi = require("ffi")
local support = require("spec.support")

ffi.cdef([[
typedef struct uv_loop_s uv_loop_t;
int uv_loop_init(struct uv_loop_s *loop);
int uv_run(struct uv_loop_s *loop, int mode);
int uv_loop_close(struct uv_loop_s *loop);
size_t uv_loop_size(void);
int memfd_create(const char *name, unsigned flags);
intptr_t write(int fd, const void *bytes, size_t count);
int open(const char *path, int flags, ...);
]])
support.declare("core/script/worker.h")

local worker_process = {}
worker_process.__index = worker_process

local OUTCOMES = { [0] = "replied", "deadline", "starved", "died", "closed", "unavailable" }

local function argv_of(words)
  local array = ffi.new("const char *[?]", #words + 1)
  for i, word in ipairs(words) do array[i - 1] = word end
  return array
end

--- @tparam[opt] table argv default: the fixture with the project's Lua
function worker_process.start(argv)
  local core = support.core()
  local self = setmetatable({ core = core, owner = ffi.new("char[?]", tonumber(core.uv_loop_size())) }, worker_process)
  self.loop = ffi.cast("struct uv_loop_s *", self.owner)
  assert(core.uv_loop_init(self.loop) == 0)
  local out = ffi.new("lupe_worker *[1]")
  local words = argv or { support.fixture("rules_worker"), support.root .. "/lua" }
  assert(core.lupe_worker_create(out, self.loop, argv_of(words)) == 0)
  self.handle = out[0]
  self.answers = {}
  self.callback = ffi.cast("lupe_worker_callback", function(arg, outcome, text, bytes)
    local id = tonumber(ffi.cast("intptr_t", arg))
    self.answers[id] = { outcome = OUTCOMES[tonumber(outcome)], text = ffi.string(text, bytes) }
  end)
  self.calls = 0
  return self
end

--- Queues one; returns the number under which its answer will be in `answers`.
function worker_process:send(request, fd, deadline_ms)
  if type(request) == "table" then request = support.json.encode(request) end
  self.calls = self.calls + 1
  local status = self.core.lupe_worker_call(self.handle, request, #request, fd or -1, deadline_ms or 500,
    self.callback, ffi.cast("void *", self.calls))
  if status ~= 0 then return nil, tonumber(status) end
  return self.calls
end

local function run(self) self.core.uv_run(self.loop, 2) end -- UV_RUN_NOWAIT
jit.off(run)

--- The loop, once.
function worker_process:turn() run(self) end

function worker_process:wait(id, seconds)
  return support.eventually(function()
    run(self)
    return self.answers[id]
  end, seconds or 60, "an answer of the worker")
end

--- One call: the outcome and, where it replied with JSON, the reply as a table.
function worker_process:call(request, fd, deadline_ms)
  local answer = self:wait(assert(self:send(request, fd, deadline_ms)))
  if answer.outcome ~= "replied" then return answer.outcome, answer.text end
  return answer.outcome, support.json.decode(answer.text)
end

--- Closes it and runs the loop until nothing is left.
function worker_process:stop()
  if not self.handle then return end
  self.core.lupe_worker_close(self.handle, nil, nil)
  self.handle = nil
  support.eventually(function()
    run(self)
    return self.core.uv_loop_close(self.loop) == 0
  end, 10, "the loop to be empty")
  self.callback:free()
end

function worker_process:pid() return self.core.lupe_worker_pid(self.handle) end
function worker_process:starts() return tonumber(self.core.lupe_worker_starts(self.handle)) end
function worker_process:cpu_ns() return tonumber(self.core.lupe_worker_cpu_ns(self.handle)) end
function worker_process:kills() return tonumber(self.core.lupe_worker_kills(self.handle)) end

--- A memfd with these bytes.
function worker_process.memfd(bytes, size)
  local fd = ffi.C.memfd_create("spec", 1)
  assert(fd >= 0)
  assert(ffi.C.write(fd, bytes, size or #bytes) == (size or #bytes))
  return fd
end

return worker_process

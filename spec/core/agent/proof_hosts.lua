--- Programs that leak proofs are made of, and what a proof said of their objects.
local support = require("spec.support")

local proof_hosts = {}

proof_hosts.NONE = 0xffffffff
proof_hosts.states = { [0] = "reachable", "interior", "stack_only", "unreachable", "unsettled" }
--- Every object is sampled; and one for every four kilobytes, so that most are found through others that are not.
proof_hosts.every_one = "prof:true,prof_active:false,lg_prof_sample:0,prof_unbias:false"
proof_hosts.some = "prof:true,prof_active:false,lg_prof_sample:12,prof_unbias:false"

proof_hosts.outcome = {
  complete = 0, busy = 1, no_profiling = 2, unsupported = 3, sigsys_taken = 4, no_memory = 5, heap_too_large = 6,
  vfork = 7, no_proc = 8, fork_failed = 9, leaving = 10, time = 11, short = 12, tables = 13, killed = 14,
  not_understood = 15,
}

local host = {}
host.__index = host

--- A fixture that has got to where it waits. `options` as for fake_runtime:spawn, and `welcome`, and `after`: its
-- arguments behind the wait.
function proof_hosts.start(runtime, fixture, arguments, options)
  options = options or {}
  local folder = runtime.open_directory() -- some become somebody else
  local self = setmetatable({ here = folder .. "/here", go = folder .. "/go", again = folder .. "/again",
    changed = folder .. "/changed" }, host)
  local argv = { support.fixture(fixture) }
  for _, argument in ipairs(arguments) do
    argv[#argv + 1] = argument == "again" and "again=" .. self.again or argument
    if argument == "again" then argv[#argv + 1] = "changed=" .. self.changed end
  end
  argv[#argv + 1] = "tell=" .. self.here
  argv[#argv + 1] = "wait=" .. self.go
  for _, argument in ipairs(options.after or {}) do argv[#argv + 1] = argument end
  self.process = runtime:spawn(argv, options)
  self.pid = self.process.pid
  self.c = runtime:hello()
  self.c:welcome(options.welcome)
  self:wait_until(self.here, 60)
  return self
end

function host:wait_until(path, seconds)
  support.eventually(function()
    return support.read_file(path) or not self.process:alive()
  end, seconds or 20, "the host to get there")
  if not support.read_file(path) then
    error(("the host has ended with %s: %s"):format(self.process.code or self.process.signal, self.process:stderr()), 2)
  end
end

function host:prove(limits, serial)
  assert(self.c:prove(limits, serial))
  return self.c:proved(60)
end

--- A proof that must be complete: its block.
function host:proof(limits)
  local reply, block = self:prove(limits)
  assert(reply.outcome == 0, ("outcome %d, error %d"):format(reply.outcome, reply.error))
  return block, reply
end

--- Lets it go on to its end, and sees that this is the usual one.
function host:finish(code)
  support.write_file(self.go, "")
  local ended, signal = self.process:wait(30)
  if ended ~= (code or 0) then
    error(("ended with %s: %s"):format(ended or "signal " .. signal, self.process:stderr()), 2)
  end
  return self.process:stdout()
end

--- The process ids of the proof's children that are alive: they are told by their name, and by their parent.
function proof_hosts.children(pid)
  local found = {}
  local pipe = assert(io.popen("cat /proc/[0-9]*/stat 2>/dev/null"))
  for line in pipe:lines() do
    local child, state, parent = line:match("^(%d+) %(lupe%-proof%) (%a) (%d+)")
    if child and tonumber(parent) == pid and state ~= "Z" then found[#found + 1] = tonumber(child) end
  end
  pipe:close()
  return found
end

--- The one child that a proof under way has now.
function host:child()
  return support.eventually(function()
    local children = proof_hosts.children(self.pid)
    return children[1]
  end, 20, "the child of a proof")
end

--- Waits until a process has ended, whoever its parent is by now.
function proof_hosts.gone(pid, seconds)
  support.eventually(function()
    local stat = support.read_file("/proc/" .. pid .. "/stat")
    return not stat or not stat:match("%(lupe%-proof%) [^Z]")
  end, seconds or 5, "the child of a proof to end")
end

--- How many objects of that size are in which state: { reachable = ..., ..., sum = ... }.
function proof_hosts.tally(block, size)
  local t = { sum = 0 }
  for _, name in pairs(proof_hosts.states) do t[name] = 0 end
  for _, o in ipairs(block.objects) do
    if tonumber(o.size_bytes) == size then
      local name = proof_hosts.states[o.state]
      t[name], t.sum = t[name] + 1, t.sum + 1
    end
  end
  return t
end

--- Those of that size, with their numbers as `holder` has them.
function proof_hosts.of_size(block, size)
  local list, numbers = {}, {}
  for i, o in ipairs(block.objects) do
    if tonumber(o.size_bytes) == size then
      list[#list + 1] = o
      numbers[#list] = i - 1
    end
  end
  return list, numbers
end

return proof_hosts

--- Many programs under lupe at once, each followed by a function that may wait.
-- @module bench.proof.tasks

local harness = require("bench.harness")
local support = require("spec.support")

local tasks = {}

local FLAGS = { "--rate-leak", "0", "--heap-interval", "0.5", "--proof-max-secs", "60" }

--- Calls `body(item)` for every item, `most` at a time; within it `tasks.wait` lets the others go on.
function tasks.run(items, most, body)
  local live, next_item = {}, 1
  while next_item <= #items or #live > 0 do
    while next_item <= #items and #live < most do
      local item = items[next_item]
      live[#live + 1] = coroutine.create(function() body(item) end)
      next_item = next_item + 1
    end
    for i = #live, 1, -1 do
      local fine, reason = coroutine.resume(live[i])
      if not fine then error(debug.traceback(live[i], reason), 0) end
      if coroutine.status(live[i]) == "dead" then table.remove(live, i) end
    end
    support.sleep(0.01)
  end
end

--- Waits until `check()` is true, and returns that. Outside of `tasks.run` nobody else goes on meanwhile.
function tasks.wait(check, seconds, what)
  local deadline = support.now() + seconds
  while true do
    local result = check()
    if result then return result end
    if support.now() > deadline then error(("not within %g s: %s"):format(seconds, what), 2) end
    if coroutine.running() then coroutine.yield() else support.sleep(0.005) end
  end
end

function tasks.sleep(seconds)
  local until_s = support.now() + seconds
  tasks.wait(function() return support.now() >= until_s end, seconds + 60, "time to pass")
end

local program = {}
program.__index = program

--- Starts a program under lupe, with a pipe to its standard input.
-- @tparam table flags further ones of lupe
function tasks.start(argv, flags)
  local all = { unpack(FLAGS) }
  for _, word in ipairs(flags or {}) do all[#all + 1] = word end
  local fifo = support.temp_dir() .. "/stdin"
  if os.execute("mkfifo '" .. fifo .. "'") ~= 0 then error("mkfifo " .. fifo) end
  local self = setmetatable({ port = support.free_port(), name = table.concat(argv, " ") }, program)
  self.stdin = assert(io.open(fifo, "r+")) -- both ways: that does not wait for a reader, and never is an end of file
  self.process = support.spawn(harness.lupe_words(self.port, all, argv), { stdin = fifo })
  return self
end

function program:fail(what)
  error(("%s: %s; it said: %s"):format(self.name, what, self.process:stderr():sub(-2000)), 0)
end

function program:get(path)
  local answer = support.http(self.port, path)
  return answer and answer.status == 200 and answer.json() or nil
end

--- Waits until there is a heap profile. False where the program has ended before.
function program:await_profile()
  return tasks.wait(function()
    if not self.process:alive() then return "ended" end
    local told = self:get("/api/profiling/allocations")
    return told and told.profile_time ~= support.json.null and "profiled"
  end, 60, self.name .. " to be profiled") == "profiled"
end

function program:write(text)
  self.stdin:write(text)
  self.stdin:flush()
end

--- Has it proved, and returns the answer's `proof`. Others go on meanwhile: the request is curl's.
-- @tparam[opt] number pid of one process; else all of the run
-- @tparam[opt] boolean whatever it comes to; else a proof that is not complete is an error
function program:prove(pid, whatever)
  local url = ("http://127.0.0.1:%d/api/profiling/leak-detection?proof=true%s"):format(self.port,
    pid and "&target=" .. pid or "")
  local curl = support.spawn({ "curl", "-sS", "-X", "POST", "--max-time", "180", url })
  tasks.wait(function() return not curl:alive() end, 200, self.name .. " to be proved")
  if curl.code ~= 0 then self:fail("curl: " .. curl:stderr()) end
  local answer = support.json.decode(curl:stdout())
  local proof = answer.proof
  if whatever and type(proof) == "table" then return proof end
  if type(proof) ~= "table" then self:fail("no proof: " .. curl:stdout():sub(1, 1000)) end
  if proof.status ~= "complete" then self:fail(proof.status .. ": " .. tostring(proof.reason)) end
  return proof
end

--- Sends a line to the program, and returns the JSON object that it answers with, the next after the last.
function program:command(line)
  if line then self:write(line .. "\n") end
  self.read = self.read or 0
  local text = tasks.wait(function()
    if not self.process:alive() then self:fail("it has ended") end
    local from, to = self.process:stdout():find("[^\n]*\n", self.read + 1)
    if not from then return nil end
    self.read = to
    return self.process:stdout():sub(from, to)
  end, 120, self.name .. " to answer " .. (line or "at its start"))
  return support.json.decode(text)
end

--- The program's own pid.
function program:pid() return harness.pids(self.process.pid).program or self:fail("it has no process") end

--- Waits for its end; returns its exit code.
function program:finish(seconds)
  tasks.wait(function() return not self.process:alive() end, seconds or 60, self.name .. " to end")
  self.stdin:close()
  return self.process.code
end

function program:stop()
  self.process:kill(15)
  self:finish()
end

return tasks

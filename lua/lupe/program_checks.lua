--- The scheduled checks of a daemon: one program after the other, each as often as a run of it alone would be checked.
-- Loop thread.
-- @module lupe.program_checks

local async = require("lupe.async")
local programs = require("lupe.programs")

local program_checks = {}
program_checks.__index = program_checks

local FIRST_MS = 3000 -- what ends sooner is not worth a check

--- @param app as `lupe.server` builds it: of it `host`, `analysis`, `views`
-- @tparam function ended function(program), told of each that has no process any more, once
function program_checks.new(app, ended)
  return setmetatable({
    app = app, ended = ended, checking = false,
    looked_ms = app.host.started_ms, -- Unix; when it was looked who is there
    known = {}, -- key -> { program, due_ms (monotonic), gone_ms (monotonic; since when it has no process) }
  }, program_checks)
end

--- How long no process of a program may be there before it has ended: an exec, and a lost socket, are shorter.
program_checks.GONE_MS = 2000

local function next_pause_ms(self, program, view, result)
  local host = self.app.host
  local age_ms = host.now_ms() - program.first_ms
  local lacking_ms = result.needed_seconds and 1000 * (result.needed_seconds - view.heap.seconds) or 0
  return math.min(math.max(age_ms, lacking_ms, FIRST_MS), host.config.leak_check_interval_secs * 1000)
end

local function check(self, entry)
  local host, program = self.app.host, entry.program
  self.checking = true
  entry.due_ms = host.monotonic_ms() + host.config.leak_check_interval_secs * 1000
  async.spawn(function()
    local view = self.app.views:of_program(program.pid)
    if not view then return end -- it has ended meanwhile
    local result = self.app.analysis:run(view, { program = program, occasion = "scheduled" })
    entry.due_ms = host.monotonic_ms() + next_pause_ms(self, program, view, result)
  end, function(ok, failure, trace)
    self.checking = false
    if not ok then
      host.log("error", ("the check of %s (process %d) failed: %s"):format(program.name, program.pid,
        trace or tostring(failure)))
    end
  end)
end

--- Takes in who is there, and who came and went since the last time.
local function look(self)
  local looked_ms = self.looked_ms
  self.looked_ms = self.app.host.now_ms()
  local now, list, by_key = self.app.host.monotonic_ms(), programs.list(self.app.host)
  for _, program in ipairs(list) do
    local entry = self.known[program.key]
    if not entry and program.live then
      entry = { due_ms = now + FIRST_MS, profiler = self.app.host.profiler() }
      self.known[program.key] = entry
    elseif not entry and program.first_ms > looked_ms then
      self.ended(program)
    end
    if entry then
      entry.program, program.profiler = program, entry.profiler
      entry.gone_ms = not program.live and (entry.gone_ms or now) or nil
    end
  end
  for key, entry in pairs(self.known) do
    if not by_key[key] then
      self.known[key] = nil -- pushed out by others that ended
      entry.program.forgotten = true
      self.ended(entry.program)
    elseif entry.gone_ms and now - entry.gone_ms >= program_checks.GONE_MS then
      self.known[key] = nil
      self.ended(entry.program)
    end
  end
end

--- About once a second.
function program_checks:tick()
  look(self)
  if self.checking or not self.app.analysis:ready() then return end
  local now, most_due = self.app.host.monotonic_ms(), nil
  for _, entry in pairs(self.known) do
    if entry.program.live and now >= entry.due_ms and (not most_due or entry.due_ms < most_due.due_ms) then
      most_due = entry
    end
  end
  if most_due then check(self, most_due) end
end

return program_checks

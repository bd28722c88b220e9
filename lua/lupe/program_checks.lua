--- The scheduled checks of a daemon: one program after the other, each as often as a run of it alone would be checked,
-- and before that where its memory comes nearer to a limit. Loop thread.
-- @module lupe.program_checks

local async = require("lupe.async")
local pressure = require("lupe.pressure")
local programs = require("lupe.programs")
local threshold = require("lupe.threshold")

local program_checks = {}
program_checks.__index = program_checks

local MIB = 2 ^ 20
local FIRST_MS = 3000 -- what ends sooner is not worth a check

--- @param app as `lupe.server` builds it: of it `host`, `analysis`, `views`
-- @tparam function ended function(program), told of each that has no process any more, once
function program_checks.new(app, ended)
  return setmetatable({
    app = app, ended = ended, checking = false,
    looked_ms = app.host.started_ms, -- Unix; when it was looked who is there
    -- key -> { program, due_ms (monotonic), soon (it is due now), gone_ms (monotonic; since when it has no process),
    -- thresholds (of its memory), level (how near that was to its limits) }
    known = {},
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
  self.checking, entry.soon = true, false
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
      local config = self.app.config
      entry = {
        due_ms = now + FIRST_MS, profiler = self.app.host.profiler(), level = 0,
        thresholds = threshold.new(config.memory_warning_mb, config.memory_alert_mb),
      }
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

--- Has a program's next check come as soon as it can be.
-- @param key of lupe.programs
function program_checks:check_soon(key)
  local entry = self.known[key]
  if entry then entry.soon = true end
end

--- How the resident memory of a program's processes stands to the thresholds, and what is to be said of it.
local function status_of(self, entry)
  local bytes = 0
  for _, target in ipairs(entry.program.targets) do
    local figures = target.live and self.app.host.memory(target.pid)
    bytes = bytes + (figures and figures.rss_bytes or 0)
  end
  return entry.thresholds:update("all", bytes / MIB)
end

--- How near the programs' memory is to its limits. Each has its own: what they hold together is nobody's.
-- @return the status of the one that is nearest; array of sentences, with the program that each is about
function program_checks:thresholds()
  local worst, warnings = "normal", {}
  for _, entry in pairs(self.known) do
    local status, said = status_of(self, entry)
    if pressure(status) > pressure(worst) then worst = status end
    for _, words in ipairs(said) do
      warnings[#warnings + 1] = ("%s (process %d): %s"):format(entry.program.name, entry.program.pid, words)
    end
  end
  table.sort(warnings)
  return worst, warnings
end

--- Now and then: a program whose memory has come nearer to a limit is checked before it is due.
-- @param shares as lupe.pressure has them
function program_checks:measure(shares)
  for _, entry in pairs(self.known) do
    local first = programs.first_live(entry.program.targets, entry.program.pid)
    local level = first and pressure(status_of(self, entry), self.app.cgroup(first.pid), shares) or 0
    entry.soon = entry.soon or level > entry.level
    entry.level = level
  end
end

local function due_ms(entry) return entry.soon and 0 or entry.due_ms end

--- About once a second.
function program_checks:tick()
  look(self)
  if self.checking or not self.app.analysis:ready() then return end
  local now, most_due = self.app.host.monotonic_ms(), nil
  for _, entry in pairs(self.known) do
    if entry.program.live and now >= due_ms(entry) and (not most_due or due_ms(entry) < due_ms(most_due)) then
      most_due = entry
    end
  end
  if most_due then check(self, most_due) end
end

return program_checks

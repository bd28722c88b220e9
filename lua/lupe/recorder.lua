--- Records a run into a file: a frame now and then, and one of its end (docs/recordings.md has the format).
-- A frame is the snapshot that rules see at that moment, with notes: what the host knew then that no snapshot holds.
-- Frames come every `record_interval_secs`, and as the run gets longer, a 24th of its duration apart; past
-- `record_max_mb` only the last one is added. Loop thread.
--
-- A frame's notes: { now_ms, targets, profiler } as the host's functions of these names answered, `surroundings`
-- (lupe.surroundings: what the view has beside its snapshot), `skipped` (frames left out so far), and in the last frame
-- `info` (how the program ended, as lupe.report takes it).
-- @module lupe.recorder

local async = require("lupe.async")
local format = require("lupe.format")
local json = require("lupe.json")

local recorder = {}
recorder.__index = recorder

local FRAMES_PER_DURATION = 24

local function about(host)
  local config = host.config
  return json.encode({
    lupe = host.version, started_ms = host.started_ms, command = json.array(config.command),
    config = {
      memory_warning_mb = config.memory_warning_mb, memory_alert_mb = config.memory_alert_mb,
      enable_profiling = config.enable_profiling,
    },
  })
end

--- Of a run whose settings name a file.
-- @param host the host
-- @param surroundings lupe.surroundings: what the views have beside their snapshots
-- @return the recorder; or nil and why the file could not be made
function recorder.new(host, surroundings)
  local config = host.config
  local handle, message = host.recorder(config.record, about(host))
  if not handle then return nil, "--record: " .. message end
  return setmetatable({
    host = host, surroundings = surroundings, handle = handle, interval_ms = config.record_interval_secs * 1000,
    max_bytes = config.record_max_mb * 2 ^ 20, next_ms = 0, bytes = 0, largest = 0, frames = 0, skipped = 0,
  }, recorder)
end

local function notes_of(self, info)
  local host = self.host
  return json.encode({
    now_ms = host.now_ms(), targets = json.array(host.targets()), profiler = host.profiler(),
    surroundings = self.surroundings:of(), skipped = self.skipped, info = info,
  })
end

--- Inside a task.
local function write(self, keepalive, info)
  local failure, bytes = async.await(self.host.record, self.handle, keepalive, notes_of(self, info), info ~= nil)
  if failure then
    self.stopped = true
    self.host.log("warning", ("the recording ends here, after %s: %s"):format(format.plural(self.frames, "frame"),
      failure))
  else
    self.largest = math.max(self.largest, bytes - self.bytes)
    self.bytes, self.frames = bytes, self.frames + 1
  end
end

--- `writing` until it is done, well or not; then `waiting` is called.
local function start(self, keepalive, info)
  self.writing = true
  async.spawn(write, function(ok, failure, trace)
    self.writing = false
    if not ok then
      self.stopped = true
      self.host.log("error", "recording failed: " .. (trace or tostring(failure)))
    end
    local waiting = self.waiting
    self.waiting = nil
    if waiting then waiting() end
  end, self, keepalive, info)
end

--- Inside a task.
local function settle(self)
  if self.writing then async.await(function(go) self.waiting = go end) end
end

local function any_live(host)
  for _, target in ipairs(host.targets()) do
    if target.live then return true end
  end
  return false
end

--- A round of heap profiles is in. Where no process lives any more, the snapshot of those that live is empty, and the
-- last frame is what follows.
function recorder:on_snapshot()
  local elapsed_ms = self.host.now_ms() - self.host.started_ms
  if self.stopped or self.writing or elapsed_ms < self.next_ms or not any_live(self.host) then return end
  local _, _, keepalive = self.host.snapshot()
  if not keepalive then return end
  local step_ms = math.max(self.interval_ms, elapsed_ms / FRAMES_PER_DURATION)
  self.next_ms = (math.floor(elapsed_ms / step_ms) + 1) * step_ms
  if self.bytes + self.largest > self.max_bytes then
    if self.skipped == 0 then
      self.host.log("warning", ("the recording has reached %s (--record-max-mb): of what comes, only the end is added")
        :format(format.bytes(self.bytes)))
    end
    self.skipped = self.skipped + 1
    return
  end
  start(self, keepalive)
end

--- Adds the last frame. Inside a task.
-- @param info what C knows of the run's end: see lupe.report
function recorder:finish(info)
  settle(self)
  if self.stopped then return end
  self.stopped = true
  local kept = {}
  for name, value in pairs(info) do kept[name] = value end
  kept.snapshot, kept.color, kept.columns = nil, nil, nil
  start(self, info.snapshot and info.snapshot.keepalive, kept)
  settle(self)
end

return recorder

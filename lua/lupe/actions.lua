--- Carries out what rules of kind "action" ask for: only what the operator allowed by name, one after the other,
-- and none of them twice within its cooldown. What was not allowed is listed as well: that is what would have been
-- done.
--
-- Only the scheduled check and a leak check of the whole run give their findings to this: a request that only reads
-- never does, nor one with params of its own, nor the replay of a recording.
-- @module lupe.actions

local action_kinds = require("lupe.action_kinds")
local allocator_state = require("lupe.allocator_state")
local async = require("lupe.async")
local format = require("lupe.format")
local heap_snapshot = require("lupe.heap_snapshot")
local problem = require("lupe.problem")

local actions = {}
actions.__index = actions

local MOST_ENTRIES = 200
local RESULTS = { "done", "failed", "not_allowed", "cooldown" }

--- @param app as `lupe.server` builds it; of its config `actions` (names that are allowed) and
-- `action_cooldown_secs`
function actions.new(app)
  local allowed = {}
  for _, name in ipairs(app.config.actions) do allowed[name] = true end
  return setmetatable({
    app = app, allowed = allowed,
    entries = {}, -- the newest last: see `list`
    last_ms = {}, -- action and target -> when it was last asked for and not held back (a clock that never jumps)
    counts = {}, -- name -> result -> times
    queue = {},
  }, actions)
end

-- What each does: a function(app, action, rule) inside a task, that returns a sentence; or nil and why not. ----------

local carry_out = {}

--- Has the agents of the chosen processes carry a command out: of one, of all, or of the program of a root.
-- @return how many did; the milliseconds that it took them; why one did not
local function command(app, pid, what, root)
  local count, spent_ms, failure = 0, 0, nil
  for _, target in ipairs(app.host.targets()) do
    local chosen = (not pid or target.pid == pid) and (not root or target.root_pid == root)
    if target.live and target.connected and chosen then
      local refused, elapsed_ms = async.await(app.host.command, target.pid, what)
      if refused then
        failure = failure or ("process %d: %s"):format(target.pid, refused)
      else
        count, spent_ms = count + 1, spent_ms + elapsed_ms
      end
    end
  end
  if count == 0 and not failure then
    failure = pid and ("no process %d is profiled"):format(pid) or "no process is profiled"
  end
  return count, spent_ms, failure
end

local function unused_bytes(app, action)
  local state = allocator_state(app.host, action.pid, action.root)
  return state and state.dirty_bytes + state.muzzy_bytes or 0
end

local function in_processes(count) return count == 1 and "1 process" or format.count(count) .. " processes" end

function carry_out.purge(app, action)
  local before = unused_bytes(app, action)
  local count, spent_ms, failure = command(app, action.pid, { name = "purge" }, action.root)
  if count == 0 then return nil, failure end
  return ("gave %s of unused pages back, in %s, %s%s"):format(
    format.bytes(math.max(0, before - unused_bytes(app, action))), in_processes(count),
    format.duration(spent_ms), failure and "; but " .. failure or "")
end

function carry_out.decay(app, action)
  local what = { name = "decay", dirty_ms = action.dirty_ms, muzzy_ms = action.muzzy_ms }
  local count, _, failure = command(app, action.pid, what, action.root)
  if count == 0 then return nil, failure end
  local set = {}
  for _, field in ipairs({ "dirty_ms", "muzzy_ms" }) do
    local ms = action[field]
    if ms then set[#set + 1] = ("%s_decay_ms:%d"):format(field:match("^%a+"), ms) end
  end
  return ("%s in %s%s"):format(table.concat(set, ","), in_processes(count), failure and "; but " .. failure or "")
end

function carry_out.snapshot(app, action, rule)
  local entry, message = app.snapshots:begin()
  if not entry then return nil, message end
  local extra = { taken_by = rule, reason = action.reason }
  local file, failure = heap_snapshot.take(app, entry, action.root, { extra = extra })
  if not file then return nil, failure end
  return ("wrote %s (%s)"):format(app.snapshots:path(file.snapshot_id), format.bytes(file.size_bytes))
end

function carry_out.sampling(app, action)
  app.capture:choose({ cpu_hz = action.cpu_hz, wall_hz = action.wall_hz })
  local rates = app.capture.rates
  return ("%d CPU samples per second of CPU time, %d looks a second"):format(rates.cpu_hz, rates.wall_hz)
end

-- One after the other --------------------------------------------------------------------------

local function target_of(action)
  if action.pid then return ("process %d"):format(action.pid) end
  return action.root and ("program %d"):format(action.root) or "all"
end

local function count(self, name, result)
  self.counts[name] = self.counts[name] or {}
  self.counts[name][result] = (self.counts[name][result] or 0) + 1
end

local function arguments_of(action)
  local arguments = {}
  for name in pairs(action_kinds.ARGUMENTS[action.name]) do arguments[name] = action[name] end
  return arguments
end

local function add_entry(self, finding, action)
  local entry = {
    time_ms = self.app.host.now_ms(), name = action.name, arguments = arguments_of(action), rule = finding.rule,
    target = target_of(action), why = finding.summary, state = "waiting",
  }
  if #self.entries >= MOST_ENTRIES then table.remove(self.entries, 1) end
  self.entries[#self.entries + 1] = entry
  return entry
end

local function finish(self, entry, state, text)
  entry.state, entry.result = state, text
  count(self, entry.name, state)
  local words = { done = "action %s: %s", failed = "action %s failed: %s", not_allowed = "action %s was not run: %s" }
  self.app.host.log(state == "done" and "info" or "warning",
    (words[state] .. " (%s: %s)"):format(entry.name, text, entry.rule, entry.why))
end

local function work_off(self)
  while self.queue[1] do
    local job = table.remove(self.queue, 1)
    job.entry.state = "running"
    local ok, text, failure = pcall(carry_out[job.action.name], self.app, job.action, job.entry.rule)
    if not ok then text, failure = nil, problem.is(text) and text.detail or tostring(text) end
    finish(self, job.entry, text and "done" or "failed", text or failure)
  end
end

--- Whether the same was asked for less than its cooldown ago; if not, it is noted.
local function held_back(self, action)
  local now = self.app.host.monotonic_ms()
  local key = action.name .. "\0" .. target_of(action)
  local cooldown_ms = 1000 * (action.cooldown_secs or self.app.config.action_cooldown_secs)
  if self.last_ms[key] and now - self.last_ms[key] < cooldown_ms then return true end
  self.last_ms[key] = now
  return false
end

--- Takes the findings of a check that may lead to actions.
-- @param result of lupe.analysis
-- @tparam[opt] number root where several programs are watched: the one that was checked, to which actions are limited
function actions:consider(result, root)
  for _, finding in ipairs(result.findings) do
    local action = finding.action
    if action and root then action = setmetatable({ root = root }, { __index = action }) end
    if action and held_back(self, action) then
      count(self, action.name, "cooldown")
    elseif action then
      local entry = add_entry(self, finding, action)
      if self.allowed[action.name] then
        self.queue[#self.queue + 1] = { entry = entry, action = action }
      else
        finish(self, entry, "not_allowed", ("it is not allowed; --actions %s would allow it"):format(action.name))
      end
    end
  end
  if self.working or not self.queue[1] then return end
  self.working = true
  async.spawn(function() work_off(self) end, function(ok, failure, trace)
    self.working = false
    if not ok then self.app.host.log("error", "actions failed: " .. (trace or tostring(failure))) end
  end)
end

--- What was asked for, newest first: array of { time_ms, name, arguments, rule, target, why (the finding's summary),
-- state ("waiting", "running", "done", "failed", "not_allowed"), result (in words, nil while it is not over) }.
function actions:list()
  local list = {}
  for i, entry in ipairs(self.entries) do list[#self.entries + 1 - i] = entry end
  return list
end

--- For the report at the end: a sentence for each, the oldest first.
function actions:notes()
  local notes, words = {}, { done = "was run", failed = "failed", not_allowed = "was not run" }
  for i, entry in ipairs(self.entries) do
    notes[i] = ("action %s %s%s (%s: %s)"):format(entry.name, words[entry.state] or "was not finished",
      entry.result and ": " .. entry.result or "", entry.rule, entry.why)
  end
  return notes
end

--- @param out lupe.exposition
function actions:metrics(out)
  local samples = {}
  for _, name in ipairs(action_kinds.NAMES) do
    for _, result in ipairs(RESULTS) do
      samples[#samples + 1] = {
        (self.counts[name] or {})[result] or 0, labels = { { "action", name }, { "result", result } },
      }
    end
  end
  out:add("lupe_actions", "counter", "Actions that rules asked for, by what became of them.", samples)
end

return actions

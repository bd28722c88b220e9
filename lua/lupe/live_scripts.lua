--- Keeps scripts in force up to date with their files. A pass looks at the directories, has every new text tried, and
-- then puts all that are good in force at once; one that is not leaves the last good one where it is. One pass at a
-- time: what changes meanwhile is the next one's.
-- @module lupe.live_scripts

local async = require("lupe.async")
local json = require("lupe.json")
local turns = require("lupe.turns")
local watcher = require("lupe.watcher")

local live_scripts = {}
live_scripts.__index = live_scripts

--- Nothing is said about the script by a failure of these kinds: it is tried again.
local NOT_ITS_FAULT = {
  unavailable = true, starved = true, closed = true, system = true, request = true, no_rule = true, no_snapshot = true,
}

--- A script that took too long may have been unlucky, on a busy machine: it gets so many tries.
local UNLUCKY = { deadline = true, died = true }
local TRIES = 3

--- Whether a failure of this kind says something about the script.
function live_scripts.to_blame(kind) return not NOT_ITS_FAULT[kind] end

--- @param host what C offers
-- @param registry `look`, `adopt`, `reject`, `settle`, `entries` as lupe.rules has them
-- @tparam function try function(entry) in a task, about its `text`: { loaded, findings = of the dry run or nil,
--   untried = boolean }; or nil, a message that begins with the file, and a kind as lupe.worker has them
-- @tparam {string,...} paths the directories
-- @return `changes`: a number that is another one as soon as there is something new to be told of the files
function live_scripts.new(host, registry, try, paths)
  local self = setmetatable({
    host = host, registry = registry, try = try, turns = turns.new(), changes = 0,
  }, live_scripts)
  self.watcher = watcher.new(host, paths, function() self:stir() end)
  return self
end

local function verdict_of(self, entry)
  if not entry.text then return { error = entry.error } end
  local text = entry.text
  local ok, good, message, kind = pcall(self.try, entry)
  if not ok then good, message, kind = nil, ("%s: %s"):format(entry.path, tostring(good)), "system" end
  local again = not good and NOT_ITS_FAULT[kind]
  if not good and UNLUCKY[kind] then
    entry.tries = entry.tried == text and entry.tries + 1 or 1
    entry.tried, again = text, entry.tries < TRIES
  end
  return { text = text, good = good, error = message, again = again }
end

--- @return path -> { result = "loaded" | "kept" | "error" | "gone", error, findings }
local function pass(self, final)
  local registry = self.registry
  local found = registry:look(final)
  local verdicts, results, changed = {}, {}, #found.gone > 0
  for i, entry in ipairs(found.changed) do verdicts[i] = verdict_of(self, entry) end
  for i, entry in ipairs(found.changed) do
    local verdict = verdicts[i]
    if verdict.good then
      changed = true
      registry:adopt(entry, verdict.good.loaded, verdict.text, self.host.now_ms(), verdict.good.untried)
    elseif verdict.text then
      registry:reject(entry, verdict.error)
      if verdict.again then registry.files.doubt(entry) end
    end
    results[entry.path] = {
      result = verdict.good and "loaded" or entry.loaded and "kept" or "error", error = entry.error,
      findings = verdict.good and verdict.good.findings,
    }
  end
  for _, entry in ipairs(found.gone) do results[entry.path] = { result = "gone" } end
  if changed then registry:settle() end
  if next(results) then self.changes = self.changes + 1 end
  self.ready = true
  if found.unsettled then self.watcher:stir() end
  return results
end

--- A pass soon, in the background; asked for while one is under way, one follows that.
function live_scripts:stir()
  if self.stirred then return end
  self.stirred = true
  async.spawn(function()
    self.turns:run(function()
      self.stirred = false
      pass(self)
    end)
  end, function(ok, failure, trace)
    if not ok then self.host.log("error", "looking at scripts failed: " .. (trace or tostring(failure))) end
  end)
end

--- A pass now. Inside a task.
-- @return array of { path, result ("loaded", "kept": the last good version, "error", "gone", "unchanged"), error,
--   findings: how many its dry run had, nil where there was none }
function live_scripts:reload()
  local results = self.turns:run(pass, self, true)
  local list = json.array()
  for _, entry in ipairs(self.registry:entries()) do
    results[entry.path] = results[entry.path] or { result = "unchanged", error = entry.error }
  end
  for path, result in pairs(results) do
    result.path = path
    list[#list + 1] = result
  end
  table.sort(list, function(a, b) return a.path < b.path end)
  return list
end

--- Waits until the files have been looked at once. Inside a task.
function live_scripts:first()
  if not self.ready then self.turns:run(pass, self) end
end

--- About once a second.
function live_scripts:tick() self.watcher:tick() end

return live_scripts

--- How each rule, or users' route, has fared: runs, errors, times, and when to leave one alone.
-- Errors that repeat are logged the 1st, 2nd, 4th, 8th ... time. A rule that had to be stopped three times in a
-- row is quarantined until its file changes: each time it took the worker process, or half a second, with it.
-- @module lupe.rule_health

local rule_health = {}
rule_health.__index = rule_health

local STRIKES = 3
local STOPPED = { instructions = true, deadline = true, memory = true, died = true }

--- @tparam function log function(level, message)
-- @string[opt="rule"] what they are
function rule_health.new(log, what)
  return setmetatable({ log = log, what = what or "rule", by_path = {} }, rule_health)
end

--- The record of a registry's entry; a fresh one where its file has changed.
function rule_health:of(entry)
  local record = self.by_path[entry.path]
  if not record or record.source ~= entry.source then
    record = {
      source = entry.source, runs = record and record.runs or 0, errors = record and record.errors or 0, strikes = 0,
      repeats = 0, quarantined = false, findings = 0,
    }
    self.by_path[entry.path] = record
  end
  return record
end

function rule_health:succeeded(entry, elapsed_us, findings)
  local record = self:of(entry)
  record.runs, record.strikes, record.findings, record.elapsed_us = record.runs + 1, 0, findings, elapsed_us
  record.error, record.repeats = nil, 0
end

local function is_power_of_two(n)
  while n > 1 and n % 2 == 0 do n = n / 2 end
  return n == 1
end

--- @string kind as the worker tells it: "error", "instructions", "deadline", "memory", "starved", "died", "system"
-- @string message in words, with file and line where they are known
-- @string[opt] id that somebody was told, to find this one in the log: then it is logged, repeated or not
function rule_health:failed(entry, kind, message, elapsed_us, id)
  local record = self:of(entry)
  record.runs, record.errors, record.findings, record.elapsed_us = record.runs + 1, record.errors + 1, 0, elapsed_us
  record.strikes = STOPPED[kind] and record.strikes + 1 or 0
  record.repeats = record.error == message and record.repeats + 1 or 1
  record.error = message
  if id or is_power_of_two(record.repeats) then
    local times = record.repeats > 1 and (" (%d times in a row)"):format(record.repeats) or ""
    local shown = id and (" (id %s)"):format(id) or ""
    self.log("error", ("%s %s%s: %s%s"):format(self.what, entry.loaded.id, shown, message, times))
  end
  if record.strikes >= STRIKES and not record.quarantined then
    record.quarantined = true
    self.log("error", ("%s %s: stopped %d times in a row, not run again until %s changes"):format(
      self.what, entry.loaded.id, STRIKES, entry.path))
  end
end

--- Forgets files that are gone.
function rule_health:keep(by_path)
  for path in pairs(self.by_path) do
    if not by_path[path] then self.by_path[path] = nil end
  end
end

return rule_health

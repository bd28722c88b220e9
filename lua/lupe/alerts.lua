--- Which alerts are raised: since when, who was told when, and when one is over.
-- An alert is a finding of kind "alert". It is raised by the first check of the whole run that finds it, and cleared
-- by the second scheduled check in a row that does not: a figure that wavers raises one alert, not ten. While it is
-- raised a reminder comes with each cooldown; one that comes back within the cooldown of the last word about it is
-- raised without a word. The words are lines of lupe's log, and told to the program that lupe is a part of.
--
-- What is told depends on the checks and their times alone. A rule that failed, is quarantined or lacks history says
-- nothing: its alerts stay.
-- @module lupe.alerts

local format = require("lupe.format")
local known_findings = require("lupe.known_findings")
local urgency = require("lupe.rule").urgency

local alerts = {}
alerts.__index = alerts

local MOST = 200
local CLEAR_AFTER = 2 -- scheduled checks without it

local key_of = known_findings.key

--- What an alert is known by: its rule and place. Without a place it is the rule's only one, since the words of a
-- finding change with its urgency ("above the critical limit"), and that is the same alert, worse.
local function alert_key(finding)
  local place = finding.site or finding.hotspot
  local key = place and key_of(finding) or finding.rule
  return finding.target and ("%s\0%d"):format(key, finding.target.pid) or key
end

local function pid_of(finding) return finding.target and finding.target.pid end

--- @param host of it `now_ms` and `log`
-- @tparam number cooldown_secs
function alerts.new(host, cooldown_secs)
  return setmetatable({
    host = host, cooldown_ms = cooldown_secs * 1000,
    raised = {}, -- key -> { finding, since_ms, notified_ms, told, missed }
    told_ms = {}, -- key -> of an alert that is over: when it was last spoken of
    count = 0,
    heard = nil, -- function(alert, words), told of every word: set by lupe.embedded
  }, alerts)
end

local function tell(self, alert, words, level)
  alert.notified_ms, alert.told = self.host.now_ms(), true
  if self.heard then self.heard(alert, words) end
  local target = alert.finding.target
  self.host.log(level or "warning", ("alert %s: %s (%s%s)"):format(words, alert.finding.summary, alert.finding.rule,
    target and (", in %s, process %d"):format(target.name, target.pid) or ""))
end

local function lasted(self, alert) return format.duration(self.host.now_ms() - alert.since_ms) end

local function found(self, key, finding)
  local now, alert = self.host.now_ms(), self.raised[key]
  if not alert then
    if self.count >= MOST then return end -- they are in the findings all the same
    local told_ms = self.told_ms[key]
    alert = { finding = finding, since_ms = now, notified_ms = told_ms, missed = 0 }
    self.raised[key], self.count = alert, self.count + 1
    if not told_ms or now - told_ms >= self.cooldown_ms then tell(self, alert, "raised") end
    return
  end
  local worse = urgency(finding) < urgency(alert.finding)
  alert.finding, alert.missed = finding, 0
  if worse then
    tell(self, alert, "worse")
  elseif now - (alert.notified_ms or 0) >= self.cooldown_ms then
    tell(self, alert, alert.told and "still raised after " .. lasted(self, alert) or "raised")
  end
end

local function missed(self, key, alert)
  alert.missed = alert.missed + 1
  if alert.missed < CLEAR_AFTER then return end
  self.raised[key], self.count = nil, self.count - 1
  if alert.told then tell(self, alert, "cleared after " .. lasted(self, alert), "info") end
  self.told_ms[key] = alert.notified_ms
end

--- Alerts that are over are remembered for their cooldown.
local function forget_old(self)
  local now = self.host.now_ms()
  for key, told_ms in pairs(self.told_ms) do
    if now - told_ms >= self.cooldown_ms then self.told_ms[key] = nil end
  end
end

--- Takes the result of a check of the whole run, or of one program of several.
-- @param result of lupe.analysis
-- @tparam boolean scheduled whether it is the scheduled check's: only those clear alerts
-- @tparam[opt] number pid of the program, whose alerts alone it clears
function alerts:update(result, scheduled, pid)
  local now_found, order = {}, {}
  for _, finding in ipairs(result.findings) do
    if finding.kind == "alert" then
      local key = alert_key(finding)
      local other = now_found[key]
      if not other then order[#order + 1] = key end
      if not other or urgency(finding) < urgency(other) then now_found[key] = finding end
    end
  end
  for _, key in ipairs(order) do found(self, key, now_found[key]) end
  local gone = {}
  for key, alert in pairs(self.raised) do
    local rule = alert.finding.rule
    local silent = result.failed[rule] or result.lacking[rule]
    if scheduled and not now_found[key] and not silent and pid_of(alert.finding) == pid then gone[#gone + 1] = key end
  end
  table.sort(gone)
  for _, key in ipairs(gone) do missed(self, key, self.raised[key]) end
  forget_old(self)
end

--- A program has ended: so have its alerts.
-- @tparam number pid of it
function alerts:ended(pid)
  local gone = {}
  for key, alert in pairs(self.raised) do
    if pid_of(alert.finding) == pid then gone[#gone + 1] = key end
  end
  table.sort(gone)
  for _, key in ipairs(gone) do
    local alert = self.raised[key]
    self.raised[key], self.count = nil, self.count - 1
    if alert.told then tell(self, alert, "over with its program, after " .. lasted(self, alert), "info") end
  end
end

--- The alert that a finding belongs to: { state = "raised" or "clearing", since_ms, notified_ms or nil }; nil where
-- there is none (any more).
function alerts:of(finding)
  local alert = finding.kind == "alert" and self.raised[alert_key(finding)]
  if not alert then return nil end
  return {
    state = alert.missed > 0 and "clearing" or "raised", since_ms = alert.since_ms, notified_ms = alert.notified_ms,
  }
end

--- How many are raised, by rule: array of { rule, count }, rules in order.
function alerts:active()
  local count_of, list = {}, {}
  for _, alert in pairs(self.raised) do
    local rule = alert.finding.rule
    if not count_of[rule] then list[#list + 1] = rule end
    count_of[rule] = (count_of[rule] or 0) + 1
  end
  table.sort(list)
  for i, rule in ipairs(list) do list[i] = { rule, count_of[rule] } end
  return list
end

--- @param out lupe.exposition
-- @param rules array of the rules' ids of kind alert
function alerts:metrics(out, rules)
  local count_of, samples = {}, {}
  for _, pair in ipairs(self:active()) do count_of[pair[1]] = pair[2] end
  for i, rule in ipairs(rules) do samples[i] = { count_of[rule] or 0, labels = { { "rule", rule } } } end
  out:add("lupe_alert_active", "gauge", "Alerts that are raised.", samples)
end

return alerts

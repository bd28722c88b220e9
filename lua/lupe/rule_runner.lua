--- Runs rules in the worker process: what they are sent, what comes of their answers, and who is asked again.
-- Loop thread; inside a task (lupe.async).
-- @module lupe.rule_runner

local async = require("lupe.async")
local budgets = require("lupe.budgets")
local json = require("lupe.json")
local live_scripts = require("lupe.live_scripts")

local rule_runner = {}
rule_runner.__index = rule_runner

local RULE_DEADLINE_MS, SYSTEM_DEADLINE_MS = budgets.call_ms, budgets.system_ms
local BATCH = 100 -- calls queued at once; the worker's queue takes 256
local IDLE_ROUNDS = 3 -- in which no rule came to an answer: then the worker is broken
local KILLED = { deadline = true, starved = true, died = true } -- kinds of failures that took the process with them
local SAMPLES = { cpu = true, wall = true }

--- @param host what C offers
-- @param parts { registry = lupe.rules, health = lupe.rule_health, settings = lupe.rule_settings,
--   suppressions = lupe.suppressions }
function rule_runner.new(host, parts)
  return setmetatable({
    host = host, registry = parts.registry, health = parts.health, settings = parts.settings,
    suppressions = parts.suppressions,
  }, rule_runner)
end

--- What a rule speaks of, by what it needs.
local function subject(given)
  for _, need in ipairs(given.needs or {}) do
    if SAMPLES[need] then return "time" end
  end
  return "memory"
end

-- Talking to the worker ---------------------------------------------------------------------

--- Queues one request; `done(reply)` later, always with a table.
local function send(self, request, attach, deadline_ms, done)
  local function answered(failure, text)
    if failure then return done({ ok = false, kind = failure.kind, error = failure.message }) end
    local reply, message = json.decode(text)
    if type(reply) ~= "table" then
      reply = { ok = false, kind = "system", error = "the worker's reply is not JSON: " .. tostring(message) }
    end
    done(reply)
  end
  local ok, message = pcall(self.host.worker, json.encode(request), attach, deadline_ms, answered)
  if not ok then done({ ok = false, kind = "system", error = tostring(message) }) end
end

local function send_rules(self, note)
  local entries, list = self.registry:in_force(), json.array()
  for i, entry in ipairs(entries) do list[i] = { path = entry.path, source = entry.source } end
  local revision = self.registry.revision
  send(self, { op = "load", rules = list, modules = self.host.modules, deadline_ms = RULE_DEADLINE_MS }, nil,
    SYSTEM_DEADLINE_MS + #list * RULE_DEADLINE_MS, function(reply)
      self.loaded_revision = reply.ok and revision or nil
      self.refused = {}
      self.confined, self.unconfined_reason = reply.confined, reply.unconfined_reason
      if not reply.ok then return note("rules: " .. tostring(reply.error)) end
      for i, answer in ipairs(reply.rules or {}) do
        if not answer.ok then self.refused[entries[i].path] = answer end
      end
    end)
end

--- What rules compare with: a worker process keeps it as long as it keeps the rules.
local function send_base(self, note)
  send(self, { op = "base" }, self.host.base.keepalive, SYSTEM_DEADLINE_MS, function(reply)
    if not reply.ok then note("base: " .. tostring(reply.error)) end
  end)
end

--- The request to run a rule.
-- @param view that it will see: what that has beside its snapshot goes along
-- @param given_rule what is known of it
-- @param params those of one request: see `run`
-- @param findings those that it sees
function rule_runner:check_request(view, given_rule, params, findings)
  local config, extras = self.host.config, view.extras
  return {
    op = "check", id = given_rule.id, params = self.settings:params(given_rule, params),
    findings = json.array(findings),
    config = { memory_warning_mb = config.memory_warning_mb, memory_alert_mb = config.memory_alert_mb },
    allocator = extras.allocator, cgroup = extras.cgroup, cores = extras.cores, off_because = extras.off_because,
    deadline_ms = RULE_DEADLINE_MS,
  }
end

--- One round of calls, queued together so that nobody's snapshot comes between, then waited for.
-- @return entry -> reply, which has the `source` that it is about
local function round(self, view, entries, params, findings, note)
  local replies, left = {}, #entries
  return async.await(function(done)
    if self.loaded_revision ~= self.registry.revision then
      if self.host.base then send_base(self, note) end
      send_rules(self, note)
    end
    send(self, { op = "snapshot" }, view.keepalive, SYSTEM_DEADLINE_MS, function(reply)
      if not reply.ok then note("snapshot: " .. tostring(reply.error)) end
    end)
    for _, entry in ipairs(entries) do
      local source = entry.source
      send(self, self:check_request(view, entry.rule, params, findings), nil, RULE_DEADLINE_MS, function(reply)
        reply.source, replies[entry] = source, reply
        left = left - 1
        if left == 0 then done(replies) end
      end)
    end
  end)
end

local function give_up(outcome, entry, message)
  outcome.errors[#outcome.errors + 1] = ("%s: %s"):format(entry.rule.id, message)
  outcome.failed[entry.rule.id] = true
  outcome.answers[#outcome.answers + 1] = { kind = entry.rule.kind, status = "failed" }
end

--- @bool tells whether the answer says something about the rule as it is: not of one request's params, nor of a text
--   that another one has replaced meanwhile
local function take(self, outcome, entry, reply, tells)
  if reply.ok then
    local told = 0
    for _, finding in ipairs(reply.findings or {}) do
      finding.rule, finding.kind, finding.about = entry.rule.id, entry.rule.kind, subject(entry.rule)
      local place = finding.site or finding.hotspot
      finding.component = place and place.name
      local suppressed = self.suppressions:mark(finding)
      local list = suppressed and outcome.suppressed or outcome.findings
      list[#list + 1] = finding
      if not suppressed then told = told + 1 end
    end
    outcome.answers[#outcome.answers + 1] = {
      kind = entry.rule.kind, status = reply.status, needed_seconds = reply.needed_seconds,
    }
    outcome.lacking[entry.rule.id] = reply.needed_seconds
    if tells then
      self.registry:proved(entry)
      self.health:succeeded(entry, reply.elapsed_us, told)
    end
  else
    local message = tostring(reply.error)
    give_up(outcome, entry, message)
    if tells then
      self.health:failed(entry, reply.kind, message, reply.elapsed_us)
      if live_scripts.to_blame(reply.kind) then self.registry:fall_back(entry, message) end
    end
  end
end

--- The entries that run.
-- @tparam[opt] string about only rules that speak of this
-- @tparam[opt] table kinds set
-- @string[opt] only the id of the one that is wanted
-- @return array, and an array of those that would run if they were not quarantined
function rule_runner:runnable(about, kinds, only)
  local list, quarantined = {}, {}
  for _, entry in ipairs(self.registry:in_force(kinds)) do
    local wanted = (not about or subject(entry.rule) == about) and (not only or entry.rule.id == only)
    if wanted and not self.settings:disabled(entry.rule.id) then
      local which = self.health:of(entry).quarantined and quarantined or list
      which[#which + 1] = entry
    end
  end
  return list, quarantined
end

--- Runs all rules of some kinds. A worker that died has forgotten everything: those that come after are asked again.
-- @param view lupe.view, with its keepalive
-- @param options those of lupe.analysis:run
-- @tparam table kinds set
-- @param findings those that the rules see, or nil
-- @param outcome what is added to: { findings, suppressed, errors, answers, lacking, failed }
function rule_runner:run(view, options, kinds, findings, outcome)
  local pending, quarantined = self:runnable(options.about, kinds, options.only)
  local idle_rounds = 0
  for _, entry in ipairs(quarantined) do
    give_up(outcome, entry, "quarantined until its file changes: " .. self.health:of(entry).error)
  end
  local function taken(entry, reply)
    take(self, outcome, entry, reply, not options.params and reply.source == entry.source)
  end
  while pending[1] and idle_rounds < IDLE_ROUNDS do
    local now, later = {}, {}
    for i, entry in ipairs(pending) do
      local list = i <= BATCH and now or later
      list[#list + 1] = entry
    end
    local trouble
    local replies = round(self, view, now, options.params, findings, function(message) trouble = trouble or message end)
    local again = {}
    for _, entry in ipairs(now) do
      local reply = replies[entry]
      local refused = self.refused and self.refused[entry.path]
      if KILLED[reply.kind] then self.loaded_revision = nil end
      if reply.kind == "no_rule" and refused then
        refused.source = reply.source
        taken(entry, refused)
      elseif reply.kind == "no_rule" or reply.kind == "no_snapshot" then
        self.loaded_revision = nil
        entry.excuse = trouble or reply.error
        again[#again + 1] = entry
      else
        taken(entry, reply)
      end
    end
    idle_rounds = #again == #now and idle_rounds + 1 or 0
    for _, entry in ipairs(later) do again[#again + 1] = entry end
    pending = again
  end
  for _, entry in ipairs(pending) do
    local excuse = entry.excuse or "the worker gave no answer"
    taken(entry, { ok = false, kind = "system", error = excuse, source = entry.source })
  end
end

--- Whether the worker is confined (core/script/confine.h), and why not; nil while no rule has run.
function rule_runner:confinement() return self.confined, self.unconfined_reason end

return rule_runner

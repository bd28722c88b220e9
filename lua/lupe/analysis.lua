--- What the rules find in a view: run by lupe.rule_runner, put in order, kept, and asked for again on a schedule.
-- All rules run, once per view and state of the rules' files: whoever asks again gets the same result.
-- Recommendations come after the others and see their findings; actions come last and see all. Here they are only
-- found, not run: see lupe.actions. Loop thread.
--
-- A result: { findings, suppressed = findings that the operator does not want to be told (lupe.suppressions),
-- errors = { text ... }, status = "ok" | "insufficient_data" | "failed", reason, needed_seconds, lacking = { id of a
-- rule that had too little to say anything = seconds that it would need }, failed = { id of a rule that gave no
-- answer, or is quarantined = true }, elapsed_ms, time_ms, generation }. `status` is that of the leak rules: "failed"
-- where none of them answered, and `reason` says why.
-- A finding is what lupe.rule.run makes of it, with `rule` (id), `kind`, `component` (the site's or hotspot's name) and
-- `about`: "time" where its rule needs CPU or wall samples, else "memory".
-- @module lupe.analysis

local async = require("lupe.async")
local json = require("lupe.json")
local known_findings = require("lupe.known_findings")
local live_scripts = require("lupe.live_scripts")
local rule = require("lupe.rule")
local rule_health = require("lupe.rule_health")
local rule_runner = require("lupe.rule_runner")
local rule_settings = require("lupe.rule_settings")
local rules = require("lupe.rules")
local suppressions = require("lupe.suppressions")
local try_rule = require("lupe.try_rule")
local turns = require("lupe.turns")

local analysis = {}
analysis.__index = analysis

local FIRST_KINDS = { leak = true, bottleneck = true, pattern = true, alert = true }
local LATER_KINDS = { { recommendation = true }, { action = true } }
local KIND_ORDER = { leak = 1, pattern = 2, bottleneck = 3, alert = 4, recommendation = 5, action = 6 }

--- @param host what C offers; of it also `rules_dir` (shipped), `config.rules` (the user's) and, where there is a
-- recording to compare with, `base`: a view of its last snapshot
function analysis.new(host)
  local directories = {}
  if host.rules_dir then directories[1] = { path = host.rules_dir, shipped = true } end
  if host.config.rules then directories[#directories + 1] = { path = host.config.rules } end
  local self = setmetatable({
    host = host,
    registry = rules.new(directories, host.log),
    health = rule_health.new(host.log),
    settings = rule_settings.new(host.config, host.log),
    suppressions = suppressions.new(host.config.suppressions, host.now_ms, host.log),
    results = setmetatable({}, { __mode = "k" }), -- view -> { revision, what it was asked about -> result }
    turns = turns.new(), -- one analysis at a time: the worker holds one snapshot
    known_findings = known_findings.new(host.now_ms),
    heed = nil, -- function(result, occasion), told of each check of the whole run: set by lupe.server
    began_ms = host.monotonic_ms(),
    next_check_ms = 0, soon = false,
  }, analysis)
  self.runner = rule_runner.new(host, self)
  local paths = {}
  for i, directory in ipairs(directories) do paths[i] = directory.path end
  self.live = live_scripts.new(host, self.registry, try_rule.of(self), paths)
  self.live:stir()
  return self
end

--- What a request sets of rules' params, for `run`.
-- @param given the request's parameters, of a route that declares lupe.rule_settings.PARAMETER
-- @tparam[opt] string about as for `run`
-- @return the values; nil where there are none; or nil and a message
function analysis:params_of(given, about)
  return rule_settings.for_request(given[rule_settings.PARAMETER.name], self.runner:runnable(about))
end

-- Results -----------------------------------------------------------------------------------

local key_of = known_findings.key

--- What is told once in one check: of findings without a place, those that say the same word for word.
local function told_once(finding)
  local key = key_of(finding)
  return (finding.site or finding.hotspot) and key or key .. "\0" .. finding.summary
end

--- Ordered by kind and urgency; of several about one site by one rule the first stays.
local function settle(findings)
  table.sort(findings, function(a, b)
    local ka, kb = KIND_ORDER[a.kind] or 9, KIND_ORDER[b.kind] or 9
    if ka ~= kb then return ka < kb end
    local sa, sb = rule.urgency(a), rule.urgency(b)
    if sa ~= sb then return sa < sb end
    if (a.score or 0) ~= (b.score or 0) then return (a.score or 0) > (b.score or 0) end
    return key_of(a) .. a.summary < key_of(b) .. b.summary
  end)
  local seen, kept = {}, json.array()
  for _, finding in ipairs(findings) do
    local key = told_once(finding)
    if not seen[key] then
      seen[key] = true
      kept[#kept + 1] = finding
    end
  end
  return kept
end

local function status_of(answers)
  local status, needed = "failed", nil
  for _, answer in ipairs(answers) do
    if answer.kind == "leak" then
      if answer.status == "ok" then
        status = "ok"
      elseif answer.status == "insufficient_data" then
        if status == "failed" then status = "insufficient_data" end
        needed = math.min(needed or math.huge, answer.needed_seconds)
      end
    end
  end
  return status, status == "insufficient_data" and needed or nil
end

--- Why no leak rule answered, rule by rule.
local function why_failed(self, outcome)
  local said = {}
  for _, entry in ipairs(self.registry:in_force({ leak = true })) do
    local id = entry.rule.id
    if self.settings:disabled(id) then
      said[#said + 1] = id .. " is switched off (rules_disabled)"
    elseif outcome.failed[id] then
      said[#said + 1] = id .. (self.health:of(entry).quarantined and " is quarantined" or " failed")
    end
  end
  return said[1] and table.concat(said, ", ") or "no rule of kind leak is in force"
end

local function compute(self, view, options)
  local began = self.host.monotonic_ms()
  local outcome = {
    findings = {}, suppressed = {}, errors = json.array(), answers = {}, lacking = {}, failed = {},
  }
  for _, entry in ipairs(self.registry:entries()) do
    local wrong = entry.error or entry.clash
    if wrong then outcome.errors[#outcome.errors + 1] = wrong end
  end
  self.runner:run(view, options, FIRST_KINDS, nil, outcome)
  for _, kinds in ipairs(LATER_KINDS) do
    outcome.findings = settle(outcome.findings)
    local earlier = {}
    for i, finding in ipairs(outcome.findings) do earlier[i] = finding end
    self.runner:run(view, options, kinds, earlier, outcome)
  end
  local status, needed_seconds = status_of(outcome.answers)
  return {
    findings = settle(outcome.findings), suppressed = settle(outcome.suppressed), errors = outcome.errors,
    status = status, reason = status == "failed" and why_failed(self, outcome) or nil, needed_seconds = needed_seconds,
    lacking = outcome.lacking, failed = outcome.failed,
    elapsed_ms = self.host.monotonic_ms() - began, time_ms = view.time_ms, generation = view.generation,
  }
end

--- What was found in a view already, by the rules as they are.
local function kept_result(self, view, about)
  local kept = self.results[view]
  if kept and kept.revision == self.registry.revision then return kept.all or kept[about] end
end

local function keep_result(self, view, about, revision, result)
  local kept = self.results[view]
  if not kept or kept.revision ~= revision then
    kept = { revision = revision }
    self.results[view] = kept
  end
  kept[about] = result
end

--- Analyses a view, or gives what was found in it before. Inside a task (lupe.async).
-- @param view of a snapshot, with its keepalive
-- @tparam[opt] table options `pid`: the view is of one process, so the result is not remembered as the run's;
--   `about`: only rules that speak of this ("time" or "memory") need to run, and that is not the run's result either;
--   `params`: of rules, for this time only (lupe.rule_settings.for_request): nothing of it is remembered
--   `occasion`: "scheduled", "leak_check" or "exit", nil for who only reads
--   `program` (of lupe.programs): the view is of that program, one of several, and the result is what is known of it
-- @return the result
function analysis:run(view, options)
  options = options or {}
  local about = options.about or "all"
  self.live:first()
  local result = self.turns:run(function()
    local kept = not options.params and kept_result(self, view, about)
    if kept then return kept end
    local revision = self.registry.revision
    local fresh = compute(self, view, options)
    if not options.params then keep_result(self, view, about, revision, fresh) end
    return fresh
  end)
  if options.pid or options.about or options.params then return result end
  local is_new, program = self.last ~= result, options.program
  if program then
    self.checked_ms = result.time_ms
    self:take_in(result, program)
    if options.occasion == "exit" then self:ended(program) end
  elseif is_new then
    self.last, self.checked_ms = result, result.time_ms
    if not self.host.serves then self:take_in(result) end
  end
  -- What unrelated programs are together is nobody's finding.
  if self.heed and (program or not self.host.serves) and (is_new or options.occasion) then
    self.heed(result, options.occasion, program)
  end
  return result
end

--- Remembers what a check found; of a program of several, with its name and number.
function analysis:take_in(result, program)
  for _, list in ipairs({ result.findings, result.suppressed }) do
    for _, finding in ipairs(list) do
      finding.target = program and { pid = program.pid, name = program.name } or nil
    end
  end
  self.known_findings:add(program and program.key, result.findings, result.suppressed)
end

--- Runs one rule now, aside: the result is not the run's. Inside a task.
-- @param view as for `run`
-- @string id of a rule that is in force
-- @return { findings, elapsed_ms }; or nil and a message
function analysis:evaluate(view, id)
  local entry = self.registry.active[id]
  return self.turns:run(function()
    local began = self.host.monotonic_ms()
    local outcome = {
      findings = {}, suppressed = {}, errors = json.array(), answers = {}, lacking = {}, failed = {},
    }
    local earlier = not FIRST_KINDS[entry.rule.kind] and self:findings() or nil
    self.runner:run(view, { only = id }, nil, earlier, outcome)
    if self.settings:disabled(id) then return nil, id .. " is switched off (rules_disabled)" end
    if outcome.errors[1] then return nil, outcome.errors[1] end
    return { findings = settle(outcome.findings), elapsed_ms = self.host.monotonic_ms() - began }
  end)
end

--- The modules that rules may require are others now: all are loaded anew.
function analysis:renew()
  self.registry:settle()
end

--- The newest result of the whole run, or nil; never waits.
function analysis:latest() return self.last end

--- Its findings; an empty array before the first.
function analysis:findings() return self.last and self.last.findings or json.array() end

--- All that was found so far: see lupe.known_findings.
function analysis:known() return self.known_findings:list() end

--- Whether the newest check of a program has found something, and that the program has ended.
function analysis:accuses(program) return self.known_findings:has(program.key) end

function analysis:ended(program) self.known_findings:ended(program.key) end

--- Every rule's file: array of { path, shipped, id, kind, title, version, params, set (values that the operator's
-- settings give, be they the defaults: name -> value), needs, state, error, shadowed_by, loaded_ms, runs, errors,
-- elapsed_us, findings }.
-- `state`: "active", "shadowed", "disabled", "broken", "quarantined".
function analysis:rules()
  local list = json.array()
  for i, entry in ipairs(self.registry:entries()) do
    local record = self.health:of(entry)
    local loaded = entry.rule or {}
    local state = not entry.rule and "broken" or entry.shadowed_by and "shadowed"
      or self.settings:disabled(loaded.id) and "disabled" or record.quarantined and "quarantined" or "active"
    list[i] = {
      path = entry.path, shipped = entry.shipped, id = loaded.id, kind = loaded.kind, title = loaded.title,
      version = loaded.version, params = loaded.params, set = entry.rule and self.settings:params(loaded),
      needs = loaded.needs, state = state, error = entry.error or entry.clash or record.error,
      shadowed_by = entry.shadowed_by, loaded_ms = entry.loaded_ms, runs = record.runs, errors = record.errors,
      elapsed_us = record.elapsed_us, findings = record.findings,
    }
  end
  return list
end

--- Whether the rules' files have been looked at; before, nothing is known of them.
function analysis:ready() return self.live.ready or false end

--- The ids of the rules of one kind that are in force, in order.
function analysis:ids(kind)
  local ids = {}
  for i, entry in ipairs(self.registry:in_force({ [kind] = true })) do ids[i] = entry.rule.id end
  return ids
end

--- The values that a rule's params have now: name -> value; nil where no rule of that id runs.
function analysis:params_in_force(id)
  local entry = self.registry.active[id]
  if not entry or self.settings:disabled(id) then return nil end
  return rule.params(entry.rule, self.settings:params(entry.rule))
end

--- What is wrong with the directories of rules, and with what the configuration says about rules: array of texts.
function analysis:complaints()
  local list = json.array()
  for _, message in pairs(self.registry.complaints) do list[#list + 1] = message end
  for _, message in ipairs(self.settings:complaints(self.registry:in_force())) do list[#list + 1] = message end
  for _, message in ipairs(self.suppressions:expired()) do list[#list + 1] = message end
  table.sort(list)
  return list
end

--- Whether the worker is confined (core/script/confine.h), and why not; nil while no rule has run.
function analysis:confinement() return self.runner:confinement() end

--- Looks at the rules' files now. Inside a task.
-- @return what became of each: see lupe.live_scripts
function analysis:reload() return self.live:reload() end

--- Has the next scheduled check come as soon as there is a view.
function analysis:check_soon() self.soon = true end

--- How long after a check the next one is worth it: when the run is twice as old, since trends become clear with time,
-- or the leak rules have the history that they asked for; but at the latest after the configured interval.
local function pause_ms(self, view, result)
  local age_ms = self.host.monotonic_ms() - self.began_ms
  local lacking_ms = result.needed_seconds and 1000 * (result.needed_seconds - view.heap.seconds) or 0
  return math.min(math.max(age_ms, lacking_ms), self.host.config.leak_check_interval_secs * 1000)
end

local function check_on_schedule(self, view)
  self.checking = true
  async.spawn(function() return self:run(view, { occasion = "scheduled" }) end, function(ok, result, trace)
    self.checking = false
    if ok then
      self.next_check_ms = self.host.monotonic_ms() + pause_ms(self, view, result)
    else
      self.next_check_ms = self.host.monotonic_ms() + self.host.config.leak_check_interval_secs * 1000
      self.host.log("error", "the scheduled check failed: " .. (trace or tostring(result)))
    end
  end)
end

--- About once a second: files that changed, and the scheduled check; the first one as soon as there is a view.
-- @param views lupe.views, whose merged view is checked, and is what new texts of rules are tried on
function analysis:tick(views)
  local now = self.host.monotonic_ms()
  self.views = views
  self.live:tick()
  self.health:keep(self.registry.by_path)
  if self.complained_revision ~= self.registry.revision or self.suppressions:due() then
    self.complained_revision = self.registry.revision
    self:complaints() -- logs what is new
  end
  if self.host.serves then return end -- programs are checked one by one: lupe.program_checks
  if (self.soon or now >= self.next_check_ms) and not self.checking then
    local view = views:merged()
    if view then
      self.soon = false
      check_on_schedule(self, view)
    end
  end
end

return analysis

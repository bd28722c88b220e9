--- What an embedding program asks of the runtime (core/embed/embedded.h). Loop thread.
-- @module lupe.embedded

local ask_worker = require("lupe.ask_worker")
local async = require("lupe.async")
local budgets = require("lupe.budgets")
local config = require("lupe.config")
local finding_json = require("lupe.finding_json")
local heap_snapshot = require("lupe.heap_snapshot")
local json = require("lupe.json")
local known_findings = require("lupe.known_findings")
local nearest = require("lupe.nearest")
local report = require("lupe.report")
local sampling = require("lupe.sampling")
local urgency = require("lupe.rule").urgency

local embedded = {}

-- As in lupe.h and embedded.h.
local OK, EINVAL, EAGAIN, ENOENT, EPERM, EIO, ENOSPC, ESCRIPT = 0, 1, 4, 7, 8, 9, 10, 12
local FINDING, ALERT = 1, 2
local OPERATIONS = {
  [2] = "about", [3] = "report", [4] = "snapshot", [5] = "evaluate", [6] = "get", [7] = "add_rule", [8] = "add_route",
  [9] = "add_module", [10] = "events",
}

--- What lupe cannot do for a program that it does not start, and why.
local REFUSED = {
  duration_secs = "a program that embeds lupe ends by itself",
  report = "lupe_report gives the report, and a recording holds it",
  output = "lupe_report gives the report, and a recording holds it",
  require = "what cannot be profiled is in lupe_about",
  sample_bytes = "jemalloc's period is settled before main: lg_prof_sample in malloc_conf or MALLOC_CONF",
}
for _, name in ipairs({ "socket", "users", "reports_keep", "reports_max_mb", "reports_min_secs" }) do
  REFUSED[name] = "it is of lupe serve"
end

--- The effective configuration: settings, then the environment, then a file where one is named, then defaults.
-- @param texts array of "NAME=VALUE"
-- @param env function(name) -> string or nil
-- @return as lupe.config.resolve; or nil and a message
function embedded.config(texts, env)
  local given = {}
  for _, text in ipairs(texts) do
    local name, value = text:match("^([^=]+)=(.*)$")
    if not name then return nil, ("settings: %q is not of the form NAME=VALUE"):format(text) end
    local spec = config.by_name[name] or config.by_flag["--" .. name]
    if not spec or not spec.flag then
      local known = {}
      for known_name, one in pairs(config.by_name) do
        if one.flag then known[#known + 1] = known_name end
      end
      local near = nearest(name, known)
      return nil, ("settings: unknown setting %q%s"):format(name, near and (", did you mean %q?"):format(near) or "")
    end
    if REFUSED[spec.name] then
      return nil, ("settings: %s is not for lupe_start: %s"):format(spec.name, REFUSED[spec.name])
    end
    local message
    value, message = config.value(spec, value, spec.name)
    if value == nil then return nil, message end
    given[spec.name] = value
  end
  given.report = "none" -- nobody waits for it at the end
  return config.resolve(given, env, { only_named_file = true })
end

local operations = {}

-- What it sees ------------------------------------------------------------------------------

local UNAVAILABLE = json.shape({ "what string", "reason string" })
local ABOUT = json.shape({
  "mode string", "version string", "url string?", "socket string?", "pid integer", "allocator string",
  "unavailable Unavailable[]", Unavailable = UNAVAILABLE,
})

--- Why the clocks of a target do not run, where that is not the usual pause before they begin.
local function missing_samples(self, target, list)
  local off_because = self.app.capture.off_because or {}
  for _, kind in ipairs({ "cpu", "wall" }) do
    local state, hz = target[kind .. "_state"], self.app.config[kind .. "_hz"]
    if state ~= "off" or hz == 0 or off_because[kind] then
      local reason = sampling.reason(kind, state, hz, off_because)
      if reason then list[#list + 1] = UNAVAILABLE({ what = kind, reason = reason }) end
    end
  end
end

--- @param texts mode, the program's process, its allocator, why its heap is not profiled ("": it is)
function operations.about(self, texts)
  local mode, pid, allocator, heap_missing = texts[1], tonumber(texts[2]), texts[3], texts[4]
  local unavailable = json.array()
  if not self.app.config.enable_profiling then
    unavailable[1] = UNAVAILABLE({ what = "heap", reason = "profiling is switched off (enable_profiling=false)" })
  elseif heap_missing ~= "" then
    unavailable[1] = UNAVAILABLE({ what = "heap", reason = heap_missing })
  end
  for _, target in ipairs(self.host.targets()) do
    if target.pid == pid and target.live then missing_samples(self, target, unavailable) end
  end
  return OK, json.encode(ABOUT({
    mode = mode, version = self.facts.version, url = self.facts.url, socket = self.facts.socket, pid = self.facts.pid,
    allocator = allocator, unavailable = unavailable,
  }))
end

--- @param texts the program's process
function operations.report(self, texts)
  local app = self.app
  local view, reason = app.views:renew()
  if not view then return EAGAIN, "no heap profile is in yet: " .. tostring(reason) end
  local result = app.analysis:run(view)
  local info = {
    pid = tonumber(texts[1]), connected = true, unknown_end = "it is running", notes = app.actions:notes(),
  }
  return OK, json.encode(report.assemble(app, info, view, result))
end

local STATUS_OF_CODE = {
  ENOSPC = ENOSPC, EDQUOT = ENOSPC, EFBIG = ENOSPC, EACCES = EPERM, EPERM = EPERM, EROFS = EPERM, ENODATA = EAGAIN,
}

--- @param texts the path, absolute
function operations.snapshot(self, texts)
  local app, path = self.app, texts[1]
  local view, reason = app.views:fresh()
  if not view then return EAGAIN, "no heap profile is in yet: " .. tostring(reason) end
  local folder, name = path:match("^(.*/)([^/]+)$")
  if not name then return EIO, ("%s: not a file's name"):format(path) end
  self.files = (self.files or 0) + 1
  local temporary = ("%s.%s.%d-%d.part"):format(folder, name:sub(1, 200), self.facts.pid, self.files)
  local ok, message, code = heap_snapshot.write(app, view, nil, nil, temporary)
  if ok then
    message, code = async.await(self.host.replace_file, temporary, path)
  elseif code ~= "EEXIST" then
    self.host.unlink(temporary)
  end
  if not ok or message then
    message = tostring(message)
    return STATUS_OF_CODE[code] or EIO, message:find(path, 1, true) and message or ("%s: %s"):format(path, message)
  end
  return OK
end

--- @param texts a rule's id
function operations.evaluate(self, texts)
  local app, id = self.app, texts[1]
  app.analysis.live:first()
  if not app.analysis.registry.active[id] then
    local ids = {}
    for each in pairs(app.analysis.registry.active) do ids[#ids + 1] = each end
    local near = nearest(id, ids)
    return ENOENT, ("there is no rule %q%s"):format(id, near and (", did you mean %q?"):format(near) or "")
  end
  local view, reason = app.views:renew()
  if not view then return EAGAIN, "no heap profile is in yet: " .. tostring(reason) end
  local result, message = app.analysis:evaluate(view, id)
  if not result then return ESCRIPT, message end
  local findings, now_ms = json.array(), self.host.now_ms()
  for i, finding in ipairs(result.findings) do
    findings[i] = finding_json.of(known_findings.alone(finding, now_ms), app.alerts:of(finding))
  end
  return OK, json.encode(json.ordered({ "rule", "findings", "elapsed_ms" }, {
    rule = id, findings = findings, elapsed_ms = json.round(result.elapsed_ms),
  }))
end

-- What the program adds ---------------------------------------------------------------------

--- Gives a text to a registry, and takes it back where it is not good.
-- @param registry lupe.rules or lupe.user_routes; @param live lupe.live_scripts of it
local function add(registry, live, name, text)
  local before = registry.files:give(name, text)
  local failure
  for _, file in ipairs(live:reload()) do
    if file.path == name and (file.result == "error" or file.result == "kept") then failure = file.error end
  end
  local entry = registry.files.by_path[name]
  failure = failure or not entry and (name .. ": it was not loaded") or entry.error or entry.clash
  if not failure then return OK end
  registry.files:give(name, before)
  live:reload()
  return ESCRIPT, failure
end

function operations.add_rule(self, texts)
  return add(self.app.analysis.registry, self.app.analysis.live, texts[1], texts[2])
end

function operations.add_route(self, texts)
  return add(self.app.user_routes, self.app.user_routes.live, texts[1], texts[2])
end

function operations.add_module(self, texts)
  local name, host = texts[1], self.host
  local modules = {}
  for each, text in pairs(host.modules or {}) do modules[each] = text end
  modules[name] = texts[2]
  local answer, message = ask_worker.once(host,
    { op = "try_module", name = name, modules = modules, deadline_ms = budgets.call_ms }, nil, budgets.call_ms)
  if answer then host.modules = modules end
  self.app.analysis:renew()
  self.app.user_routes:renew()
  if answer then return OK end
  return ESCRIPT, message:find(name, 1, true) and message or ("%s.lua: %s"):format(name, message)
end

-- What it is told ---------------------------------------------------------------------------

local function tell(self, kind, finding, text, known)
  self.facts.tell(kind, finding.rule, finding.severity or "info", (text:gsub("%s+", " ")),
    json.encode(finding_json.of(known, self.app.alerts:of(finding))))
end

--- Findings that were not there at the check before, or are more or less urgent now. Alerts have words of their own.
local function compare(self, result)
  local before, now, keys = self.seen, {}, known_findings.keys(result.findings)
  local by_finding = {}
  for _, known in ipairs(self.app.analysis:known()) do by_finding[known.finding] = known end
  for i, finding in ipairs(result.findings) do
    if finding.kind ~= "alert" then
      now[keys[i]] = urgency(finding)
      if before and before[keys[i]] ~= urgency(finding) then
        local known = by_finding[finding] or known_findings.alone(finding, self.host.now_ms())
        tell(self, FINDING, finding, finding.summary, known)
      end
    end
  end
  self.seen = now
end

--- @param texts "1": from now on; "0": no more
function operations.events(self, texts)
  self.tells = texts[1] == "1"
  return OK
end

local function listen(self)
  local heed = self.app.analysis.heed
  self.seen = {}
  self.app.analysis.heed = function(result, occasion)
    heed(result, occasion)
    if self.tells then
      compare(self, result)
    else
      self.seen = {}
      for i, key in ipairs(known_findings.keys(result.findings)) do self.seen[key] = urgency(result.findings[i]) end
    end
  end
  self.app.alerts.heard = function(alert, words)
    if not self.tells then return end
    local finding, now_ms = alert.finding, self.host.now_ms()
    tell(self, ALERT, finding, ("%s: %s"):format(words, finding.summary), known_findings.alone(finding, now_ms))
  end
end

function operations.get(self, texts)
  local path, query = texts[1]:match("^([^?]*)%??(.*)$")
  local status, _, body = async.await(function(done)
    self.api.handle({ method = "GET", path = path, query = query, headers = {}, body = "", inside = true }, done)
  end)
  return OK, tostring(status), type(body) == "string" and body or json.encode(body)
end

--- @param api what lupe.server made
-- @param respond function(status, text, ...)
-- @param facts { url, socket, pid, version, tell = function(kind, rule, severity, text, json) }
-- @return function(op, texts)
function embedded.new(api, respond, facts)
  collectgarbage("setpause", 120) -- garbage is the program's memory here
  local self = { api = api, app = api.app, host = api.app.host, facts = facts }
  listen(self)
  return function(op, texts)
    local name = OPERATIONS[op]
    local operation = operations[name]
    if not operation then return respond(EINVAL, ("no such operation: %s"):format(tostring(name or op))) end
    async.spawn(function() return operation(self, texts) end, function(ok, status, ...)
      if ok then return respond(status, ...) end
      self.host.log("error", ("%s failed: %s"):format(name, ... or tostring(status)))
      respond(EIO, ("%s failed: %s"):format(name, tostring(status)))
    end)
  end
end

return embedded

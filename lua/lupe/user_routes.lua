--- The users' routes: which files there are, what is wrong with which, and how a request gets to a handler.
-- Handlers run in a worker process of their own (lupe.route_worker), one at a time; nothing of theirs runs here. What a
-- handler waits for by lupe.analyze is made here, while others are served. Loop thread.
-- @module lupe.user_routes

local async = require("lupe.async")
local budgets = require("lupe.budgets")
local json = require("lupe.json")
local live_scripts = require("lupe.live_scripts")
local problem = require("lupe.problem")
local query = require("lupe.query")
local router = require("lupe.router")
local rule_health = require("lupe.rule_health")
local script_files = require("lupe.script_files")

local user_routes = {}
user_routes.__index = user_routes

local SECRET = { authorization = true, ["proxy-authorization"] = true, cookie = true }

--- One call of the worker process: the reply, and the body behind it. What fails has `kind` and `error`.
local function call(self, request, attachment)
  local ok, failure, text = pcall(async.await, self.host.routes_worker, json.encode(request), attachment,
    budgets.call_ms)
  if not ok then return { ok = false, kind = "system", error = tostring(failure) } end
  if failure then
    self.sent, self.snapshot = {}, nil -- the process is another one
    return { ok = false, kind = failure.kind, error = failure.message }
  end
  local line, body = text:match("^([^\n]*)\n?(.*)$")
  return assert(json.decode(line)), body
end

-- What files there are ----------------------------------------------------------------------

--- A path that one of lupe's own has, or could have.
local function taken(self, path)
  for _, own in ipairs(self.own) do
    if router.overlap(own.path, path) then return own end
  end
end

--- For lupe.live_scripts: the text is compiled, run and checked in the worker process.
local function try(self, entry)
  local reply = call(self, {
    op = "try_route", path = entry.path, source = entry.text, modules = self.host.modules,
  })
  if not reply.ok then
    local named = reply.error:find(entry.path:match("[^/]*$"), 1, true)
    return nil, named and reply.error or ("%s: %s"):format(entry.path, reply.error), reply.kind
  end
  local own = taken(self, reply.route.path)
  if own then
    return nil, ("%s: field 'path': '%s' is lupe's own (%s %s): choose another, such as '/api/x/...'"):format(
      entry.path, reply.route.path, own.method, own.path), "error"
  end
  return { loaded = reply.route }
end

--- @param app as lupe.server makes it
-- @param entrance lupe.router, which is told of the routes in force
-- @param own lupe's own routes; with the users' they are `app.routes`
function user_routes.new(app, entrance, own)
  local folder = app.config.routes
  local directories = folder and { { path = folder } } or {}
  local files = script_files.new(directories, "route", app.host.log)
  local self = setmetatable({
    app = app, host = app.host, entrance = entrance, own = own, files = files,
    health = rule_health.new(app.host.log, "route"),
    sent = {}, -- path of a file -> the text that the worker process has of it
    failures = 0, tokens = 0,
  }, user_routes)
  app.routes = own
  self.live = live_scripts.new(app.host, self, function(entry) return try(self, entry) end, { folder })
  if folder then self.live:stir() end
  return self
end

--- The modules that routes may require are others now: what the worker process has was made with those before.
function user_routes:renew() self.sent = {} end

function user_routes:look(final) return self.files:look(final) end

function user_routes.adopt(_, ...) script_files.adopt(...) end

function user_routes:reject(entry, message) self.files:reject(entry, message) end

function user_routes:entries() return self.files:entries() end

--- Whether no request could tell which of two is meant: an exact path goes before one with {names}.
local function clash(one, other)
  if one.path == other.path then return one.method == other.method end
  local exact = not one.path:find("{", 1, true) or not other.path:find("{", 1, true)
  return not exact and router.overlap(one.path, other.path)
end

--- Those whose file is missing come last: where it has another name by now, the new file takes over.
local function present_first(entries)
  local list, missing = {}, {}
  for _, entry in ipairs(entries) do
    local where = entry.missing and missing or list
    where[#where + 1] = entry
  end
  for _, entry in ipairs(missing) do list[#list + 1] = entry end
  return list
end

--- Which routes are in force, after something changed.
function user_routes:settle()
  local routes, active = {}, {}
  for i, one in ipairs(self.own) do routes[i] = one end
  for _, entry in ipairs(present_first(self:entries())) do
    local message
    for _, other in ipairs(entry.loaded and active or {}) do
      if clash(entry.loaded, other.entry.loaded) then
        message = ("%s: field 'path': %s cannot be told from %s of %s"):format(entry.path, entry.loaded.id,
          other.entry.loaded.id, other.entry.path)
        break
      end
    end
    if message and message ~= entry.clash and not entry.missing then self.host.log("error", "route " .. message) end
    entry.clash = message
    if entry.loaded and not message then
      local loaded = entry.loaded
      active[#active + 1] = {
        method = loaded.method, path = loaded.path, summary = loaded.summary, params = loaded.params,
        response = loaded.response and json.shape(loaded.response), own_body = true, entry = entry,
        handler = function(request) return self:serve(entry, request) end,
      }
      routes[#routes + 1] = active[#active]
    end
  end
  self.health:keep(self.files.by_path)
  self.entrance:set_users(active)
  self.app.routes = routes
end

-- Requests ----------------------------------------------------------------------------------

--- What the handler sees of a request. Raises a problem (400).
local function visible(request)
  local headers, body = {}, request.body
  for name, value in pairs(request.headers) do
    if not SECRET[name] then headers[name] = value end
  end
  if body and #body > 0 and query.is_json(request.headers["content-type"]) then
    local message
    body, message = json.decode(body)
    if message then problem.raise(400, "malformed-body", "the body is not JSON: " .. message) end
  end
  return {
    method = request.method, path = request.path, named = request.named, params = request.params, query = request.query,
    headers = headers, body = body,
  }
end

--- The newest snapshot goes first, where the process has another. `self.snapshot` is the one that it has, held weakly.
local function send_snapshot(self)
  local view = self.app.views:merged()
  if not view or self.snapshot and self.snapshot.view == view then return end
  local reply = call(self, { op = "snapshot" }, view.keepalive)
  if reply.ok then
    self.snapshot = setmetatable({ view = view }, { __mode = "v" })
  else
    self.host.log("error", "routes: the snapshot: " .. reply.error)
  end
end

local function start(self, entry, request)
  send_snapshot(self)
  self.tokens = self.tokens + 1
  local asked = { op = "serve", path = entry.path, token = self.tokens, request = request }
  local source = entry.source
  if self.sent[entry.path] ~= source then asked.source, asked.modules = source, self.host.modules end
  local reply, body = call(self, asked)
  if reply.kind == "no_route" then
    asked.source, asked.modules = source, self.host.modules
    reply, body = call(self, asked)
  end
  self.sent[entry.path] = source -- where it is not so, the next request is told "no_route"
  return reply, body, asked.token
end

--- What lupe.analyze gives: a result, or nil and why there is none.
local function analyze(self, wanted)
  local view, missing = self.app.views:newest(wanted.target)
  if not view then return nil, missing end
  local result = self.app.analysis:run(view, { pid = wanted.target, about = wanted.about })
  return {
    findings = result.findings, errors = result.errors, status = result.status, needed_seconds = result.needed_seconds,
    elapsed_ms = result.elapsed_ms, time_ms = result.time_ms,
  }
end

local PROBLEMS = { -- kind of a failure -> status, kind of the problem, what is said
  instructions = { 504, "route-too-slow", "the handler ran longer than it may" },
  deadline = { 504, "route-too-slow", "the handler took longer than it may" },
  memory = { 500, "route-too-large", "the handler took more memory than it may" },
  died = { 503, "route-died", "the process that runs users' routes ended in the handler" },
  no_route = { 503, "route-lost", "the process that runs users' routes ended while the handler waited" },
}
local ERROR = { 500, "route-error", "an error in the handler" }
local UNAVAILABLE = { 503, "routes-unavailable", "users' routes cannot be run now" }

local function fail(self, entry, reply)
  self.failures = self.failures + 1
  local id = ("%x-r%d"):format(math.floor(self.host.started_ms), self.failures)
  local about = PROBLEMS[reply.kind] or live_scripts.to_blame(reply.kind) and ERROR or UNAVAILABLE
  self.health:failed(entry, reply.kind, reply.error, reply.elapsed_us, id)
  problem.raise(about[1], about[2], ("%s; /api/routes has it, and lupe's log under the id %s"):format(about[3], id))
end

--- Answers one request by a file's handler. Inside a task. Raises problems.
function user_routes:serve(entry, request)
  if self.health:of(entry).quarantined then
    problem.raise(503, "route-quarantined", ("%s was stopped several times in a row, and is not run again until its "
      .. "file changes"):format(entry.loaded.id))
  end
  local reply, body, token = start(self, entry, visible(request))
  while reply.ok and reply.waits do
    local ok, result, message = pcall(analyze, self, reply.waits)
    if not ok then
      self.host.log("error", ("%s: the analysis failed: %s"):format(entry.loaded.id, tostring(result)))
      result, message = nil, "the analysis failed; lupe's log says why"
    end
    reply, body = call(self, { op = "resume", token = token, result = result, message = message })
  end
  if not reply.ok then fail(self, entry, reply) end
  self.health:succeeded(entry, reply.elapsed_us, 0)
  return reply.status, reply.headers, body
end

--- Every file: array of { path, id, method, route, summary, state ("active", "broken", "refused": another has its path,
-- "quarantined"), error, loaded_ms, runs, errors, elapsed_us }.
function user_routes:list()
  local list = {}
  for i, entry in ipairs(self:entries()) do
    local record, loaded = self.health:of(entry), entry.loaded or {}
    list[i] = {
      path = entry.path, method = loaded.method, route = loaded.path, summary = loaded.summary,
      state = not entry.loaded and "broken" or entry.clash and "refused" or record.quarantined and "quarantined"
        or "active",
      error = entry.error or entry.clash or record.error, loaded_ms = entry.loaded_ms, runs = record.runs,
      errors = record.errors, elapsed_us = record.elapsed_us,
    }
  end
  return list
end

--- What is wrong with the directory: array of texts.
function user_routes:complaints()
  local list = json.array()
  for _, message in pairs(self.files.complaints) do list[#list + 1] = message end
  return list
end

--- Looks at the files now. Inside a task.
-- @return what became of each: see lupe.live_scripts
function user_routes:reload() return self.live:reload() end

--- About once a second.
function user_routes:tick() self.live:tick() end

return user_routes

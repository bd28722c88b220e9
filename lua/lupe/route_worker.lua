--- What the worker process of the users' routes is asked: operations of lupe.worker.
--
-- * `{op="try_route", path, source}` loads a file aside:
--   `{ok=true, route={id, method, path, summary, params, response}}`
-- * `{op="serve", path, source?, token, request={params, path, named, query, headers, body}}` runs a handler, of the
--   text that comes along, or of what the path had last (kind "no_route": there is none, send it). It answers
--   `{ok=true, status, headers, elapsed_us}`, a line feed and the body; or, where the handler waits,
--   `{ok=true, waits={target, about}, elapsed_us}`
-- * `{op="resume", token, result?, message?}` lets the handler of that `serve` go on, with what lupe.analyze gives:
--   answers like `serve`; kind "no_route": it is not there any more. A number is the token of one request only,
--   whatever process that one went to
--
-- A handler has LIMITS.deadline_ms of CPU time from its begin to its answer; memory and instructions count from one
-- wait to the next. `elapsed_us` is what passed while it worked, waiting left out.
-- @module lupe.route_worker

local budgets = require("lupe.budgets")
local route = require("lupe.route")
local rule = require("lupe.rule")
local sandbox = require("lupe.sandbox")
local view_of = require("lupe.view").from_snapshot

local LIMITS = {
  deadline_ms = budgets.call_ms, memory_bytes = budgets.memory_bytes, instructions = budgets.instructions,
}
local LOADING = {
  deadline_ms = budgets.call_ms, memory_bytes = budgets.memory_bytes, instructions = budgets.load_instructions,
}
local MOST_WAITING = 64 -- handlers that wait for an analysis
local MOST_WAITS = 8 -- of one handler
local ABOUT = { memory = true, time = true }
local WAIT = {} -- what a handler yields by lupe.analyze, and by nothing else

local function failure(kind, message) return { ok = false, kind = kind, error = message:match("^[^\n]*") } end

--- The innermost line of the file in a coroutine that has failed or yielded.
local function place(thread, label)
  local level = 0
  while true do
    local at = debug.getinfo(thread, level, "Sl")
    if not at then return label end
    if at.source == "=" .. label and at.currentline > 0 then return ("%s:%d"):format(label, at.currentline) end
    level = level + 1
  end
end

local function with_place(thread, label, failed)
  if type(failed) ~= "string" then
    return ("%s: (error object is a %s value)"):format(place(thread, label), type(failed))
  end
  return failed:find(label, 1, true) and failed or ("%s: %s"):format(place(thread, label), failed)
end

--- What a file sees as `lupe`. `self.running` is the handler at work.
local function library(self)
  local function running(name)
    local job = self.running
    if not job then error(("lupe.%s: only while a request is handled"):format(name), 3) end
    return job
  end

  local function view()
    local job = running("view")
    local address, size, keepalive = self.host.snapshot()
    if not address then return nil, "no heap profile was taken yet" end
    if job.keepalive ~= keepalive then
      job.view, job.keepalive = assert(view_of(address, size, { keepalive = keepalive })), keepalive
    end
    return job.view
  end

  local function analyze(options)
    local job = running("analyze")
    if coroutine.running() ~= job.thread then
      error("lupe.analyze: call it in the handler itself, not in a coroutine of its own", 2)
    end
    options = options == nil and {} or options
    if type(options) ~= "table" then error("lupe.analyze: expected a table, got " .. type(options), 2) end
    for name, value in next, options do
      local fine = name == "target" and type(value) == "number" and value >= 1 and value % 1 == 0
        or name == "about" and ABOUT[value]
      if not fine then
        error(("lupe.analyze: expected target (a process id) and about ('memory' or 'time'), got %s"):format(
          tostring(name) .. " = " .. tostring(value)), 2)
      end
    end
    if job.waits >= MOST_WAITS then error(("lupe.analyze: more than %d times in one request"):format(MOST_WAITS), 2) end
    job.waits = job.waits + 1
    return coroutine.yield(WAIT, { target = options.target, about = options.about })
  end

  return { view = view, analyze = analyze }
end

--- Compiles, runs and checks one file's text.
-- @return the route; or nil and a failure
local function load(self, path, source)
  local ok, result, _, _, kind = self.host.guarded(rule.label(path), LOADING, function()
    local env = sandbox.new(self.host.tripped, { lupe = library(self) }, self.modules)
    local loaded, message = route.load(path, source, env, function(chunk) return true, chunk() end)
    return { loaded = loaded, message = message }
  end)
  if ok and result.loaded then return result.loaded end
  return nil, failure(ok and "error" or kind, ok and result.message or result)
end

--- Lets a handler work until it answers, waits or fails.
local function drive(self, job, ...)
  local count, arguments = select("#", ...), { ... }
  local label = rule.label(job.file)

  local function outcome(alive, first, second, third)
    if not alive then error(with_place(job.thread, label, first), 0) end
    if coroutine.status(job.thread) == "dead" then
      local status, headers, body = route.answer(label, job.route, first, second, third)
      return { status = status, headers = headers, body = body }
    end
    if first ~= WAIT then error(place(job.thread, label) .. ": yields: only lupe.analyze may wait", 0) end
    return { waits = second }
  end

  self.running = job
  local limits = {
    deadline_ms = math.max(1, LIMITS.deadline_ms - job.cpu_us / 1000), memory_bytes = LIMITS.memory_bytes,
    instructions = LIMITS.instructions,
  }
  local ok, result, elapsed_us, cpu_us, kind = self.host.guarded(label, limits, function()
    return outcome(coroutine.resume(job.thread, unpack(arguments, 1, count)))
  end)
  self.running = nil
  job.elapsed_us, job.cpu_us = job.elapsed_us + elapsed_us, job.cpu_us + cpu_us
  if not ok then
    local failed = failure(kind, result)
    failed.elapsed_us = job.elapsed_us
    return failed
  end
  if not result.waits then
    return { ok = true, status = result.status, headers = result.headers, elapsed_us = job.elapsed_us }, result.body
  end
  if self.waiting_count >= MOST_WAITING then
    return failure("system", ("more than %d handlers wait for an analysis"):format(MOST_WAITING))
  end
  self.waiting[job.token], self.waiting_count = job, self.waiting_count + 1
  return { ok = true, waits = result.waits, elapsed_us = job.elapsed_us }
end

local operations = {}

local function wants_text(request, ...)
  for _, name in ipairs({ ... }) do
    if type(request[name]) ~= "string" then return failure("request", name .. ": expected a text") end
  end
end

function operations.try_route(self, request)
  local refused = wants_text(request, "path", "source")
  if refused then return refused end
  local loaded, failed = load(self, request.path, request.source)
  if not loaded then return failed end
  return {
    ok = true, route = {
      id = loaded.id, method = loaded.method, path = loaded.path, summary = loaded.summary, params = loaded.params,
      response = loaded.response,
    },
  }
end

function operations.serve(self, request)
  local refused = wants_text(request, "path")
  if refused then return refused end
  if type(request.token) ~= "number" then return failure("request", "token: expected a number") end
  if request.source then
    local loaded, failed = load(self, request.path, request.source)
    self.routes[request.path] = loaded
    if not loaded then return failed end
  end
  local loaded = self.routes[request.path]
  if not loaded then return failure("no_route", "no route of that file was sent to this process") end
  local job = {
    file = request.path, route = loaded, token = request.token, thread = coroutine.create(loaded.handler),
    elapsed_us = 0, cpu_us = 0, waits = 0,
  }
  return drive(self, job, request.request)
end

function operations.resume(self, request)
  local job = self.waiting[request.token]
  if not job then return failure("no_route", "the handler that waited is not there any more") end
  self.waiting[request.token], self.waiting_count = nil, self.waiting_count - 1
  return drive(self, job, request.result, request.message)
end

return {
  operations = operations,

  --- Forgets all routes and handlers.
  -- @param self lupe.worker's
  forget = function(self)
    self.routes, self.waiting, self.waiting_count = {}, {}, 0
  end,
}

--- A worker process: what requests there are, and what is answered. There is one for rules, and one for users' routes,
-- with the requests of lupe.route_worker.
-- Requests and replies are JSON objects (one line, where something else follows); core/script/worker_main.c reads and
-- writes them one at a time.
-- Nothing outlives the process: after it ended and was started again there are no rules and no snapshot.
--
-- * `{op="load", rules=[{path, source}...], deadline_ms?}` compiles, runs and checks each file. `{ok=true,
--   rules=[{path, ok=true, id, kind, title, version, needs, params} or {path, ok=false, error, kind}...],
--   confined, unconfined_reason}`: whether this process is confined (core/script/confine.h), and why not.
--   A rule that loads takes the place of the one with its id, and of what its path held before; one that does not
--   changes nothing.
-- * `{op="try", path, source, deadline_ms?}` does the same with one file, aside: `{ok=true, rule={path, id, ...}}`.
--   Nothing that is loaded changes. A `check` with `candidate=path` runs that one.
-- * `{op="try_module", name, modules}` compiles and runs one of the modules, aside: `{ok=true}`
-- Texts of rules and routes come with `modules` (name -> text) where there are any: what they may require.
-- * `{op="snapshot"}` with the descriptor of a snapshot: rules see that one from now on. `{ok=true}`
-- * `{op="base"}` likewise: what rules may compare it with, as `view.base`. `{ok=true}`
-- * `{op="check", id, candidate?, base?, params?, findings?, config?, allocator?, cgroup?, cores?, off_because?,
--   deadline_ms?, memory_bytes?, instructions?}` runs one rule, over a view with these extras (lupe.view): `{ok=true,
--   findings, status, needed_seconds, elapsed_us}` as lupe.rule.run returns them. `base=false`: without what was sent
--   to compare with
-- * `{op="export", findings?, extra?}` with a descriptor to write to: the snapshot as JSON, see lupe.export.
--   `{ok=true, bytes}`
-- * `{op="flamegraph", type, format, title, subtitle, base?}`: the snapshot as a flame graph, see lupe.flamegraph;
--   `base` is an exported snapshot to compare with. `{ok=true, text}`; what is wrong with the base has kind "base"
-- * `{op="status"}`: `{ok=true, rules=[ids], snapshot=boolean, memory_bytes}`
--
-- What fails answers `{ok=false, kind, error}`: kind "error" (a rule's own, "FILE:LINE: message"),
-- "instructions", "deadline" and "memory" (what it had too little of; `limit_us` after its begin that was passed),
-- "no_rule" and "no_snapshot" (send it and ask
-- again), "system" (what the system refused; `code` such as "ENOSPC") or "request" (what was asked makes no sense).
-- @module lupe.worker

local budgets = require("lupe.budgets")
local export = require("lupe.export")
local flamegraph = require("lupe.flamegraph")
local json = require("lupe.json")
local route_worker = require("lupe.route_worker")
local rule = require("lupe.rule")
local sandbox = require("lupe.sandbox")
local snapshot_columns = require("lupe.ffi").snapshot
local view_of = require("lupe.view").from_snapshot
local whole_tables = require("lupe.whole_tables")

local worker = {}

-- Nothing can be required later: a confined process opens no file.
local LIMITS = {
  deadline_ms = budgets.call_ms, memory_bytes = budgets.memory_bytes, instructions = budgets.instructions,
}
local MOST = { deadline_ms = 1e9, memory_bytes = 2 ^ 29, instructions = 1e15 }
local MOST_KEPT_BYTES = 128 * 2 ^ 20 -- by all rules together, between calls

local function failure(kind, message) return { ok = false, kind = kind, error = message } end

--- Everything that scripts left here.
local function forget(self)
  self.rules, self.candidate, self.kept = {}, nil, {}
  route_worker.forget(self)
  collectgarbage()
end

--- The limits of one call: the request's, where it has some, else the usual ones. nil and a failure where one makes
-- no sense.
local function limits_of(request)
  local limits = {}
  for field, usual in pairs(LIMITS) do
    local value = request[field]
    if value == nil then value = usual end
    if type(value) ~= "number" or not (value >= 1 and value <= MOST[field]) then
      return nil, failure("request", ("%s: expected a number from 1 to %.14g"):format(field, MOST[field]))
    end
    limits[field] = value
  end
  return limits
end

local function first_line(text) return (text:match("^[^\n]*")) end

local operations = {}

local function describe(path, loaded)
  return {
    path = path, ok = true, id = loaded.id, kind = loaded.kind, title = loaded.title, version = loaded.version,
    needs = json.array(loaded.needs), params = loaded.params or {},
  }
end

--- Compiles, runs and checks one file's text.
-- @return the rule and what there is to say of it; or nil, a message and a kind
local function load_one(self, path, source, limits)
  local ok, result, _, _, kind = self.host.guarded(rule.label(path), limits, function()
    local env = sandbox.new(self.host.tripped, nil, self.modules)
    local loaded, message = rule.load(path, source, env, function(chunk) return true, chunk() end)
    return loaded and { loaded = loaded, text = json.encode(describe(path, loaded)) } or { message = message }
  end)
  if ok and result.loaded then return result.loaded, json.decode(result.text) end
  return nil, first_line(ok and result.message or result), ok and "error" or kind
end

--- Those of a file's own code.
local function loading_limits(request)
  local limits, refused = limits_of({ deadline_ms = request.deadline_ms })
  if limits then limits.instructions = budgets.load_instructions end
  return limits, refused
end

function operations.load(self, request)
  local limits, refused = loading_limits(request)
  if not limits then return refused end
  local answers = json.array()
  for i, file in ipairs(type(request.rules) == "table" and request.rules or {}) do
    local path, source
    if type(file) == "table" then path, source = file.path, file.source end
    if type(path) ~= "string" or type(source) ~= "string" then
      return failure("request", ("rules[%d]: expected path and source, both text"):format(i))
    end
    local loaded, answer, kind = load_one(self, path, source, limits)
    if loaded then
      for id, other in pairs(self.rules) do
        if other.path == path then self.rules[id] = nil end
      end
      self.rules[loaded.id] = { path = path, rule = loaded }
    end
    answers[i] = loaded and answer or { path = path, ok = false, kind = kind, error = answer }
  end
  local confined, why_not = self.host.confined()
  return { ok = true, rules = answers, confined = confined, unconfined_reason = why_not }
end

function operations.try(self, request)
  local limits, refused = loading_limits(request)
  if not limits then return refused end
  local path, source = request.path, request.source
  if type(path) ~= "string" or type(source) ~= "string" then
    return failure("request", "try: expected path and source, both text")
  end
  local loaded, answer, kind = load_one(self, path, source, limits)
  self.candidate = loaded and { path = path, rule = loaded }
  return loaded and { ok = true, rule = answer } or failure(kind, answer)
end

function operations.try_module(self, request)
  local name = request.name
  local limits, refused = loading_limits(request)
  if not limits then return refused end
  if type(name) ~= "string" or not self.modules[name] then
    return failure("request", "try_module: expected a name, and modules with it")
  end
  local ok, result, _, _, kind = self.host.guarded(name .. ".lua", limits, function()
    sandbox.new(self.host.tripped, nil, self.modules).require(name)
    return true
  end)
  return ok and { ok = true } or failure(kind, first_line(result))
end

function operations.snapshot(self)
  self.kept = {}
  local ok, message = self.host.map()
  if not ok and message:find("^EMFILE") then -- what scripts kept of older ones goes, with all scripts
    forget(self)
    ok, message = self.host.map()
  end
  if not ok then return failure("system", message) end
  return { ok = true }
end

function operations.base(self)
  self.base_kept = {}
  local ok, message = self.host.map("base")
  if not ok then return failure("system", message) end
  return { ok = true }
end

--- The view of what there is to compare with: nil where there is nothing; or nil and a failure.
local function base_view(self)
  local address, size, keepalive = self.host.snapshot("base")
  if not address then return nil end
  local base, message = view_of(address, size, { kept = self.base_kept, keepalive = keepalive })
  return base, message and failure("system", message)
end

--- Address and size of the snapshot, and what keeps it there; or nil and a failure.
local function current_snapshot(self)
  local address, size, keepalive = self.host.snapshot()
  if not address then return nil, failure("no_snapshot", "no snapshot was sent to this process") end
  return address, size, keepalive
end

function operations.check(self, request)
  local kept = self.rules[request.id]
  if request.candidate then
    kept = self.candidate and self.candidate.path == request.candidate and self.candidate
  end
  if not kept then
    return failure("no_rule", ("no rule %s was sent to this process"):format(tostring(request.id)))
  end
  local limits, refused = limits_of(request)
  if not limits then return refused end
  local address, size, keepalive = current_snapshot(self)
  if not address then return size end
  local base
  if request.base ~= false then base, refused = base_view(self) end
  if refused then return refused end
  -- Each check gets a view of its own: what one rule does to the tables in it, the next one does not see. `kept` is
  -- out of reach of rules.
  local view, message = view_of(address, size, {
    findings = request.findings, config = request.config, allocator = request.allocator, cgroup = request.cgroup,
    cores = request.cores, off_because = request.off_because, kept = self.kept,
    base = base, keepalive = keepalive,
  })
  if not view then return failure("system", message) end
  local ok, result, elapsed_us, _, kind, limit_us = self.host.guarded(rule.label(kept.path), limits, function()
    local answer = rule.run(kept.path, kept.rule, view, request.params)
    answer.findings = json.array(answer.findings)
    answer.ok = true
    return answer
  end)
  if not ok then result = failure(kind, first_line(result)) end
  result.elapsed_us, result.limit_us = elapsed_us, limit_us
  return result
end

function operations.export(self, request)
  local address, size = current_snapshot(self)
  if not address then return size end
  local columns, message = snapshot_columns(address, size)
  if not columns then return failure("system", message) end
  local bytes, code
  bytes, message, code = export.write(columns, request, self.host.write)
  if not bytes then
    local failed = failure("system", message)
    failed.code = code
    return failed
  end
  return { ok = true, bytes = bytes }
end

function operations.flamegraph(self, request)
  local address, size = current_snapshot(self)
  if not address then return size end
  local columns, message = snapshot_columns(address, size)
  if not columns then return failure("system", message) end
  local text
  text, message = flamegraph.render(columns, request)
  if not text then return failure("base", message) end
  return { ok = true, text = text }
end

function operations.status(self)
  local ids = json.array()
  for id in pairs(self.rules) do ids[#ids + 1] = id end
  table.sort(ids)
  return { ok = true, rules = ids, snapshot = self.host.snapshot() ~= nil, memory_bytes = self.host.memory() }
end

--- Rules may keep things in locals of their file. Where that is too much, all of them are forgotten: the next
-- check of any is told "no_rule".
local function bound_what_is_kept(self)
  if self.host.memory() < MOST_KEPT_BYTES then return end
  collectgarbage()
  if self.host.memory() < MOST_KEPT_BYTES then return end
  forget(self)
end

for name, operation in pairs(route_worker.operations) do operations[name] = operation end

local names = {}
for name in pairs(operations) do names[#names + 1] = name end
table.sort(names)
local KNOWN = table.concat(names, ", ")

--- @tparam table host what C offers: guarded, tripped, map, snapshot, write, memory, confined
-- @treturn function(text) answers one request, both JSON
function worker.new(host)
  local self = { host = host, modules = {} }
  forget(self)
  sandbox.guard_strings()
  whole_tables()
  collectgarbage("setpause", 120)
  return function(text)
    local request, message = json.decode(text)
    if type(request) ~= "table" then
      return json.encode(failure("request", "not a JSON object: " .. tostring(message)))
    end
    local operation = operations[request.op]
    if not operation then
      return json.encode(failure("request", ("op: expected %s, got %s"):format(KNOWN, tostring(request.op))))
    end
    if type(request.modules) == "table" then self.modules = request.modules end
    local answer, body = operation(self, request)
    local reply = json.encode(answer)
    if body then reply = reply .. "\n" .. body end
    bound_what_is_kept(self)
    return reply
  end
end

return worker

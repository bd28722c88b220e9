--- Finds the route of a request, checks what may be checked without it, runs its handler as a task.
-- A route is { method, path, summary, params, response, handler, rate }: `path` may hold {names},
-- `params` are declared as in `lupe.query`, `response` is a JSON shape, `rate` is the class that
-- `lupe.rate_limit` counts it under ("reads" where absent, false for none). With `raw` query and body are the
-- handler's to read, with `own_body` the body. Users' routes come later than lupe's own, and never in their place.
-- `handler(request, app)` returns status, headers, body, and may wait by `lupe.async`. The body is a
-- table (written as JSON), a string, or { file = path }.
-- @module lupe.router

local async = require("lupe.async")
local guard = require("lupe.guard")
local json = require("lupe.json")
local problem = require("lupe.problem")
local query = require("lupe.query")
local rate_limit = require("lupe.rate_limit")

local router = {}
router.__index = router

local MAX_BODY_BYTES = 65536
local METHODS = { GET = true, HEAD = true, POST = true, PUT = true, DELETE = true, PATCH = true, OPTIONS = true }

local REQUIRED = { method = "string", path = "string", summary = "string", params = "table", handler = "function" }

--- The Lua pattern of a path with {names}, and those names.
local function compile(path)
  local names = {}
  local pattern = path:gsub("[%-%.%+%*%?%^%$%(%)%[%]%%]", "%%%0"):gsub("{([%w_]+)}", function(name)
    names[#names + 1] = name
    return "([^/]+)"
  end)
  return "^" .. pattern .. "$", names
end

local function segments(path)
  local list = {}
  for segment in path:gmatch("[^/]+") do list[#list + 1] = segment:match("^{") and "{}" or segment end
  return list
end

--- Whether there are requests that both paths would match.
function router.overlap(one, other)
  local a, b = segments(one), segments(other)
  if #a ~= #b then return false end
  for i, segment in ipairs(a) do
    if segment ~= b[i] and segment ~= "{}" and b[i] ~= "{}" then return false end
  end
  return true
end

--- Routes by their paths: `places` (path -> { methods }), `patterns` of those with {names}.
local function index(routes)
  local places, patterns = {}, {}
  for _, route in ipairs(routes) do
    for field, kind in pairs(REQUIRED) do
      if type(route[field]) ~= kind then
        error(("route %s %s: %s must be a %s"):format(tostring(route.method), tostring(route.path), field, kind), 3)
      end
    end
    local place = places[route.path]
    if not place then
      place = { methods = {} }
      places[route.path] = place
      local pattern, names = compile(route.path)
      if #names > 0 then patterns[#patterns + 1] = { pattern = pattern, names = names, place = place } end
    end
    if place.methods[route.method] then error(("two routes for %s %s"):format(route.method, route.path), 3) end
    place.methods[route.method] = route
  end
  return { places = places, patterns = patterns }
end

--- @param app what the handlers are given: host, config, and what `lupe.server` adds
-- @param routes array of routes; two for the same method and path are the caller's mistake
function router.new(app, routes)
  local config = app.config
  return setmetatable({
    app = app,
    tables = { index(routes), index({}) }, -- lupe's own, users'
    limits = rate_limit.new({
      reads = config.rate_reads, leak = config.rate_leak, snapshots = config.rate_snapshots,
    }),
  }, router)
end

--- Users' routes, all of them: those before are gone.
function router:set_users(routes) self.tables[2] = index(routes) end

local function allowed(place)
  local list = {}
  for method in pairs(place.methods) do list[#list + 1] = method end
  if place.methods.GET then list[#list + 1] = "HEAD" end
  table.sort(list)
  return table.concat(list, ", ")
end

--- A part of a path as it is meant, or nil where an escape is malformed. A plus is one there, unlike in a query.
local function decoded(part) return query.decode((part:gsub("%+", "%%2B"))) end

--- The names of a path's parts; nil where one of them is malformed.
local function named_parts(names, found)
  local named = {}
  for i, name in ipairs(names) do
    named[name] = decoded(found[i])
    if not named[name] then return nil end
  end
  return named
end

local function find_in(tables, path)
  local place = tables.places[path]
  if place and not path:find("{", 1, true) then return place, {} end
  for _, entry in ipairs(tables.patterns) do
    local found = { path:match(entry.pattern) }
    local named = found[1] and named_parts(entry.names, found)
    if named then return entry.place, named end
  end
end

--- @return the place, and the values of the path's {names}
function router:find(path)
  for _, tables in ipairs(self.tables) do
    local place, named = find_in(tables, path)
    if place then return place, named end
  end
  problem.raise(404, "no-such-route", ("there is nothing at %s"):format(path:sub(1, 200)))
end

--- The route of a request, and its checked parameters. Raises problems.
local function admit(self, request)
  local app = self.app
  if not request.inside then guard.check(request.headers, app.config.listen_host, app.host.port) end
  if request.too_large or #(request.body or "") > MAX_BODY_BYTES then
    problem.raise(413, "body-too-large", ("a body may have %d bytes"):format(MAX_BODY_BYTES))
  end
  local place, named = self:find(request.path)
  local route = place.methods[request.method == "HEAD" and "GET" or request.method]
  if not route then
    problem.raise(405, "method-not-allowed", ("%s is not possible here"):format(request.method:sub(1, 20)),
      { headers = { Allow = allowed(place) } })
  end
  request.route = route
  local class = route.rate == nil and "reads" or route.rate
  if class and not request.inside then
    local ok, wait_secs = self.limits:take(class, request.peer or "", app.host.monotonic_ms())
    if not ok then
      problem.raise(429, "too-many-requests", ("more than %d requests of this kind in a minute; wait %d s")
        :format(self.limits.limits[class], wait_secs), { headers = { ["Retry-After"] = tostring(wait_secs) } })
    end
  end
  request.params = route.raw and {} or query.parse(route.params, request, route.own_body)
  request.named = named
  return route
end

--- An error in a handler: logged with its place, told by its id only.
local function crashed(self, request, failure, trace)
  self.failures = (self.failures or 0) + 1
  local id = ("%x-%d"):format(math.floor(self.app.host.started_ms), self.failures)
  local where = request.route and request.route.path or request.path
  self.app.host.log("error", ("%s %s failed (id %s): %s"):format(request.method, where, id, trace or tostring(failure)))
  return problem.new(500, "internal-error", "an error in lupe itself; its log has the details under the id " .. id)
end

local function as_text(headers, body)
  if type(body) ~= "table" or body.file then return headers, body end
  headers["Content-Type"] = headers["Content-Type"] or "application/json"
  return headers, json.encode(body) .. "\n"
end

--- Answers one request, at once or later.
-- @param request { method, path, query, headers (names in lower case), body, peer, too_large, inside }; `inside`: it
--   came from the program that lupe is a part of, not by HTTP, so it is neither from elsewhere nor counted
-- @param respond function(status, headers, body), called exactly once
function router:handle(request, respond)
  local app, began_ms = self.app, self.app.host.monotonic_ms()

  local function finish(ok, status, headers, body)
    if not ok then
      local failure, trace = status, headers
      if not problem.is(failure) then failure = crashed(self, request, failure, trace) end
      status, headers, body = problem.answer(failure, request.path)
    end
    headers["Cache-Control"] = headers["Cache-Control"] or "no-store"
    headers["X-Content-Type-Options"] = "nosniff"
    local method = METHODS[request.method] and request.method or "other"
    app.http:count(method, request.route and request.route.path or "none", status, app.host.monotonic_ms() - began_ms)
    respond(status, headers, body)
  end

  async.spawn(function()
    local route = admit(self, request)
    local status, headers, body = route.handler(request, app)
    return status, as_text(headers or {}, body)
  end, finish)
end

return router

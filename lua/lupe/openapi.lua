--- The OpenAPI document (3.1) of a list of routes, from what each says of itself:
--
-- * `method`, `path`, `summary`, `params` as in `lupe.router`; `named`: what the path's {names} are, name -> text;
--   `raw`: what query and body hold, in words, where they are no parameters
-- * `own_body`: the body is the handler's to read
-- * `response`: the shape of its JSON answer, or the fields of one; or, by content type, a shape, a JSON Schema, "text"
--   or "bytes". nil: it does not tell
-- * `status`: what it answers with when all is well, status -> meaning; 200 where absent
-- * `problems`: statuses of problems that its handler raises. Those that the router raises are known
-- * `tag`: the group that it belongs to; by the path where absent
-- @module lupe.openapi

local json = require("lupe.json")
local json_schema = require("lupe.json_schema")
local problem = require("lupe.problem")
local value_types = require("lupe.value_types")

local openapi = {}

local VERSION = "3.1.0"
local ABOUT = "What a running native program does with memory and time. HEAD works wherever GET does; a method that a "
  .. "path does not have is a 405 with Allow. Errors are application/problem+json (RFC 9457). Later versions add "
  .. "fields to answers, and take none away."
local ANY = { type = json.array({ "string", "number", "boolean" }) }
local PROBLEM, OTHER_PROBLEM = "application/problem+json", "The detail says what"

--- An object with its members in this order: name, value, name, value ...; without those whose value is nil.
local function object(...)
  local keys, values = {}, {}
  for i = 1, select("#", ...), 2 do
    local key, value = select(i, ...)
    if value ~= nil then keys[#keys + 1], values[key] = key, value end
  end
  return json.ordered(keys, values)
end

local function is_shape(value) return type(value) == "table" and value.fields ~= nil end

-- Names -------------------------------------------------------------------------------------

local function capitalized(text) return (text:gsub("^%l", string.upper)) end

--- "GET", "/api/profiling/snapshot/{id}/download" -> "getProfilingSnapshotIdDownload".
local function operation_id(route, taken)
  local words = { route.method:lower() }
  for word in route.path:gsub("^/api/", "/"):gsub("/$", "/index"):gmatch("%w+") do
    words[#words + 1] = capitalized(word)
  end
  local wanted = table.concat(words)
  local id, number = wanted, 1
  while taken[id] do
    number = number + 1
    id = wanted .. number
  end
  taken[id] = true
  return id
end

local function tag_of(route)
  if route.tag then return route.tag end
  return route.path:gsub("^/api/", "/"):gsub("^/debug/", "/"):match("[%w_-]+") or "other"
end

-- What a route takes ------------------------------------------------------------------------

--- A parameter with a `prefix` stands for all names that begin so.
local function pattern_of(param) return "^" .. param.prefix:gsub("%.", "\\.") end

local function schema_of(param)
  if param.prefix then
    return { type = "object", patternProperties = { [pattern_of(param)] = ANY }, additionalProperties = false }
  end
  local schema = value_types[param.type].schema(param)
  schema.default = param.default
  return schema
end

local function path_parameters(route, list)
  for name in route.path:gmatch("{([%w_]+)}") do
    list[#list + 1] = object("name", name, "in", "path", "description", route.named and route.named[name],
      "required", true, "schema", { type = "string" })
  end
end

local function parameters(route)
  local list = json.array()
  path_parameters(route, list)
  if route.raw then
    if route.method == "GET" then
      list[#list + 1] = object("name", "query", "in", "query", "description", route.raw, "style", "form",
        "explode", true, "schema", { type = "object", additionalProperties = { type = "string" } })
    end
    return list
  end
  for _, param in ipairs(route.params) do
    list[#list + 1] = object("name", param.name, "in", "query", "description", param.doc,
      "style", param.prefix and "form", "explode", param.prefix and true, "schema", schema_of(param))
  end
  return list
end

--- The parameters as one object.
local function parameter_object(params)
  local names, properties, patterns = {}, {}, nil
  for _, param in ipairs(params) do
    if param.prefix then
      patterns = patterns or {}
      patterns[pattern_of(param)] = ANY
    else
      names[#names + 1], properties[param.name] = param.name, schema_of(param)
      properties[param.name].description = param.doc
    end
  end
  return object("type", "object", "properties", json.ordered(names, properties), "patternProperties", patterns,
    "additionalProperties", false)
end

--- Where the handler does not read it itself, the body of a POST holds parameters, and that of other methods nothing.
local function request_body(route)
  if route.method == "GET" then return nil end
  if route.raw or route.own_body then
    return object("description", route.raw, "content", { ["*/*"] = {} })
  end
  if route.method ~= "POST" or not route.params[1] then return nil end
  local schema = parameter_object(route.params)
  return object("description", "The parameters, where they are not in the query", "required", false, "content",
    { ["application/json"] = { schema = schema } })
end

-- What a route answers ----------------------------------------------------------------------

local function media(schemas, what)
  if what == "bytes" then return {} end
  if what == "text" then return { schema = { type = "string" } } end
  return { schema = is_shape(what) and schemas:of_shape(what) or what }
end

local function content(schemas, response)
  if response and response[1] then response = json.shape(response) end
  if is_shape(response) then response = { ["application/json"] = response } end
  if not response then return nil end
  local by_type = {}
  for content_type, what in pairs(response) do by_type[content_type] = media(schemas, what) end
  return by_type
end

--- The statuses of all problems that can come of a request for this route, in order.
local function problems_of(route)
  local list = { 403, 500 }
  local function add(status) list[#list + 1] = status end
  if not route.raw then add(400) end
  if route.method ~= "GET" then add(413) end
  if route.method == "POST" and not route.raw and not route.own_body then add(415) end
  if route.rate ~= false then add(429) end
  for _, status in ipairs(route.problems or {}) do add(status) end
  table.sort(list)
  return list
end

local function responses(route, schemas, used)
  local list, body = {}, content(schemas, route.response)
  for status, meaning in pairs(route.status or { [200] = route.summary }) do
    list[tostring(status)] = object("description", meaning, "content", body)
  end
  for _, status in ipairs(problems_of(route)) do
    used[status] = true
    list[tostring(status)] = { ["$ref"] = ("#/components/responses/Problem%d"):format(status) }
  end
  return list
end

local function problem_responses(schemas, used)
  local list = {}
  for status in pairs(used) do
    local headers = status == 429 and { ["Retry-After"] = {
      description = "the seconds to wait", schema = { type = "integer", minimum = 1 },
    } } or nil
    list[("Problem%d"):format(status)] = object("description", problem.MEANINGS[status] or OTHER_PROBLEM,
      "headers", headers, "content", { [PROBLEM] = { schema = schemas:reference("Problem", problem.SHAPE) } })
  end
  return list
end

-- All together ------------------------------------------------------------------------------

--- @param routes array of routes; two for one method and path are the caller's mistake
-- @string version of the program
-- @return the document, for `json.encode`
function openapi.document(routes, version)
  local schemas = json_schema.new("#/components/schemas/")
  local paths, items, tags, tagged, ids, used = {}, {}, json.array(), {}, {}, {}
  for _, route in ipairs(routes) do
    local item, tag = items[route.path], tag_of(route)
    if not item then
      item = {}
      paths[#paths + 1], items[route.path] = route.path, item
    end
    if not tagged[tag] then
      tags[#tags + 1], tagged[tag] = { name = tag }, true
    end
    item[route.method:lower()] = object("operationId", operation_id(route, ids), "summary", route.summary,
      "tags", { tag }, "parameters", parameters(route), "requestBody", request_body(route),
      "responses", responses(route, schemas, used))
  end
  local of_problems = problem_responses(schemas, used)
  return object("openapi", VERSION, "info", object("title", "lupe", "version", version, "description", ABOUT),
    "servers", { { url = "/" } }, "security", json.array(), "tags", tags, "paths", json.ordered(paths, items),
    "components", object("schemas", json.ordered(schemas.names, schemas.definitions), "responses", of_problems))
end

return openapi

--- One HTTP route of a user's: its contract, checked field by field, and what its handler may answer.
-- A file returns { api = 1, method, path, summary, params, response, handler }. `params` are declared as in lupe.query,
-- `response` (of a JSON object) as in lupe.json's shapes. Nothing here runs a handler unprotected.
-- @module lupe.route

local expect = require("lupe.expect")
local json = require("lupe.json")
local rule = require("lupe.rule")
local value_types = require("lupe.value_types")

local route = {}

local FIELDS = { "api", "method", "path", "summary", "params", "response", "handler" }
local PARAM_FIELDS = { "name", "type", "default", "doc", "min", "max", "values" }
local METHODS = { "DELETE", "GET", "PATCH", "POST", "PUT" }
local PARAM_TYPES = { "boolean", "bytes", "choice", "integer", "number", "pid", "seconds", "text" }
local BOUNDED = { bytes = true, integer = true, number = true, seconds = true }
local RESPONSE_TYPES = { "string", "integer", "number", "boolean", "time", "array", "object" }
-- Headers that the server sets.
local THEIRS = { Connection = true, ["Content-Length"] = true, Date = true, ["Transfer-Encoding"] = true }
local MOST_PARAMS, MOST_RESPONSE_FIELDS, LONGEST_PATH, MOST_HEADERS = 32, 100, 200, 20
local MOST_BODY_BYTES = 8 * 2 ^ 20
local MOST_DEPTH = 60

local ARRAY = debug.getmetatable(json.array())

-- The file ----------------------------------------------------------------------------------

local function check_path(where, path)
  expect.text(where, "path", path, LONGEST_PATH)
  local named = {}
  local function wrong(what) expect.fail(where, "path", "a path such as '/api/x/largest/{module}'", what) end
  if path:sub(1, 1) ~= "/" or path == "/" or path:find("//", 1, true) or path:sub(-1) == "/" then
    wrong(expect.shown(path))
  end
  for segment in path:gmatch("[^/]+") do
    local name = segment:match("^{([%a_][%w_]*)}$")
    if not name and not segment:match("^[%w_~.-]+$") or segment:match("^%.+$") then wrong(expect.shown(path)) end
    if name and named[name] then wrong(("'{%s}' twice"):format(name)) end
    if name then named[name] = true end
  end
  return path
end

local function check_values(where, field, values)
  expect.strings(where, field, expect.plain(where, field, values))
  if #values == 0 then expect.fail(where, field, "at least one text", "none") end
  local copy = {}
  for i, value in ipairs(values) do copy[i] = value end
  return copy
end

local function check_param(where, i, given)
  local prefix = ("params[%d]"):format(i)
  expect.plain(where, prefix, given)
  expect.known(where, prefix .. ".", given, PARAM_FIELDS)
  local name = expect.text(where, prefix .. ".name", given.name, 64)
  if not name:match("^[%a_][%w_-]*$") then
    expect.fail(where, prefix .. ".name", "a name such as 'min_bytes'", expect.shown(name))
  end
  local spec = { name = name, type = expect.one_of(where, prefix .. ".type", given.type, PARAM_TYPES) }
  for _, bound in ipairs({ "min", "max" }) do
    if given[bound] ~= nil then
      if not BOUNDED[spec.type] then
        expect.fail(where, prefix .. "." .. bound, "nothing where the type is " .. spec.type, expect.got(given[bound]))
      end
      spec[bound] = expect.kind(where, prefix .. "." .. bound, given[bound], "number")
    end
  end
  if spec.min and spec.max then expect.range(where, prefix .. ".max", spec.max, { min = spec.min }) end
  if spec.type == "choice" then
    spec.values = check_values(where, prefix .. ".values", given.values)
  elseif given.values ~= nil then
    expect.fail(where, prefix .. ".values", "nothing where the type is " .. spec.type, expect.got(given.values))
  end
  if given.doc ~= nil then spec.doc = expect.text(where, prefix .. ".doc", given.doc) end
  if given.default ~= nil then
    local kind = value_types[spec.type]
    spec.default = kind.parse(given.default, spec)
    if spec.default == nil then
      expect.fail(where, prefix .. ".default", kind.expected(spec), expect.shown(given.default))
    end
  end
  return spec
end

local function check_params(where, given)
  expect.plain(where, "params", given)
  local count = 0
  for _ in pairs(given) do count = count + 1 end
  if count ~= #given then expect.fail(where, "params", "an array", "a table with other keys") end
  if count > MOST_PARAMS then expect.fail(where, "params", ("at most %d"):format(MOST_PARAMS), tostring(count)) end
  local list, seen = json.array(), {}
  for i, one in ipairs(given) do
    list[i] = check_param(where, i, one)
    if seen[list[i].name] then
      expect.fail(where, ("params[%d].name"):format(i), "a name of its own", expect.shown(list[i].name) .. " again")
    end
    seen[list[i].name] = true
  end
  return list
end

local function check_response(where, given)
  expect.strings(where, "response", expect.plain(where, "response", given))
  if #given > MOST_RESPONSE_FIELDS then
    expect.fail(where, "response", ("at most %d fields"):format(MOST_RESPONSE_FIELDS), tostring(#given))
  end
  local list, seen = json.array(), {}
  for i, text in ipairs(given) do
    local field = ("response[%d]"):format(i)
    local name, kind = text:match("^([%a_][%w_]*) (%a+)%[?%]?%??$")
    if not name or not (text:match(" %a+%??$") or text:match(" %a+%[%]%??$")) then
      expect.fail(where, field, "a text such as 'name type', 'sites object[]' or 'reason string?'", expect.shown(text))
    end
    expect.one_of(where, field, kind, RESPONSE_TYPES)
    if seen[name] then expect.fail(where, field, "a name of its own", expect.shown(name) .. " again") end
    seen[name], list[i] = true, text
  end
  return list
end

local function check_route(where, given)
  if type(given) ~= "table" or debug.getmetatable(given) ~= nil then
    error(("%s: expected the file to return a plain table, got %s"):format(where,
      type(given) == "table" and "one with a metatable" or expect.got(given)), 0)
  end
  expect.known(where, "", given, FIELDS)
  expect.kind(where, "api", given.api, "number")
  if given.api ~= 1 then expect.fail(where, "api", "1", tostring(given.api)) end
  local checked = {
    method = expect.one_of(where, "method", given.method, METHODS),
    path = check_path(where, given.path),
    summary = expect.text(where, "summary", given.summary, 200),
    params = check_params(where, given.params == nil and {} or given.params),
    response = given.response ~= nil and check_response(where, given.response) or nil,
    handler = expect.kind(where, "handler", given.handler, "function"),
  }
  checked.id = checked.method .. " " .. checked.path
  checked.shape = checked.response and json.shape(checked.response)
  return checked
end

--- Checks what a route's file returned.
-- @string path for messages
-- @return a table of its own, plain throughout, with `id` ("GET /api/x/hello") and, where it has a response, `shape`;
--   or nil and "FILE: field 'x': expected string, got number"
function route.validate(path, given)
  local ok, result = pcall(check_route, rule.label(path), given)
  if ok then return result end
  return nil, result
end

--- Compiles, runs and checks the text of a route's file: see lupe.rule.load.
function route.load(path, source, env, call) return rule.load(path, source, env, call, route.validate) end

-- The answer --------------------------------------------------------------------------------

--- A copy without metatables, functions and the like; no metamethod of it is asked.
local function plain(where, field, value, depth)
  local kind = type(value)
  if kind == "nil" or kind == "string" or kind == "number" or kind == "boolean" then return value end
  if kind ~= "table" then expect.fail(where, field, "what JSON can hold", "a " .. kind) end
  if depth > MOST_DEPTH then expect.fail(where, field:sub(1, 100), ("%d levels at most"):format(MOST_DEPTH), "more") end
  local meta = debug.getmetatable(value)
  if meta ~= nil and meta ~= ARRAY then
    expect.fail(where, field, "a plain table", "one of a view's (copy the fields that you want)")
  end
  local copy, length, count = {}, #value, 0
  for key, inner in next, value do
    count = count + 1
    if type(key) == "string" then
      if length > 0 or meta then expect.fail(where, field, "an array or names as keys", "both") end
      copy[key] = plain(where, field .. "." .. key:sub(1, 60), inner, depth + 1)
    elseif type(key) == "number" and key >= 1 and key <= length and key % 1 == 0 then
      copy[key] = plain(where, ("%s[%d]"):format(field, key), inner, depth + 1)
    else
      expect.fail(where, field, "an array or names as keys", "a key that is " .. expect.shown(key):sub(1, 60))
    end
  end
  if length > 0 and count ~= length then expect.fail(where, field, "an array without holes", "one with holes") end
  return (meta or length > 0) and json.array(copy) or copy
end

local function check_headers(where, given)
  if given == nil then return {} end
  expect.plain(where, "headers", given)
  local headers, count = {}, 0
  for name, value in next, given do
    if type(name) ~= "string" or not name:match("^[%w!#$%%&'*+.^_`|~-]+$") or #name > 100 then
      expect.fail(where, "headers", "names such as 'Content-Type' as keys", expect.shown(name))
    end
    local field = "headers." .. name
    name = name:lower():gsub("%f[%w]%l", string.upper)
    if THEIRS[name] then expect.fail(where, field, "nothing: lupe sets it", expect.shown(value)) end
    if headers[name] then expect.fail(where, field, "a name of its own", "it twice") end
    if type(value) == "number" then value = ("%.14g"):format(value) end
    expect.text(where, field, value)
    if value:find("[%c\127]") then expect.fail(where, field, "a text without control characters", "one with") end
    count = count + 1
    if count > MOST_HEADERS then expect.fail(where, "headers", ("at most %d"):format(MOST_HEADERS), "more") end
    headers[name] = value
  end
  return headers
end

local function body_text(where, given, body)
  if body == nil then return "" end
  if type(body) == "string" then return body, "text/plain; charset=utf-8" end
  if type(body) ~= "table" then expect.fail(where, "body", "a table (sent as JSON) or a text", expect.got(body)) end
  local copy = plain(where, "body", body, 1)
  if given.shape then
    local ok, message = pcall(given.shape, copy)
    if not ok then
      local name = message:match('no field (".*")$')
      error(("%s: field 'body': expected the fields that 'response' declares, got another: %s"):format(where,
        name or message), 0)
    end
  end
  return json.encode(copy) .. "\n", "application/json"
end

--- Checks what a handler returned, and makes it ready to be sent.
-- @string where for messages: the file
-- @param given the route
-- @return status, headers (name -> text), body (a text). Throws "FILE: answer: field 'x': expected ..."
function route.answer(where, given, status, headers, body)
  where = where .. ": answer"
  expect.kind(where, "status", status, "number")
  if status % 1 ~= 0 or status < 200 or status > 599 then
    expect.fail(where, "status", "a whole number from 200 to 599", expect.shown(status))
  end
  headers = check_headers(where, headers)
  local text, content_type = body_text(where, given, body)
  if #text > MOST_BODY_BYTES then
    expect.fail(where, "body", ("at most %d bytes"):format(MOST_BODY_BYTES), ("%d"):format(#text))
  end
  if (status == 204 or status == 304) and text ~= "" then
    expect.fail(where, "body", ("nothing with status %d"):format(status), ("%d bytes"):format(#text))
  end
  headers["Content-Type"] = headers["Content-Type"] or content_type
  return status, headers, text
end

return route

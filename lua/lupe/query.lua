--- A request's parameters: from the query, and for a POST also from a JSON object in the body.
-- A route declares them as { name =, type =, default =, doc =, min, max, values }, types as in
-- `lupe.value_types`; everything else is refused, by name. One with `prefix` stands for all names that begin so: its
-- value is a table, of what follows the prefix -> the text, or the body's value, as it is.
-- @module lupe.query

local json = require("lupe.json")
local nearest = require("lupe.nearest")
local problem = require("lupe.problem")
local value_types = require("lupe.value_types")

local query = {}

local MAX_PARAMETERS = 64

local function bad(...) problem.raise(400, ...) end

--- Percent-decoding; nil where it is malformed.
local function decode(text)
  text = text:gsub("%+", " ")
  if text:gsub("%%%x%x", ""):find("%", 1, true) then return nil end
  text = text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  return text
end
query.decode = decode

local function declared(params, name)
  for _, spec in ipairs(params) do
    if spec.name == name then return spec end
  end
  local names = {}
  for i, spec in ipairs(params) do names[i] = spec.name end
  local near = nearest(name, names)
  local known = #names > 0 and "known here: " .. table.concat(names, ", ") or "this route takes none"
  bad("unknown-parameter", ("unknown parameter %q%s; %s")
    :format(name, near and (", did you mean %q?"):format(near) or "", known))
end

local function takes_prefixed(values, params, name, given)
  for _, spec in ipairs(params) do
    if spec.prefix and name:sub(1, #spec.prefix) == spec.prefix and #name > #spec.prefix then
      local rest, taken = name:sub(#spec.prefix + 1), values[spec.name] or {}
      if taken[rest] ~= nil then bad("repeated-parameter", ("parameter %q is given more than once"):format(name)) end
      taken[rest], values[spec.name] = given, taken
      return true
    end
  end
  return false
end

local function take(values, params, name, given)
  if takes_prefixed(values, params, name, given) then return end
  local spec = declared(params, name)
  if values[name] ~= nil then bad("repeated-parameter", ("parameter %q is given more than once"):format(name)) end
  local kind = value_types[spec.type]
  local value = kind.parse(given, spec)
  if value == nil then
    local shown = type(given) == "table" and "an object or a list" or ("%q"):format(tostring(given):sub(1, 100))
    bad("invalid-parameter", ("parameter %q: cannot understand %s, expected %s")
      :format(name, shown, kind.expected(spec)))
  end
  values[name] = value
end

local function from_query(values, params, text)
  local count = 0
  for pair in text:gmatch("[^&]+") do
    count = count + 1
    if count > MAX_PARAMETERS then bad("too-many-parameters", ("more than %d parameters"):format(MAX_PARAMETERS)) end
    local name, value = pair:match("^([^=]*)=?(.*)$")
    name, value = decode(name), decode(value)
    if not name or not value then
      bad("malformed-query", ("%q: '%%' must be followed by two hexadecimal digits"):format(pair:sub(1, 100)))
    end
    take(values, params, name, value)
  end
end

local function is_json(content_type)
  local kind = (content_type or ""):lower():match("^%s*([^;%s]*)")
  return kind == "application/json" or kind:match("^application/[%w.+-]+%+json$") ~= nil
end

local function from_body(values, params, request)
  if not is_json(request.headers["content-type"]) then
    problem.raise(415, "not-json", ("the body must be application/json, not %s")
      :format(request.headers["content-type"] or "without a Content-Type"))
  end
  local body, message = json.decode(request.body)
  if type(body) ~= "table" or request.body:match("^%s*%[") then
    bad("malformed-body", "the body must be a JSON object of parameters" .. (message and ": " .. message or ""))
  end
  for name, value in pairs(body) do take(values, params, name, value) end
end

--- Whether a Content-Type is that of JSON.
query.is_json = is_json

--- @param params  what the route declares
-- @param request the request; its body counts where the method is POST
-- @bool own_body the body holds no parameters
-- @return name -> value, defaults filled in. Raises a problem (400, 415).
function query.parse(params, request, own_body)
  local values = {}
  from_query(values, params, request.query or "")
  if not own_body and request.method == "POST" and request.body and #request.body > 0 then
    from_body(values, params, request)
  end
  for _, spec in ipairs(params) do
    if values[spec.name] == nil then values[spec.name] = spec.default end
  end
  return values
end

return query

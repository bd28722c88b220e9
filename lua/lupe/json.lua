--- JSON as lupe speaks it: fields in a fixed order, arrays that stay arrays, never NaN or infinity.
-- lua-cjson reads; writing is done here, since cjson keeps no order and turns an empty array into {}.
-- @module lupe.json

local cjson = require("cjson").new()
cjson.decode_max_depth(64)
local as_utf8 = require("lupe.as_utf8")

local json = {}

local floor, huge = math.floor, math.huge
local MAX_DEPTH = 64
local EXACT_INTEGER = 2 ^ 53

local array_mt = {}
local written_mt = {}

--- Marks a table as an array, so that it is one even when empty.
-- @param list a table (kept, not copied), or nil for a new one
function json.array(list) return setmetatable(list or {}, array_mt) end

--- A value as the text that it is now, to be written into many answers.
function json.written(value) return json.raw(json.encode(value)) end

--- A text that is JSON already, to be put into another as it is.
function json.raw(text) return setmetatable({ text = text }, written_mt) end

local PLAIN = { string = true, integer = true, number = true, boolean = true, object = true, array = true, time = true }

--- A field's declaration, "name type", taken apart.
local function parse_field(text, types)
  local name, kind = text:match("^(%S+) (%S+)$")
  if not name then error("a field is \"name type\", not " .. text, 3) end
  local field = { name = name, nullable = kind:sub(-1) == "?" }
  if field.nullable then kind = kind:sub(1, -2) end
  field.list = kind:sub(-2) == "[]"
  if field.list then kind = kind:sub(1, -3) end
  if kind:find("|", 1, true) then
    field.values = {}
    for word in kind:gmatch("[^|]+") do field.values[#field.values + 1] = word end
    kind = "string"
  end
  if not PLAIN[kind] and types[kind] == nil then
    error(("field %q: %q is no type, and no shape of that name is given"):format(name, kind), 3)
  end
  field.type = kind
  return field
end

--- Declares an object: its fields, in their order, each "name type" (`?`: may be null, `[]`: a list).
-- Types are string, integer, number, boolean, time (RFC 3339), array, object (of no declared fields), one of some words
-- ("low|high"), or the name of another shape, which is given beside the fields: `true` for this one itself, or a
-- JSON Schema where it is none. Types are for documentation; what is written is checked by the specs.
-- Calling the shape with a table of values marks it to be written in that order; a field that was
-- not declared is an error, a declared one without a value is written as null.
-- @param fields array of strings, and name = shape
-- @return a callable shape; its `.fields` are { name, type, nullable, list, values }, and `.types` name -> shape
function json.shape(fields)
  local shape = { fields = {}, known = {}, types = {} }
  for name, inner in pairs(fields) do
    if type(name) == "string" then shape.types[name] = inner == true and shape or inner end
  end
  for i, text in ipairs(fields) do
    local field = parse_field(text, shape.types)
    shape.fields[i] = field
    shape.known[field.name] = true
  end
  local object_mt = { shape = shape }
  return setmetatable(shape, {
    __call = function(_, values)
      for name in pairs(values) do
        if not shape.known[name] then error(("this object has no field %q"):format(tostring(name)), 2) end
      end
      return setmetatable(values, object_mt)
    end,
  })
end

--- Marks a table as an object whose keys are written in this order, and not sorted.
-- @param keys array of strings; @param values key -> value (kept, not copied)
function json.ordered(keys, values) return setmetatable(values, { keys = keys }) end

--- A number cut to so many decimals; nil stays nil, and NaN and infinity become nil.
function json.round(number, decimals)
  if not number or number ~= number or number == huge or number == -huge then return nil end
  local factor = 10 ^ (decimals or 3)
  return floor(number * factor + 0.5) / factor
end

--- The first elements of a list, `count` at most.
function json.first(list, count)
  local cut = {}
  for i = 1, math.min(#list, count) do cut[i] = list[i] end
  return cut
end

--- Figures of no declared precision, such as a rule's evidence: six digits that count, whole numbers as they are.
-- @param values name -> anything
-- @return a copy, or nil for nil
function json.shortened(values)
  if not values then return nil end
  local copy = {}
  for name, value in pairs(values) do
    local fraction = type(value) == "number" and value % 1 ~= 0 and math.abs(value) < huge
    copy[name] = fraction and tonumber(("%.6g"):format(value)) or value
  end
  return copy
end

local function number_text(number)
  if number ~= number or number == huge or number == -huge then return "null" end
  if number % 1 == 0 and number > -EXACT_INTEGER and number < EXACT_INTEGER then return ("%.0f"):format(number) end
  local text = ("%.14g"):format(number)
  if tonumber(text) ~= number then text = ("%.17g"):format(number) end
  return text
end

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function escape(char) return ESCAPES[char] or ("\\u%04x"):format(char:byte()) end

local function string_text(text)
  text = as_utf8(text)
  if text:find('[%z\1-\31"\\\127]') then text = text:gsub('[%z\1-\31"\\\127]', escape) end
  return '"' .. text .. '"'
end

local write

local function write_array(out, list, depth)
  out[#out + 1] = "["
  for i = 1, #list do
    if i > 1 then out[#out + 1] = "," end
    write(out, list[i], depth)
  end
  out[#out + 1] = "]"
end

local function write_shaped(out, object, shape, depth)
  local fields = shape.fields
  for i = 1, #fields do
    local field = fields[i]
    out[#out + 1] = (i == 1 and '{"' or ',"') .. field.name .. '":'
    local value = rawget(object, field.name)
    if field.list and type(value) == "table" and getmetatable(value) ~= written_mt then
      write_array(out, value, depth)
    else
      write(out, value, depth)
    end
  end
  out[#out + 1] = #fields == 0 and "{}" or "}"
end

local function sorted_keys(object)
  local keys = {}
  for key in pairs(object) do
    if type(key) ~= "string" then error("a JSON object's key must be a string, not a " .. type(key), 0) end
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end

local function write_free(out, object, keys, depth)
  out[#out + 1] = "{"
  for i, key in ipairs(keys) do
    out[#out + 1] = (i > 1 and "," or "") .. string_text(key) .. ":"
    write(out, object[key], depth)
  end
  out[#out + 1] = "}"
end

write = function(out, value, depth)
  local kind = type(value)
  if kind == "table" then
    if depth > MAX_DEPTH then error("JSON nested too deep", 0) end
    local mt = getmetatable(value)
    if mt == array_mt then
      write_array(out, value, depth + 1)
    elseif mt == written_mt then
      out[#out + 1] = value.text
    elseif mt and mt.shape then
      write_shaped(out, value, mt.shape, depth + 1)
    elseif value[1] ~= nil then
      write_array(out, value, depth + 1)
    else
      write_free(out, value, mt and mt.keys or sorted_keys(value), depth + 1)
    end
  elseif kind == "string" then
    out[#out + 1] = string_text(value)
  elseif kind == "number" then
    out[#out + 1] = number_text(value)
  elseif kind == "boolean" then
    out[#out + 1] = value and "true" or "false"
  elseif value == nil or value == cjson.null then
    out[#out + 1] = "null"
  else
    error("a " .. kind .. " cannot be written as JSON", 0)
  end
end

--- @param value nil, boolean, number, string, or a table: shaped or ordered (fields in order), an array (marked, or
-- with an element 1), or else an object with its keys sorted
-- @return the text, one line. Raises on functions, cycles and the like: the caller's mistake.
function json.encode(value)
  local out = {}
  write(out, value, 1)
  return table.concat(out)
end

local function without_null(value)
  if type(value) ~= "table" then return value end
  for key, inner in pairs(value) do
    if inner == cjson.null then
      value[key] = nil
    else
      without_null(inner)
    end
  end
  return value
end

--- @return the value, with null members absent; or nil and a message
function json.decode(text)
  local ok, value = pcall(cjson.decode, text)
  if not ok then return nil, (tostring(value):gsub("^.-:%d+: ", "")) end
  if value == cjson.null then return nil end
  return without_null(value)
end

return json

--- JSON Schema (2020-12) of what shapes declare.
-- Shapes that a field names become definitions of their own, which the fields refer to: so a shape may hold itself.
-- @module lupe.json_schema

local json = require("lupe.json")

local json_schema = {}
json_schema.__index = json_schema

--- @string prefix what a reference begins with, such as "#/components/schemas/"
-- @return a collector: `names` in the order of their first use, and `definitions` by name
function json_schema.new(prefix)
  return setmetatable({ prefix = prefix, names = {}, definitions = {}, name_of = {} }, json_schema)
end

--- A name that nothing has yet: the one wanted, or with a number behind it.
local function free_name(taken, wanted)
  local name, number = wanted, 1
  while taken[name] do
    number = number + 1
    name = wanted .. number
  end
  return name
end

--- A reference to a shape, which becomes a definition where it is none yet.
function json_schema:reference(wanted, shape)
  local name = self.name_of[shape]
  if not name then
    name = free_name(self.definitions, wanted)
    self.name_of[shape], self.names[#self.names + 1] = name, name
    self.definitions[name] = {} -- the place is taken, also for what the shape holds
    self.definitions[name] = self:of_shape(shape)
  end
  return { ["$ref"] = self.prefix .. name }
end

local function plain(field)
  if field.values then return { type = "string", enum = json.array({ unpack(field.values) }) } end
  if field.type == "time" then return { type = "string", format = "date-time" } end
  return { type = field.type }
end

local function or_null(schema)
  if type(schema.type) ~= "string" then return { anyOf = { schema, { type = "null" } } } end
  schema.type = { schema.type, "null" }
  if schema.enum then schema.enum[#schema.enum + 1] = json.raw("null") end
  return schema
end

function json_schema:of_field(field, types)
  local named = types[field.type]
  local schema
  if not named then
    schema = plain(field)
  elseif named.fields then
    schema = self:reference(field.type, named)
  else
    schema = { allOf = { named } } -- a schema as it was given, which is not ours to change
  end
  if field.list then schema = { type = "array", items = schema } end
  return field.nullable and or_null(schema) or schema
end

--- @param shape as `json.shape` makes it
-- @return its schema: all fields are there, null where they may be. Later versions add fields, so others are not ruled
--   out.
function json_schema:of_shape(shape)
  local names, properties = json.array(), {}
  for i, field in ipairs(shape.fields) do
    names[i] = field.name
    properties[field.name] = self:of_field(field, shape.types)
  end
  return json.ordered({ "type", "required", "properties" }, {
    type = "object", required = names, properties = json.ordered(names, properties),
  })
end

return json_schema

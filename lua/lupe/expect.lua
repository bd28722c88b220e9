--- What was expected and what came instead: the messages about tables that people write (rules, settings).
-- Each check throws "WHERE: field 'x': expected A, got B", without a position; who calls them catches that once, at
-- the edge. `where` says whose field it is: a file, or what of it. No value is made a text by its own __tostring, and
-- no table asked by its own __index.
-- @module lupe.expect

local nearest = require("lupe.nearest")

local expect = {}

expect.LONGEST_TEXT = 4096 -- bytes, unless a caller says otherwise

function expect.contains(list, value)
  for _, known in ipairs(list) do
    if known == value then return true end
  end
  return false
end

function expect.got(value) return value == nil and "nothing" or type(value) end

local function key_name(key)
  if type(key) == "string" then return key end
  return type(key) == "number" and ("[%.14g]"):format(key) or "[a " .. type(key) .. "]"
end

function expect.shown(value)
  return type(value) == "string" and "'" .. value:sub(1, 100) .. "'" or tostring(value)
end

function expect.fail(where, field, expected, value)
  error(("%s: field '%s': expected %s, got %s"):format(where, field, expected, value), 0)
end

--- A value of a type; a number that is finite.
function expect.kind(where, field, value, kind)
  if type(value) ~= kind then expect.fail(where, field, kind, expect.got(value)) end
  if kind == "number" and (value ~= value or math.abs(value) == math.huge) then
    expect.fail(where, field, "a finite number", tostring(value))
  end
  return value
end

function expect.text(where, field, value, longest)
  expect.kind(where, field, value, "string")
  longest = longest or expect.LONGEST_TEXT
  if #value > longest then expect.fail(where, field, ("at most %d bytes"):format(longest), ("%d"):format(#value)) end
  return value
end

--- A table without a metatable: what is in it is what it looks like.
function expect.plain(where, field, value)
  expect.kind(where, field, value, "table")
  if debug.getmetatable(value) ~= nil then expect.fail(where, field, "a plain table", "one with a metatable") end
  return value
end

function expect.one_of(where, field, value, list)
  expect.kind(where, field, value, "string")
  if expect.contains(list, value) then return value end
  local near = nearest(value, list)
  expect.fail(where, field, "one of " .. table.concat(list, ", "),
    expect.shown(value) .. (near and (" (did you mean '%s'?)"):format(near) or ""))
end

--- Refuses keys of `given` that are not in `known`.
-- @string prefix of the key in the message, such as "params."
function expect.known(where, prefix, given, known)
  local unknown = {}
  for name in pairs(given) do
    if not expect.contains(known, name) then unknown[#unknown + 1] = key_name(name) end
  end
  if #unknown == 0 then return end
  table.sort(unknown)
  local near = nearest(unknown[1], known)
  local hint = near and (", did you mean '%s%s'?"):format(prefix, near)
    or "; known: " .. (known[1] and table.concat(known, ", ") or "none")
  error(("%s: unknown field '%s%s'%s"):format(where, prefix, unknown[1]:sub(1, 100), hint), 0)
end

--- An array of texts, and nothing else in it.
function expect.strings(where, field, list)
  expect.kind(where, field, list, "table")
  local count = 0
  for _ in pairs(list) do count = count + 1 end
  if count ~= #list then expect.fail(where, field, "an array", "a table with other keys") end
  for i, text in ipairs(list) do expect.kind(where, ("%s[%d]"):format(field, i), text, "string") end
  return list
end

--- Where `value` is a number: within `spec.min` and `spec.max`, where these are there.
function expect.range(where, field, value, spec)
  if type(value) ~= "number" then return end
  local least, most = spec.min, spec.max
  if least and value < least then expect.fail(where, field, ("at least %.14g"):format(least), tostring(value)) end
  if most and value > most then expect.fail(where, field, ("at most %.14g"):format(most), tostring(value)) end
end

return expect

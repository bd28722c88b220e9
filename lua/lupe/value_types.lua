--- How a setting's or a query parameter's text becomes a value: one entry per type.
-- `parse(given, spec)` takes a string (flag, environment, query) or a Lua value (lupe.conf.lua) and
-- returns the value, or nil when it cannot be understood; `expected(spec)` says what would have been, and
-- `schema(spec)` says it as JSON Schema.
-- @module lupe.value_types

local time = require("lupe.time")

local types = {}

local LONGEST_TEXT = 256

local function number_of(given)
  if type(given) == "number" then return given end
  if type(given) ~= "string" or not given:match("^%-?%d+%.?%d*$") then return nil end
  return tonumber(given)
end

local function within(value, spec)
  if not value or value ~= value then return nil end
  if spec.min and value < spec.min or spec.max and value > spec.max then return nil end
  return value
end

local function range(spec, show)
  show = show or function(n) return ("%.14g"):format(n) end
  if spec.min and spec.max then return (" from %s to %s"):format(show(spec.min), show(spec.max)) end
  if spec.min then return (" of at least %s"):format(show(spec.min)) end
  if spec.max then return (" of at most %s"):format(show(spec.max)) end
  return ""
end

--- The schema of a number of that kind within the bounds.
local function number_schema(kind)
  return function(spec) return { type = kind, minimum = spec.min, maximum = spec.max } end
end

--- That of a number within the bounds, or a text such as "5m" or "512K".
local function quantity_schema(kind, pattern)
  return function(spec)
    return { anyOf = {
      { type = kind, minimum = spec.min, maximum = spec.max }, { type = "string", pattern = pattern },
    } }
  end
end

types.integer = {
  placeholder = "N",
  schema = number_schema("integer"),
  parse = function(given, spec)
    local n = number_of(given)
    if n and n % 1 ~= 0 then return nil end
    return within(n, spec)
  end,
  expected = function(spec) return "a whole number" .. range(spec) end,
}

types.number = {
  placeholder = "N",
  schema = number_schema("number"),
  parse = function(given, spec) return within(number_of(given), spec) end,
  expected = function(spec) return "a number" .. range(spec) end,
}

local SECONDS = { ms = 0.001, s = 1, m = 60, h = 3600 }

local DURATION_PATTERN = "^[0-9]+(\\.[0-9]*)?(ms|s|m|h)$"

types.seconds = {
  placeholder = "SECS",
  schema = quantity_schema("number", DURATION_PATTERN),
  parse = function(given, spec)
    local n = number_of(given)
    if not n and type(given) == "string" then
      local digits, unit = given:match("^(%d+%.?%d*)(%a+)$")
      n = digits and SECONDS[unit] and tonumber(digits) * SECONDS[unit]
    end
    return within(n, spec)
  end,
  expected = function(spec)
    return ("a time in seconds%s, such as 5, 500ms, 2m or 1h"):format(range(spec))
  end,
}

--- One of the words of `words`, or a time in seconds.
types.word_or_seconds = {
  placeholder = "WORD|SECS",
  schema = function(spec)
    local schema = types.seconds.schema(spec)
    table.insert(schema.anyOf, 1, { type = "string", enum = spec.words })
    return schema
  end,
  parse = function(given, spec)
    for _, word in ipairs(spec.words) do
      if given == word then return word end
    end
    return types.seconds.parse(given, spec)
  end,
  expected = function(spec)
    return ("one of %s, or %s"):format(table.concat(spec.words, ", "), types.seconds.expected(spec))
  end,
}

local BYTES = { [""] = 1, k = 2 ^ 10, m = 2 ^ 20, g = 2 ^ 30 }

types.bytes = {
  placeholder = "N",
  schema = quantity_schema("integer", "^[0-9]+(\\.[0-9]*)?[kKmMgG]?[iI]?[bB]?$"),
  parse = function(given, spec)
    local n = number_of(given)
    if not n and type(given) == "string" then
      local digits, unit = given:lower():match("^(%d+%.?%d*)([kmg]?)i?b?$")
      n = digits and tonumber(digits) * BYTES[unit]
    end
    if n and n % 1 ~= 0 then return nil end
    return within(n, spec)
  end,
  expected = function(spec) return ("a size in bytes%s, such as 524288 or 512K"):format(range(spec)) end,
}

--- A moment: its Unix time in milliseconds from a text of RFC 3339, or how long ago it was.
-- The value is { unix_ms = } or { ago_ms = }: only who has a clock can tell the one from the other.
types.moment = {
  placeholder = "TIME",
  schema = function()
    return { anyOf = {
      { type = "string", format = "date-time" }, { type = "number", minimum = 0 },
      { type = "string", pattern = DURATION_PATTERN },
    } }
  end,
  parse = function(given)
    local ago = types.seconds.parse(given, { min = 0 })
    if ago then return { ago_ms = ago * 1000 } end
    local unix_ms = type(given) == "string" and time.parse(given)
    return unix_ms and { unix_ms = unix_ms } or nil
  end,
  expected = function() return "a time such as 2026-11-23T06:07:14Z, or the seconds up to now, such as 300 or 5m" end,
}

local TRUTH = {
  ["true"] = true, ["1"] = true, yes = true, on = true, ["false"] = false, ["0"] = false, no = false, off = false,
}

types.boolean = {
  placeholder = "BOOL",
  schema = function() return { type = "boolean" } end,
  parse = function(given)
    if type(given) == "boolean" then return given end
    if type(given) == "string" then return TRUTH[given:lower()] end
    return nil
  end,
  expected = function() return "true or false" end,
}

types.choice = {
  placeholder = "WORD",
  schema = function(spec) return { type = "string", enum = spec.values } end,
  parse = function(given, spec)
    for _, value in ipairs(spec.values) do
      if given == value then return value end
    end
    return nil
  end,
  expected = function(spec) return "one of " .. table.concat(spec.values, ", ") end,
}

--- Some of the words of `values`, separated by commas; in a file also an array of them.
types.words = {
  placeholder = "WORD,...",
  schema = function(spec) return { type = "array", items = { enum = spec.values }, uniqueItems = true } end,
  parse = function(given, spec)
    local list, seen = {}, {}
    if type(given) == "string" then
      local words = {}
      for word in (given == "none" and "" or given):gmatch("[^,%s]+") do words[#words + 1] = word end
      given = words
    end
    if type(given) ~= "table" then return nil end
    for name in pairs(given) do
      local word = types.choice.parse(given[name], spec)
      if type(name) ~= "number" or not word then return nil end
    end
    for _, word in ipairs(given) do
      if not seen[word] then list[#list + 1] = word end
      seen[word] = true
    end
    return list
  end,
  expected = function(spec) return ("none, or some of %s"):format(table.concat(spec.values, ",")) end,
}

types.text = {
  placeholder = "TEXT",
  schema = function() return { type = "string", maxLength = LONGEST_TEXT } end,
  parse = function(given) return type(given) == "string" and #given <= LONGEST_TEXT and given or nil end,
  expected = function() return ("a text of at most %d bytes"):format(LONGEST_TEXT) end,
}

types.path = {
  placeholder = "PATH",
  schema = function() return { type = "string", minLength = 1 } end,
  parse = function(given)
    if type(given) ~= "string" or given == "" or given:find("%z") then return nil end
    return given
  end,
  expected = function() return "a path" end,
}

--- HOST:PORT or [HOST]:PORT; a port alone means the loopback address.
types.address = {
  placeholder = "ADDR",
  schema = function() return { type = "string" } end,
  parse = function(given)
    if type(given) == "number" then given = tostring(given) end
    if type(given) ~= "string" then return nil end
    local host, port = given:match("^%[([%x:.]+)%]:(%d+)$")
    if not host then host, port = given:match("^([%w%-.]*):(%d+)$") end
    if not host then host, port = "", given:match("^(%d+)$") end
    port = tonumber(port)
    if not port or port > 65535 then return nil end
    if host == "" or host == "localhost" then host = "127.0.0.1" end
    if host:find(":", 1, true) then host = "[" .. host .. "]" end
    return ("%s:%d"):format(host, port)
  end,
  expected = function() return "an address such as 127.0.0.1:7077 or [::1]:7077 (port 0: any free one)" end,
}

local PIDS = { min = 1, max = 4194304 }

--- The process id of a target.
types.pid = {
  placeholder = "PID",
  schema = function() return types.integer.schema(PIDS) end,
  parse = function(given) return types.integer.parse(given, PIDS) end,
  expected = function() return "a process id" end,
}

return types

--- The effective configuration: flag, then environment, then lupe.conf.lua, then default.
-- @module lupe.config

local nearest = require("lupe.nearest")
local settings = require("lupe.settings")
local value_types = require("lupe.value_types")

local config = {}

local DEFAULT_FILE = "lupe.conf.lua"
local FILE_MAX_BYTES = 65536
local FILE_MAX_INSTRUCTIONS = 1000000

config.by_flag, config.by_name, config.flags = {}, {}, {}
for _, spec in ipairs(settings) do
  config.by_name[spec.name] = spec
  if spec.flag then
    config.by_flag[spec.flag] = spec
    config.flags[#config.flags + 1] = spec.flag
  end
end

local function shown(given)
  if type(given) == "string" then return (("%q"):format(given):gsub("\\\n", "\\n")) end
  return tostring(given)
end

--- One value by its setting's type.
-- @return the value; or nil and a message with the name, the value and what was expected
function config.value(spec, given, called)
  if spec.check then return spec.check(called, given) end
  local kind = value_types[spec.type]
  local value = kind.parse(given, spec)
  if value == nil then
    return nil, ("%s: cannot understand %s, expected %s"):format(called, shown(given), kind.expected(spec))
  end
  return value
end

--- Reads a configuration file: plain Lua without any library, which returns a table of settings.
-- @return the table; nil where `optional` and there is none; or nil and a message
local function read_file(path, optional)
  local file = io.open(path, "rb")
  if not file then
    if optional then return nil end
    return nil, ("%s: cannot be opened"):format(path)
  end
  local text = file:read(FILE_MAX_BYTES + 1)
  file:close()
  text = text or ""
  if #text > FILE_MAX_BYTES then return nil, ("%s: longer than %d bytes"):format(path, FILE_MAX_BYTES) end
  if text:byte(1) == 27 then return nil, ("%s: bytecode is not read, only Lua text"):format(path) end

  local chunk, message = loadstring(text, "=" .. path)
  if not chunk then return nil, message end
  setfenv(chunk, {})
  jit.off(chunk, true) -- compiled loops never meet the hook
  local run = coroutine.create(chunk)
  debug.sethook(function() error("takes too long", 0) end, "", FILE_MAX_INSTRUCTIONS)
  local ok, result = coroutine.resume(run)
  debug.sethook() -- LuaJIT's hook is one for all coroutines
  if not ok then return nil, tostring(result):find(path, 1, true) and result or path .. ": " .. tostring(result) end
  if type(result) ~= "table" then
    return nil, ("%s: must return a table of settings, returned a %s"):format(path, type(result))
  end
  return result
end

local function check_file(path, values)
  local names = {}
  for name, spec in pairs(config.by_name) do
    if not spec.not_in_file then names[#names + 1] = name end
  end
  table.sort(names)
  for name in pairs(values) do
    local spec = config.by_name[name]
    if not spec or spec.not_in_file then
      local near = nearest(tostring(name), names)
      local hint = near and (", did you mean %q?"):format(near) or ""
      return nil, ("%s: unknown setting %s%s"):format(path, shown(name), hint)
    end
  end
  return true
end

local function is_loopback(host)
  return host:match("^127%.%d+%.%d+%.%d+$") ~= nil or host == "::1"
end

--- What no single setting can see: addresses and limits that belong together.
local function check_together(values)
  local host, port = values.listen:match("^%[?(.-)%]?:(%d+)$")
  if not is_loopback(host) then
    return nil, ("listen: %s is not a loopback address. Whoever reaches the API can read what the program allocates, "
      .. "so lupe listens on 127.0.0.0/8 or [::1] only; to reach it from elsewhere, use: ssh -L %s:%s:%s HOST")
      :format(values.listen, port, "127.0.0.1", port)
  end
  values.listen_host, values.listen_port = host, tonumber(port)
  values.listen_given = values.sources.listen ~= "default"
  if values.memory_alert_mb < values.memory_warning_mb then
    return nil, ("memory_alert_mb: %.14g is below memory_warning_mb (%.14g), expected at least that")
      :format(values.memory_alert_mb, values.memory_warning_mb)
  end
  return values
end

--- Resolves all settings.
-- @param flags  name -> value of what the command line gave (already parsed)
-- @param env    function(name) -> string or nil
-- @tparam[opt] table options `only_named_file`: the working folder's file is not looked for
-- @return table of name -> value, with `sources` (name -> "flag", "environment", "file" or "default"),
-- `listen_host`, `listen_port` and `listen_given`; or nil and a message
function config.resolve(flags, env, options)
  local values = { sources = {} }
  local path = flags.config or env("LUPE_CONFIG")
  local from_file, message
  if path or not (options and options.only_named_file) then
    from_file, message = read_file(path or DEFAULT_FILE, not path)
    if message then return nil, message end
  end
  path = path or DEFAULT_FILE
  if from_file then
    local ok
    ok, message = check_file(path, from_file)
    if not ok then return nil, message end
  end

  for _, spec in ipairs(settings) do
    local name, source = spec.name, "default"
    local value
    local text = spec.env and env(spec.env)
    if flags[name] ~= nil then
      value, source = flags[name], "flag"
    elseif text and text ~= "" then
      value, message = config.value(spec, text, spec.env)
      if value == nil then return nil, message end
      source = "environment"
    elseif from_file and from_file[name] ~= nil then
      value, message = config.value(spec, from_file[name], path .. ": " .. name)
      if value == nil then return nil, message end
      source = "file"
    elseif spec.default_from then
      value = spec.default_from(env)
    else
      value = spec.default
    end
    values[name], values.sources[name] = value, source
  end
  return check_together(values)
end

--- The defaults alone, as a spec or an embedded host wants them.
function config.defaults()
  local values = { sources = {} }
  for _, spec in ipairs(settings) do
    values[spec.name], values.sources[spec.name] = spec.default, "default"
    if spec.default_from then values[spec.name] = spec.default_from(function() return nil end) end
  end
  return assert(check_together(values))
end

return config

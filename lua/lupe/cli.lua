--- The command line: which command, with which settings, on what.
-- @module lupe.cli

local commands = require("lupe.commands")
local config = require("lupe.config")
local help = require("lupe.cli_help")
local nearest = require("lupe.nearest")
local value_types = require("lupe.value_types")

local cli = {}

local USAGE_ERROR = 2

local by_name, groups = {}, {} -- groups: first word -> second words
for _, command in ipairs(commands) do
  by_name[command.name] = command
  local group, word = command.name:match("^(%S+) (%S+)$")
  if group then
    groups[group] = groups[group] or {}
    table.insert(groups[group], word)
  end
end

local function first_words()
  local list = {}
  for _, command in ipairs(commands) do
    local word = command.name:match("^%S+")
    if list[#list] ~= word then list[#list + 1] = word end
  end
  list[#list + 1], list[#list + 2] = "help", "version"
  return list
end

local function usage_error(text, ...)
  return nil, text:format(...), USAGE_ERROR
end

local function unknown(what, given, known, topic)
  local near = nearest(given, known)
  local hint = near and (", did you mean %s?"):format(near) or "; see lupe help" .. (topic and " " .. topic or "")
  return usage_error("unknown %s %s%s", what, given, hint)
end

--- The flags that a command takes: flag -> spec, and their names.
local function flags_of(command)
  local by_flag, names = {}, {}
  local function add(spec)
    by_flag[spec.flag] = spec
    names[#names + 1] = spec.flag
  end
  for _, spec in ipairs(command.flags or {}) do add(spec) end
  for _, name in ipairs(command.settings) do add(config.by_name[name]) end
  return by_flag, names
end

--- The value of the flag at `i`: `--name value` or `--name=value`.
-- @return spec, value and the index behind; or nil, message, exit code
local function parse_flag(argv, i, command)
  local by_flag, names = flags_of(command)
  local flag, text = argv[i]:match("^(%-%-[^=]+)=(.*)$")
  flag = flag or argv[i]
  local spec = by_flag[flag]
  if not spec and config.by_flag[flag] then return usage_error("%s is not for lupe %s", flag, command.name) end
  if not spec then return unknown("flag", flag, names, command.name) end
  if not text and spec.type == "boolean" then
    text = "true"
  elseif not text then
    i = i + 1
    text = argv[i]
    if not text or text == "--" then
      return usage_error("%s needs a value: %s", flag, value_types[spec.type].expected(spec))
    end
  end
  local value, message = config.value(spec, text, flag)
  if value == nil then return nil, message, USAGE_ERROR end
  return spec, value, i + 1
end

--- Adds --param.NAME=VALUE to what a command was given. Nil, message, exit code where it is something else.
local function add_param(options, word)
  local name, value = word:match("^%-%-param%.([^=]+)=(.*)$")
  if not name then return usage_error("%s: expected --param.NAME=VALUE or --param.RULE.NAME=VALUE", word) end
  options.params = options.params or {}
  options.params[name] = value
  return true
end

--- Flags and words from `first` on. Where `run` is true the words begin at the first one that is no flag, and all that
-- follows are words; else they may be mixed. `--` ends the flags.
-- @return settings, options and words, or "help"; or nil, message, exit code
local function parse_words(argv, first, command, run)
  local given, options, words, i = {}, {}, {}, first
  while argv[i] do
    local word = argv[i]
    if word == "--" or run and (word:sub(1, 1) ~= "-" or word == "-") then
      for k = word == "--" and i + 1 or i, #argv do words[#words + 1] = argv[k] end
      break
    elseif word == "--help" or word == "-h" then
      return "help"
    elseif word:sub(1, 1) ~= "-" or word == "-" then
      words[#words + 1] = word
      i = i + 1
    elseif command.params and word:find("^%-%-param%f[%A]") then
      local ok, message, code = add_param(options, word)
      if not ok then return nil, message, code end
      i = i + 1
    else
      local spec, value, after = parse_flag(argv, i, command)
      if not spec then return nil, value, after end
      if config.by_flag[spec.flag] == spec then given[spec.name] = value else options[spec.name] = value end
      i = after
    end
  end
  return given, options, words
end

local function parse_command(command, argv, first, env)
  local run = command.name == "run"
  local given, options, words = parse_words(argv, first, command, run)
  if not given then return nil, options, words end
  if given == "help" then return { command = "help", text = help.command(command) } end
  local effective, message = config.resolve(given, env)
  if not effective then return nil, message, USAGE_ERROR end
  if run then
    if not words[1] then return usage_error("no command given. Usage: %s", command.usage) end
    effective.command = words
    return { command = "run", config = effective, argv = words }
  end
  local takes = command.words
  if #words < takes.least then return usage_error("%s is missing. Usage: %s", takes.what, command.usage) end
  if takes.most and #words > takes.most then
    return usage_error("too many words, beginning with %s. Usage: %s", words[takes.most + 1], command.usage)
  end
  return { command = command.name, config = effective, options = options, words = words }
end

--- Which command the words from `first` on name. Of a group ("rules") it may be nil with the group's name.
-- @return command or nil, the index behind, the group's name where only that was given; or nil, message, exit code
local function find_command(argv, first)
  local word = argv[first]
  if by_name[word] then return by_name[word], first + 1 end
  local group = groups[word]
  if not group then return unknown("command", word, first_words()) end
  local second = argv[first + 1]
  if second == nil or second == "--help" or second == "-h" then return nil, first + 1, word end
  local command = by_name[word .. " " .. second]
  if command then return command, first + 2 end
  local near = nearest(second, group)
  return usage_error("unknown command %s %s%s", word, second,
    near and (", did you mean %s %s?"):format(word, near) or "; known: " .. table.concat(group, ", "))
end

local function group_help(group)
  local rows = {}
  for _, command in ipairs(commands) do
    if command.name:match("^%S+") == group then rows[#rows + 1] = help.command(command) end
  end
  return table.concat(rows, "\n")
end

local function parse_help(argv)
  local topic = argv[2]
  if topic == nil or topic == "help" or topic == "version" then return { command = "help", text = help.overview() } end
  local command, after, group = find_command(argv, 2)
  if command then return { command = "help", text = help.command(command) } end
  if groups[group] then return { command = "help", text = group_help(group) } end
  return nil, after, group
end

--- Parses what follows the program's name.
-- @param argv array of strings, without argv[0]
-- @param env  function(name) -> string or nil
-- @return { command = "run", config, argv }; { command = "help", text }; { command = "version" }; or for a command
-- that runs no program { command, config, options = its own flags by name, words }; or nil, a message for stderr, and
-- the exit code
function cli.parse(argv, env)
  local first = argv[1]
  if first == nil then return nil, help.overview(), USAGE_ERROR end
  if first == "--help" or first == "-h" then return { command = "help", text = help.overview() } end
  if first == "help" then return parse_help(argv) end
  if first == "--version" or first == "-V" or first == "version" then return { command = "version" } end
  if first:sub(1, 1) == "-" then
    if config.by_flag[first:match("^[^=]+")] then
      return usage_error("%s belongs after a command: lupe run %s ... -- COMMAND", first, first)
    end
    return unknown("flag", first, { "--help", "--version" })
  end
  local command, after, group = find_command(argv, 1)
  if command then return parse_command(command, argv, after, env) end
  if not groups[group] then return nil, after, group end
  if argv[after] then return { command = "help", text = group_help(group) } end
  return usage_error("%s needs one of: %s", group, table.concat(groups[group], ", "))
end

return cli

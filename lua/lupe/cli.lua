--- The command line: which command, with which settings, on which program.
-- @module lupe.cli

local config = require("lupe.config")
local nearest = require("lupe.nearest")
local settings = require("lupe.settings")
local value_types = require("lupe.value_types")
local wrap = require("lupe.wrap")

local cli = {}

local USAGE_ERROR = 2
local COMMANDS = { "run", "help", "version" }

local OVERVIEW = [[
lupe profiles a native Linux program while it runs, and says what leaks.

Usage: lupe run [flags] -- COMMAND [ARGUMENT...]
       lupe help run      all flags
       lupe --version

The program is not changed: its input, output, signals and exit code stay its own. While it
runs, lupe answers on http://127.0.0.1:7077; when it ends, lupe reports on stderr.
]]

local function indented(text, width, indent)
  local words = {}
  for word in text:gmatch("%S+") do words[#words + 1] = word end
  return table.concat(wrap(words, width), "\n" .. (" "):rep(indent))
end

local function default_of(spec)
  if spec.default_doc then return spec.default_doc end
  if spec.default == nil then return nil end
  return tostring(spec.default)
end

local function run_help()
  local out = {
    "Usage: lupe run [flags] -- COMMAND [ARGUMENT...]",
    "",
    "Starts COMMAND under the profiler, serves the HTTP API while it runs, and reports when it ends.",
    "Exit code: the command's own (128+N when signal N ended it), 127 not found, 126 not executable, 2 usage.",
    "",
    "Flags (each also by the environment variable, or in lupe.conf.lua by its name with underscores):",
  }
  for _, spec in ipairs(settings) do
    local placeholder = spec.placeholder or value_types[spec.type].placeholder
    if spec.values then placeholder = table.concat(spec.values, spec.type == "words" and "," or "|") end
    local head = "  " .. spec.flag .. (spec.type == "boolean" and "[=" .. placeholder .. "]" or " " .. placeholder)
    local default = default_of(spec)
    local note = ("%s%s"):format(spec.env, default and ", default " .. default or "")
    out[#out + 1] = ("%s  (%s)"):format(head, note)
    out[#out + 1] = "      " .. indented(spec.doc, 90, 6)
  end
  return table.concat(out, "\n") .. "\n"
end

--- @param topic nil or a command's name
function cli.help(topic)
  return topic == "run" and run_help() or OVERVIEW
end

local function usage_error(text, ...)
  return nil, text:format(...), USAGE_ERROR
end

local function unknown(what, given, known)
  local near = nearest(given, known)
  local hint = near and (", did you mean %s?"):format(near) or "; see lupe help run"
  return usage_error("unknown %s %s%s", what, given, hint)
end

--- The flags before the command: `--name value`, `--name=value`, `--` ends them.
-- @return name -> value and the index of the command's first word; or nil, message, exit code
local function parse_flags(argv, first)
  local flags, i = {}, first
  while argv[i] and argv[i]:sub(1, 1) == "-" and argv[i] ~= "-" do
    local word = argv[i]
    if word == "--" then return flags, i + 1 end
    if word == "--help" or word == "-h" then return flags, i, true end
    local flag, text = word:match("^(%-%-[^=]+)=(.*)$")
    flag = flag or word
    local spec = config.by_flag[flag]
    if not spec then return unknown("flag", flag, config.flags) end
    if not text then
      if spec.type == "boolean" then
        text = "true"
      else
        i = i + 1
        text = argv[i]
        if not text or text == "--" then
          return usage_error("%s needs a value: %s", flag, value_types[spec.type].expected(spec))
        end
      end
    end
    local value, message = config.value(spec, text, flag)
    if value == nil then return nil, message, USAGE_ERROR end
    flags[spec.name] = value
    i = i + 1
  end
  return flags, i
end

local function parse_run(argv, env)
  local flags, first, help = parse_flags(argv, 2)
  if not flags then return nil, first, help end
  if help then return { command = "help", text = cli.help("run") } end
  local effective, message = config.resolve(flags, env)
  if not effective then return nil, message, USAGE_ERROR end
  if not argv[first] then
    return usage_error("no command given. Usage: lupe run [flags] -- COMMAND [ARGUMENT...]")
  end
  local command = {}
  for i = first, #argv do command[#command + 1] = argv[i] end
  return { command = "run", config = effective, argv = command }
end

--- Parses what follows the program's name.
-- @param argv array of strings, without argv[0]
-- @param env  function(name) -> string or nil
-- @return { command = "run", config, argv } or { command = "help", text } or { command = "version" };
-- or nil, a message for stderr, and the exit code
function cli.parse(argv, env)
  local command = argv[1]
  if command == nil then return nil, cli.help(), USAGE_ERROR end
  if command == "--help" or command == "-h" or (command == "help" and not argv[2]) then
    return { command = "help", text = cli.help() }
  end
  if command == "--version" or command == "-V" or command == "version" then return { command = "version" } end
  if command == "help" then
    for _, known in ipairs(COMMANDS) do
      if argv[2] == known then return { command = "help", text = cli.help(argv[2]) } end
    end
    return unknown("command", argv[2], COMMANDS)
  end
  if command == "run" then return parse_run(argv, env) end
  if command:sub(1, 1) == "-" then
    if config.by_flag[command:match("^[^=]+")] then
      return usage_error("%s belongs after a command: lupe run %s ... -- COMMAND", command, command)
    end
    return unknown("flag", command, { "--help", "--version" })
  end
  return unknown("command", command, COMMANDS)
end

return cli

--- The command line's help: the overview, and a page for each command.
-- @module lupe.cli_help

local commands = require("lupe.commands")
local settings = require("lupe.settings")
local value_types = require("lupe.value_types")
local wrap = require("lupe.wrap")

local cli_help = {}

local WIDTH, INDENT = 90, 6

local OVERVIEW = [[
lupe profiles a native Linux program while it runs, and says what leaks.

%s
The program is not changed: its input, output, signals and exit code stay its own. While it
runs, lupe answers on http://127.0.0.1:7077; when it ends, lupe reports on stderr.
]]

local function indented(text)
  local words = {}
  for word in text:gmatch("%S+") do words[#words + 1] = word end
  return table.concat(wrap(words, WIDTH), "\n" .. (" "):rep(INDENT))
end

local function default_of(spec)
  if spec.default_doc then return spec.default_doc end
  if spec.default == nil then return nil end
  return tostring(spec.default)
end

--- A flag as it is typed, and what stands behind it: its environment variable and its default.
-- @param spec of lupe.settings, or a command's own flag
-- @treturn string,string the second one may be empty
function cli_help.flag(spec)
  local placeholder = spec.placeholder or value_types[spec.type].placeholder
  if spec.values then placeholder = table.concat(spec.values, spec.type == "words" and "," or "|") end
  local notes = { spec.env }
  local default = default_of(spec)
  if default then notes[#notes + 1] = "default " .. default end
  return spec.flag .. (spec.type == "boolean" and "[=" .. placeholder .. "]" or " " .. placeholder),
    table.concat(notes, ", ")
end

local function add_flag(out, spec)
  local head, notes = cli_help.flag(spec)
  out[#out + 1] = "  " .. head .. (notes ~= "" and ("  (%s)"):format(notes) or "")
  out[#out + 1] = (" "):rep(INDENT) .. indented(spec.doc)
end

--- @param command of lupe.commands
function cli_help.command(command)
  local out = { "Usage: " .. command.usage, "" }
  for _, line in ipairs(command.doc) do out[#out + 1] = line end
  out[#out + 1] = ""
  if command.flags then
    out[#out + 1] = "Flags:"
    for _, spec in ipairs(command.flags) do add_flag(out, spec) end
    out[#out + 1] = ""
  end
  out[#out + 1] = "Flags (each also by the environment variable, or in lupe.conf.lua by its name with underscores):"
  local taken, of_the_file = {}, {}
  for _, name in ipairs(command.settings) do taken[name] = true end
  for _, spec in ipairs(settings) do
    if not spec.flag then
      of_the_file[#of_the_file + 1] = spec
    elseif taken[spec.name] then
      add_flag(out, spec)
    end
  end
  if taken.rules then
    out[#out + 1] = ""
    out[#out + 1] = "In lupe.conf.lua only:"
    for _, spec in ipairs(of_the_file) do
      out[#out + 1] = "  " .. spec.name
      out[#out + 1] = (" "):rep(INDENT) .. indented(spec.doc)
    end
  end
  return table.concat(out, "\n") .. "\n"
end

function cli_help.overview()
  local rows = {}
  for i, command in ipairs(commands) do
    rows[#rows + 1] = (i == 1 and "Usage: " or "       ") .. command.usage
  end
  rows[#rows + 1] = "       lupe help COMMAND      all of its flags"
  rows[#rows + 1] = "       lupe --version"
  return OVERVIEW:format(table.concat(rows, "\n") .. "\n")
end

return cli_help

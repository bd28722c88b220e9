--- Writes lupe(1), from what the command line says of itself: luajit packaging/lupe_1.lua VERSION FOLDER
local root = arg[0]:match("^(.*)/packaging/") or "."
package.path = root .. "/lua/?.lua;" .. root .. "/?.lua;" .. package.path

local commands = require("lupe.commands")
local help = require("lupe.cli_help")
local roff = require("packaging.roff")
local settings = require("lupe.settings")

local out = {}
local function add(text, ...) out[#out + 1] = select("#", ...) > 0 and text:format(...) or text end

local function add_flag(spec)
  local head, notes = help.flag(spec)
  add(".TP\n%s%s", roff.bold(head), notes ~= "" and roff.text(("  (%s)"):format(notes)) or "")
  add("%s", roff.text(spec.doc .. "."))
end

--- "--a, --b and --c"
local function listed(flags)
  local last = table.remove(flags)
  return (#flags > 0 and table.concat(flags, ", ") .. " and " or "") .. (last or "none")
end

--- Which of the settings a command takes, by the shorter list.
local function flags_of(command)
  local taken, takes, leaves = {}, {}, {}
  for _, name in ipairs(command.settings or {}) do taken[name] = true end
  for _, spec in ipairs(settings) do
    local list = (not command.settings or taken[spec.name]) and takes or leaves
    if spec.flag then list[#list + 1] = roff.bold(spec.flag) end
  end
  if #takes < #leaves then return listed(takes) end
  return "all flags of SETTINGS" .. (#leaves > 0 and " but " .. listed(leaves) or "")
end

local function add_command(command)
  add(".SS \"lupe %s\"", roff.text(command.name))
  add("%s\n.PP", roff.bold(command.usage))
  for _, line in ipairs(command.doc) do
    if line:find("^Exit code") then add(".PP") end
    add("%s", roff.text(line))
  end
  for _, spec in ipairs(command.flags or {}) do add_flag(spec) end
  add(".PP\nTakes %s.", flags_of(command))
end

add("%s", roff.title("LUPE", 1, assert(arg[1], "a version"), "lupe"))
add(".SH NAME\nlupe \\- profiles a native Linux program while it runs, and says what leaks")
add(".SH SYNOPSIS\n.nf")
for _, command in ipairs(commands) do add("%s", roff.bold(command.usage)) end
add("%s\n%s\n.fi", roff.bold("lupe help [COMMAND]"), roff.bold("lupe --version"))
add(".SH DESCRIPTION")
add("%s", roff.text(help.overview():match("\n\n(The program.*)$")))
add(".SH COMMANDS")
for _, command in ipairs(commands) do add_command(command) end
add(".SH SETTINGS")
add("%s", roff.text("Each flag is also an environment variable, and a field of lupe.conf.lua by its name with "
  .. "underscores. A flag wins over the environment, that over the file."))
for _, spec in ipairs(settings) do
  if spec.flag then add_flag(spec) end
end
add(".SH \"ONLY IN lupe.conf.lua\"")
for _, spec in ipairs(settings) do
  if not spec.flag then add(".TP\n%s\n%s", roff.bold(spec.name), roff.text(spec.doc .. ".")) end
end
add(".SH \"SEE ALSO\"\n.BR lupe (3).")
add("%s", roff.text("Rules, routes, the HTTP API and operation are described in share/doc/lupe."))

local file = assert(io.open(assert(arg[2], "a folder") .. "/lupe.1", "w"))
assert(file:write(table.concat(out, "\n"), "\n"))
assert(file:close())

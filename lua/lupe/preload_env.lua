--- `lupe preload-env`: what to set for a service that is to connect to `lupe serve`, in the form that is asked for.
-- @module lupe.preload_env

local launch = require("lupe.launch")

local preload_env = {}

local ORDER = { "LD_PRELOAD", "MALLOC_CONF", "LUPE_SOCKET", "LUPE_ALLOCATOR", "LUPE_SAMPLE_BYTES" }

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local forms = {}

--- For eval, in any shell of POSIX.
function forms.shell(pairs_of)
  local lines = {}
  for _, pair in ipairs(pairs_of) do lines[#lines + 1] = ("export %s=%s"):format(pair[1], quoted(pair[2])) end
  return lines
end

--- Lines of a unit's [Service] section.
function forms.systemd(pairs_of)
  local lines = {}
  for _, pair in ipairs(pairs_of) do
    local value = pair[2]:gsub('[\\"]', "\\%0"):gsub("%%", "%%%%")
    lines[#lines + 1] = ('Environment="%s=%s"'):format(pair[1], value)
  end
  return lines
end

--- Words of `docker run`: the shell splits them at blanks, so there can be none in them.
function forms.docker(pairs_of, paths)
  local lines = {}
  for _, pair in ipairs(pairs_of) do
    if pair[2]:find("[%s*?%[]") then
      return nil, ("%s=%s: a blank or a wildcard cannot be in a word that the shell splits"):format(pair[1], pair[2])
    end
    lines[#lines + 1] = ("--env %s=%s"):format(pair[1], pair[2])
  end
  if not pairs_of[1] then return lines end
  local folder = paths.socket:match("^(.*)/[^/]*$")
  lines[#lines + 1] = ("--volume %s:%s"):format(folder, folder)
  for _, path in ipairs({ paths.agent, paths.jemalloc }) do
    lines[#lines + 1] = ("--volume %s:%s:ro"):format(path, path)
  end
  return lines
end

--- The lines to print, and warnings.
-- @param config the effective configuration
-- @param format "shell", "systemd" or "docker"
-- @param paths  { agent =, jemalloc = or nil }
-- @param env    function(name): what the caller's environment holds. Only the shell's form adds to it: that of a unit
--   or a container is another one
-- @return the text, and an array of warnings; or nil and a message
function preload_env.text(config, format, paths, env)
  local here = format == "shell"
  if config.socket:sub(1, 1) ~= "/" then
    return nil, ("socket: %s: expected an absolute path, since programs have working directories of their own")
      :format(config.socket)
  end
  local with_socket = { agent = paths.agent, jemalloc = paths.jemalloc, socket = config.socket }
  local made, message = launch.environment(config, {
    MALLOC_CONF = here and env("MALLOC_CONF") or nil, LD_PRELOAD = here and env("LD_PRELOAD") or nil,
  }, with_socket)
  if not made then return nil, message end
  local pairs_of = {}
  for _, name in ipairs(ORDER) do
    if made.set[name] then pairs_of[#pairs_of + 1] = { name, made.set[name] } end
  end
  local lines
  lines, message = forms[format](pairs_of, with_socket)
  if not lines then return nil, message end
  return table.concat(lines, "\n") .. (lines[1] and "\n" or ""), made.warnings
end

return preload_env

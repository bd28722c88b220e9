--- `lupe serve` and programs that connect to it, as the end to end specs use them.
-- @module spec.lupe_serve

local lupe_run = require("spec.lupe_run")
local support = require("spec.support")

local lupe_serve = setmetatable({}, { __index = lupe_run })
lupe_serve.__index = lupe_serve

--- Starts a daemon with a port of its own, no rate limits, and profiles twice a second.
-- @tparam[opt] table options `flags`; `before`: words of a command that runs lupe;
-- `dir`: of an earlier one, whose socket and state it takes over
function lupe_serve.start(options)
  options = options or {}
  local dir = options.dir or support.temp_dir()
  local self = setmetatable({ port = support.free_port(), dir = dir, socket = dir .. "/run/agents" }, lupe_serve)
  local command = {
    support.built("lupe"), "serve", "--listen", "127.0.0.1:" .. self.port, "--state-dir", dir .. "/state", "--socket",
    self.socket, "--heap-interval", "0.5", "--memory-interval", "0.5", "--rate-reads", "0", "--rate-leak", "0",
    "--rate-snapshots", "0", "--reports-min-secs", "0",
  }
  for _, flag in ipairs(options.flags or {}) do command[#command + 1] = flag end
  for i, word in ipairs(options.before or {}) do table.insert(command, i, word) end
  self.process = support.spawn(command)
  return self
end

function lupe_serve:await_ready() return self:await("/healthz") end

--- What `lupe preload-env` prints for this daemon's socket.
function lupe_serve:preload_env(format)
  local process = support.spawn({ support.built("lupe"), "preload-env", "--socket", self.socket, "--format",
    format or "shell" })
  assert(process:wait(20) == 0, process:stderr())
  return process:stdout()
end

--- Starts `command`, a line of the shell, in the environment that the shell's form sets.
function lupe_serve:program(command)
  return support.spawn({ "sh", "-c", self:preload_env() .. "exec " .. command })
end

--- Waits until the process is a target as `check` (nil: live) has it.
function lupe_serve:await_target(pid, check, seconds)
  local found
  self:await("/api/targets", function(answer)
    for _, target in ipairs(answer.targets) do
      if target.pid == pid and (check or function(t) return t.live end)(target) then found = target end
    end
    return found
  end, seconds)
  return found
end

--- Waits until there is a report on the process.
function lupe_serve:await_report(pid, seconds)
  local found
  self:await("/api/reports", function(answer)
    for _, entry in ipairs(answer.reports) do
      if entry.pid == pid then found = entry end
    end
    return found
  end, seconds)
  return found
end

--- Ends it as systemd would. Returns how it ended.
function lupe_serve:stop(signal)
  self.process:kill(signal or 15)
  return self.process:wait(20)
end

return lupe_serve

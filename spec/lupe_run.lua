--- `lupe run` on a real program, as the end to end specs use it.
-- @module spec.lupe_run

local support = require("spec.support")

local lupe_run = {}
lupe_run.__index = lupe_run

--- Starts `argv` under lupe, with a port and a state folder of its own, no rate limits, profiles twice a
-- second and a JSON report to a file.
-- @tparam {string,...} argv the program
-- @tparam[opt] table options `flags` (further ones for lupe), `env`, `cwd`, `lupe` (another one than the build's)
function lupe_run.start(argv, options)
  options = options or {}
  local dir = support.temp_dir()
  local self = setmetatable({ port = support.free_port(), report_path = dir .. "/report.json", dir = dir }, lupe_run)
  local command = {
    options.lupe or support.built("lupe"), "run", "--listen", "127.0.0.1:" .. self.port, "--report", "json",
    "--output", self.report_path, "--state-dir", dir .. "/state", "--heap-interval", "0.5", "--memory-interval", "0.5",
    "--rate-reads", "0", "--rate-leak", "0", "--rate-snapshots", "0",
  }
  for _, flag in ipairs(options.flags or {}) do command[#command + 1] = flag end
  command[#command + 1] = "--"
  for _, word in ipairs(argv) do command[#command + 1] = word end
  self.process = support.spawn(command, { env = options.env, cwd = options.cwd })
  return self
end

--- A GET (or what `options` say), its JSON parsed; an answer of another status than `status` (200) is an error.
function lupe_run:get(path, options, status)
  local answer, reason = support.http(self.port, path, options)
  if not answer then error(("%s: %s; lupe said: %s"):format(path, reason, self.process:stderr()), 2) end
  if answer.status ~= (status or 200) then error(("%s: %d %s"):format(path, answer.status, answer.body), 2) end
  return answer.json(), answer
end

function lupe_run:post(path, status) return self:get(path, { method = "POST" }, status) end

--- Waits until the API answers `path` with 200 and `check(json)` is true.
function lupe_run:await(path, check, seconds)
  local last
  return support.eventually(function()
    if not self.process:alive() then error("lupe ended: " .. self.process:stderr(), 0) end
    local answer = support.http(self.port, path)
    if not answer or answer.status ~= 200 then return false end
    last = answer:json()
    return (not check or check(last)) and last
  end, seconds or 20, path .. " to be as expected")
end

--- The pid of a worker process that runs; nil.
function lupe_run:worker_pid() return (support.worker_of(self.process.pid)) end

--- Waits until the program ended by itself or by `signal`. Returns the report (a table), and how lupe ended.
function lupe_run:finish(signal, seconds)
  if signal then self.process:kill(signal) end
  local code, ended_by = self.process:wait(seconds or 30)
  local text = support.read_file(self.report_path)
  return text and support.json.decode(text), code, ended_by
end

return lupe_run

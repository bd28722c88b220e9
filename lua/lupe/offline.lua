--- Commands that run no program: they work on recordings and on files of rules, with the worker process.
-- Each is a function(host, command), in a task: the text that it has to say and its exit code, or nil and what is
-- wrong.
-- @module lupe.offline

local async = require("lupe.async")
local preload_env = require("lupe.preload_env")
local recorded_report = require("lupe.recorded_report")
local recording = require("lupe.recording")
local replay = require("lupe.replay")
local rule_file = require("lupe.rule_file")
local rules_list = require("lupe.rules_list")
local rules_test = require("lupe.rules_test")

local offline = {}

local EXIT_FAILED = 1

--- The recording that the command names; where --base names another, the host has that.
local function opened(host, command)
  local recorded, message = recording.open(host, command.words[1])
  if not recorded then return nil, message end
  if host.config.base then
    host.base, message = recording.last_view(host, host.config.base)
    if not host.base then return nil, "--base: " .. message end
  end
  return recorded
end

local commands = {}

function commands.report(host, command)
  local recorded, message = opened(host, command)
  if not recorded then return nil, message end
  return recorded_report(host, recorded, {
    at = command.options.at, columns = command.columns, color = command.color,
  })
end

commands["rules list"] = function(host) return rules_list(host, host.config.report) end

commands["rules check"] = function(host, command) return rules_test.check(host, command.words) end

commands["rules test"] = function(host, command)
  local recordings = { unpack(command.words, 2) }
  return rules_test.test(host, command.words[1], recordings)
end

commands["rules replay"] = function(host, command)
  local path, only = command.options.rule, nil
  if path then
    local entry, message = rule_file.load(host, path)
    if not entry then return nil, message end
    only, path = entry.rule.id, entry.path
    host.config.rules = rule_file.place(path) -- it shadows the shipped one, as it would when live
  end
  local recorded, message = opened(host, command)
  if not recorded then return nil, message end
  return replay.run(host, recorded, {
    at = command.options.at, only = only, path = path, params = command.options.params, format = host.config.report,
    columns = command.columns, color = command.color,
  })
end

commands["preload-env"] = function(host, command)
  local text, warnings = preload_env.text(host.config, command.options.format or "shell", command.paths, os.getenv)
  if not text then return nil, warnings end
  for _, warning in ipairs(warnings) do host.log("info", warning) end
  return text
end

--- @param host what C offers where no program runs
-- @param command { command, config, words, options, columns, color, paths }: what lupe.cli understood, the terminal,
-- and where the agent and jemalloc are
-- @param done function(text or nil, exit code), called exactly once: the text for stdout or for --output
function offline.run(host, command, done)
  async.spawn(commands[command.command], function(ok, text, result, trace)
    if ok and text then return done(text, result or 0) end
    -- Where the task failed, `result` is its traceback.
    host.log("error", ok and result or trace or result or tostring(text))
    done(nil, EXIT_FAILED)
  end, host, command)
end

return offline

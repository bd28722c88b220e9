--- Commands that run no program: they work on recordings and on files of rules, with the worker process.
-- @module lupe.offline

local async = require("lupe.async")
local recording = require("lupe.recording")
local replay = require("lupe.replay")

local offline = {}

local EXIT_FAILED = 1

local commands = {}

commands["rules replay"] = function(host, command)
  local recorded, message = recording.open(host, command.words[1])
  if not recorded then return nil, message end
  return replay.run(host, recorded, {
    at = command.options.at, format = host.config.report, columns = command.columns, color = command.color,
  })
end

--- @param host what C offers where no program runs
-- @param command { command, config, words, options, columns, color }: what lupe.cli understood, and the terminal
-- @param done function(text or nil, exit code), called exactly once: the text for stdout or for --output
function offline.run(host, command, done)
  async.spawn(commands[command.command], function(ok, text, message, trace)
    if ok and text then return done(text, message or 0) end
    host.log("error", ok and message or trace or tostring(text))
    done(nil, EXIT_FAILED)
  end, host, command)
end

return offline

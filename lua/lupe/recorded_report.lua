--- `lupe report RECORDING`: the report as at the end of the run, or as it would have been at an earlier frame.
-- @module lupe.recorded_report

local analysis = require("lupe.analysis")
local format = require("lupe.format")
local recorded_host = require("lupe.recorded_host")
local report = require("lupe.report")

local STILL_RUNNING = "and was still running"
local NOT_RECORDED = "how it ended is not in the recording"

--- What C would have told of the run.
local function info_of(recorded, index, notes)
  local frame, info = recorded.frames[index], notes.info
  if not info then
    local first = (notes.targets or {})[1] or {}
    info = {
      pid = first.pid or 0, argv = recorded.about.command, connected = first.pid ~= nil,
      unknown_end = recorded.frames[index + 1] and STILL_RUNNING or NOT_RECORDED,
    }
  end
  info.notes = {}
  if recorded.ending then
    info.notes[1] = ("the recording is not whole: %s, after %s"):format(recorded.ending,
      format.duration(recorded.frames[#recorded.frames].seconds * 1000))
  end
  if not frame.last and recorded.frames[index + 1] then
    info.notes[#info.notes + 1] = ("this is the run after %s; its recording has %s in all"):format(
      format.duration(frame.seconds * 1000), format.plural(#recorded.frames, "frame"))
  end
  if (notes.skipped or 0) > 0 then
    info.notes[#info.notes + 1] = format.plural(notes.skipped, "frame")
      .. " left out of the recording: it had reached its size (--record-max-mb)"
  end
  return info
end

--- Inside a task.
-- @param host what C offers where no program runs, with `config` and `rules_dir`
-- @param recorded a lupe.recording
-- @param options `at` (seconds: the frame nearest to it; nil: the last one), `columns`, `color`
-- @return the text in the configured format; or nil and a message
return function(host, recorded, options)
  local index = options.at and recorded:nearest(options.at) or #recorded.frames
  if index == 0 then
    return nil, ("%s: it holds no frame: %s"):format(recorded.path, recorded.ending or "it is empty")
  end
  local one, message = recorded:read(index)
  if not one then return nil, message end
  local as_then, move = recorded_host.new(host, recorded.about)
  move(one.notes)
  local info = info_of(recorded, index, one.notes)
  info.columns, info.color = options.columns, options.color
  return report.of({ host = as_then, config = as_then.config, analysis = analysis.new(as_then) }, info, one.view)
end

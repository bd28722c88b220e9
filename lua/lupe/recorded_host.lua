--- A host as it was at a recorded frame, for code that asks a host: the analysis and the report.
-- Clock, log and worker are the real host's; what the frame's notes hold is answered from them.
-- @module lupe.recorded_host

local recorded_host = {}

local NOTED = { "targets", "profiler", "memory", "allocator", "cgroup", "load" }

--- @param host what C offers where no program runs
-- @param config the settings in force
-- @param about a recording's
-- @return the host, and a function(notes) that moves it to a frame
function recorded_host.new(host, config, about)
  local notes = {}
  local self = setmetatable({ config = config, started_ms = about.started_ms }, { __index = host })
  for _, name in ipairs(NOTED) do
    self[name] = function() return notes[name] end
  end
  self.targets = function() return notes.targets or {} end
  self.now_ms = function() return notes.now_ms or about.started_ms end
  return self, function(frame) notes = frame end
end

return recorded_host

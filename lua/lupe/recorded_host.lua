--- A host as it was at a recorded frame, for code that asks a host: the analysis and the report.
-- Clock, log and worker are the real host's; what the frame's notes hold is answered from them. Settings that say what
-- is normal for the program are the recording's, where nothing else is set now.
-- @module lupe.recorded_host

local recorded_host = {}

local NOTED = { "targets", "profiler", "memory", "allocator", "cgroup", "load" }

local function settings_of(config, recorded)
  local settings = {}
  for name, value in pairs(config) do settings[name] = value end
  for name, value in pairs(recorded or {}) do
    if config.sources[name] == "default" then settings[name] = value end
  end
  return settings
end

--- @param host what C offers where no program runs
-- @param about a recording's
-- @return the host, and a function(notes) that moves it to a frame
function recorded_host.new(host, about)
  local notes = {}
  local self = setmetatable({ config = settings_of(host.config, about.config), started_ms = about.started_ms }, {
    __index = host,
  })
  for _, name in ipairs(NOTED) do
    self[name] = function() return notes[name] end
  end
  self.targets = function() return notes.targets or {} end
  self.now_ms = function() return notes.now_ms or about.started_ms end
  return self, function(frame) notes = frame end
end

return recorded_host

--- A recording, read: what it is about, and its frames as views.
-- Fields: `path`; `about` { lupe, started_ms, command, config }; `frames` array of { seconds, time_ms, last } with
-- `seconds` since the run began; `ending` nil where the file is whole, else why it ends where it does.
-- Reading blocks: for commands that run no program, and for the start of a run.
-- @module lupe.recording

local json = require("lupe.json")
local view = require("lupe.view")

local recording = {}
recording.__index = recording

--- @param host what C offers
-- @return the recording; or nil and a message that begins with the path
function recording.open(host, path)
  local handle, text = host.open_recording(path)
  if not handle then return nil, text end
  local about, message = json.decode(text)
  if type(about) ~= "table" or type(about.started_ms) ~= "number" then
    return nil, ("%s: what it says about its run cannot be read: %s"):format(path, message or "no start time")
  end
  local frames, ending = host.recording_frames(handle)
  for _, frame in ipairs(frames) do frame.seconds = json.round((frame.time_ms - about.started_ms) / 1000) end
  return setmetatable({
    host = host, handle = handle, path = path, about = about, frames = frames, ending = ending,
  }, recording)
end

--- The frame nearest to a time, the later one of two; nil where there is none.
function recording:nearest(seconds)
  local best, best_distance
  for index, frame in ipairs(self.frames) do
    local distance = math.abs(frame.seconds - seconds)
    if not best or distance <= best_distance then best, best_distance = index, distance end
  end
  return best
end

local function unreadable(self, index, reason)
  return nil, ("%s: frame %d, at %.1f s: %s"):format(self.path, index, self.frames[index].seconds, reason)
end

--- @return { notes, view = nil where the frame holds no snapshot }; or nil and a message that begins with the path
function recording:read(index)
  local text, address, size, keepalive = self.host.recorded_frame(self.handle, index)
  if not text then
    if size == "EVERSION" then
      address = ("its snapshot is of another version than this lupe reads; it was recorded by lupe %s"):format(
        tostring(self.about.lupe))
    end
    return unreadable(self, index, address)
  end
  local notes, message = json.decode(text)
  if type(notes) ~= "table" then return unreadable(self, index, "its notes cannot be read: " .. tostring(message)) end
  local extras = type(notes.surroundings) == "table" and notes.surroundings or {}
  extras.keepalive = keepalive
  local one = address and assert(view.from_snapshot(address, size, extras))
  return { notes = notes, view = one }
end

--- The last snapshot of a recording, to compare another with.
-- @return its view; or nil and a message that begins with the path
function recording.last_view(host, path)
  local recorded, message = recording.open(host, path)
  if not recorded then return nil, message end
  for index = #recorded.frames, 1, -1 do
    local one
    one, message = recorded:read(index)
    if one and one.view then return one.view end
  end
  return nil, message or path .. ": it holds no snapshot"
end

return recording

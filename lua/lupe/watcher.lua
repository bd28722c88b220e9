--- Tells that directories may have changed: by the system's events, and now and then without one, since events can be
-- had in limited number, and some file systems have none.
-- Each directory is watched itself, and its parent for its name: it may come later, be renamed over, or be a link that
-- leads elsewhere tomorrow. The first event begins a burst, and `changed` is called once, GATHER_MS after it; what
-- comes later than that begins the next one, so that a stream of edits cannot put it off.
-- Loop thread.
-- @module lupe.watcher

local files = require("lupe.ffi")

local watcher = {}
watcher.__index = watcher

local GATHER_MS = 40
local POLL_MS = 2000

local function places_of(paths)
  local places = {}
  for _, path in ipairs(paths) do
    path = path:match("^(.-)/*$")
    local parent, name = path:match("^(.*)/([^/]+)$")
    places[#places + 1] = { directory = path == "" and "/" or path }
    if name ~= ".." and name ~= "." and path ~= "" then
      places[#places + 1] = { directory = not parent and "." or parent == "" and "/" or parent, name = name or path }
    end
  end
  return places
end

--- @param host `watch`, `unwatch`, `after`, `monotonic_ms`, `log`
-- @tparam {string,...} paths the directories, there or not
-- @tparam function changed
function watcher.new(host, paths, changed)
  return setmetatable({ host = host, places = places_of(paths), changed = changed, next_poll_ms = 0 }, watcher)
end

--- Watches, from here on, what is at each place now. To be called before the directories are read: what changes later
-- than that is an event.
local function arm(self)
  for _, place in ipairs(self.places) do
    local stat = files.stat(place.directory)
    local identity = stat and stat.identity
    if place.id and place.identity ~= identity then
      self.host.unwatch(place.id)
      place.id = nil
    end
    if identity and not place.id then
      local id, message = self.host.watch(place.directory, place.name, function()
        place.id = nil
        self:stir()
      end)
      if not id and place.complaint ~= message then
        self.host.log("warning", ("%s; looking there every %g s instead"):format(message, POLL_MS / 1000))
      end
      place.id, place.identity, place.complaint = id, identity, message
    end
  end
end

--- Something may have changed.
function watcher:stir()
  if self.gathering then return end
  self.gathering = true
  self.host.after(GATHER_MS, function()
    self.gathering = false
    arm(self)
    self.changed()
  end)
end

--- About once a second.
function watcher:tick()
  local now_ms = self.host.monotonic_ms()
  if now_ms < self.next_poll_ms then return end
  self.next_poll_ms = now_ms + POLL_MS
  arm(self)
  self.changed()
end

return watcher

--- Snapshots of the store as views: the merged one of all live processes, those of single ones, and those of a
-- window of CPU and wall samples. Each is built once for all who ask: per round of heap profiles, or, for a window,
-- per second.
-- @module lupe.views

local async = require("lupe.async")
local view = require("lupe.view")

local views = {}
views.__index = views

local MOST_SINGLE, MOST_WINDOWS = 4, 4 -- a snapshot can be megabytes, so few are kept
local WINDOW_KEPT_MS = 1000

--- @param host the host
-- @param surroundings lupe.surroundings: what the views have beside their snapshots
function views.new(host, surroundings)
  return setmetatable({
    host = host, surroundings = surroundings, single = {}, count = 0,
    windows = {}, -- { key, view, made_ms }, oldest first
    building = {}, building_windows = {}, -- key -> callbacks of those who wait for a build under way
  }, views)
end

local function wrap(extras, address, size, keepalive)
  extras.keepalive = keepalive
  return assert(view.from_snapshot(address, size, extras))
end

local function taken(self, pid, window_ms)
  local failure, address, size, keepalive = async.await(self.host.take_snapshot, pid, window_ms)
  if failure then return nil, failure end
  if not address then return nil, size end
  return wrap(self.surroundings:of(pid), address, size, keepalive)
end

--- What one program of several is: its live processes, or where it has ended those that it had. Never kept, since who
-- asks for it does so seldom. Inside a task.
-- @param pid of the process that it began with
-- @tparam[opt] number window_ms of CPU and wall samples
-- @return as `merged`
function views:of_program(pid, window_ms)
  local failure, address, size, keepalive = async.await(self.host.take_program, pid, window_ms)
  if failure then return nil, failure end
  if not address then return nil, size end
  return wrap(self.surroundings:of_program(pid), address, size, keepalive)
end

--- What `build` returns, which who asks for the same while it is under way gets too. Inside a task.
local function shared(building, key, build)
  local waiting = building[key]
  if waiting then
    local ok, result, reason = async.await(function(done) waiting[#waiting + 1] = done end)
    if not ok then error(result, 0) end
    return result, reason
  end
  waiting = {}
  building[key] = waiting
  local ok, result, reason = pcall(build)
  building[key] = nil
  for _, done in ipairs(waiting) do done(ok, result, reason) end
  if not ok then error(result, 0) end
  return result, reason
end

--- @return the merged view; or nil and why there is none yet
function views:merged()
  if not self.all then
    local address, size, keepalive = self.host.snapshot()
    if not address then return nil, size end
    self.all = wrap(self.surroundings:of(), address, size, keepalive)
  end
  return self.all
end

--- Of what is there already: the view of one process, or the merged one where `pid` is nil. Inside a task.
-- @return as `merged`
function views:newest(pid)
  if pid then return self:of(pid) end
  return self:merged()
end

--- The merged view as of now, profiles not yet in the merged one included. Inside a task.
function views:fresh() return taken(self, nil) end

--- The same, which is then the merged one for all: what was built before lacks what is known now. Inside a task.
function views:renew()
  self:clear()
  local fresh, reason = taken(self, nil)
  if fresh then self.all = fresh end
  return fresh, reason
end

--- The view of one process. Inside a task.
-- @return as `merged`
function views:of(pid)
  local single = self.single
  if single[pid] then return single[pid] end
  return shared(self.building, pid, function()
    local fresh, reason = taken(self, pid)
    if not fresh then return nil, reason end
    if single ~= self.single then return fresh end -- a newer round is in
    if self.count >= MOST_SINGLE then self.single, self.count = {}, 0 end
    self.single[pid], self.count = fresh, self.count + 1
    return fresh
  end)
end

local function forget_windows(self, oldest_ms, most)
  local kept = {}
  for i, entry in ipairs(self.windows) do
    if entry.made_ms > oldest_ms and #self.windows - i < most then kept[#kept + 1] = entry end
  end
  self.windows = kept
end

--- A view whose `profile` holds the last `window_ms` of CPU and wall samples, at most a second old. Inside a task.
-- @param pid of one process, or nil for all live ones
-- @return as `merged`
function views:profile(pid, window_ms)
  local key = ("%s %d"):format(pid or "all", window_ms)
  local oldest_ms = self.host.monotonic_ms() - WINDOW_KEPT_MS
  for _, entry in ipairs(self.windows) do
    if entry.key == key and entry.made_ms > oldest_ms then return entry.view end
  end
  return shared(self.building_windows, key, function()
    local fresh, reason = taken(self, pid, window_ms)
    if not fresh then return nil, reason end
    local now_ms = self.host.monotonic_ms()
    forget_windows(self, now_ms - WINDOW_KEPT_MS, MOST_WINDOWS - 1)
    self.windows[#self.windows + 1] = { key = key, view = fresh, made_ms = now_ms }
    return fresh
  end)
end

--- A new round of profiles is in: what was built before is old.
function views:clear()
  self.all, self.single, self.count, self.building = nil, {}, 0, {}
  forget_windows(self, self.host.monotonic_ms() - WINDOW_KEPT_MS, MOST_WINDOWS)
end

return views

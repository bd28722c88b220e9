--- Snapshots of the store as views: the merged one of all live processes, and those of single ones.
-- Each is built once per round of heap profiles.
-- @module lupe.views

local async = require("lupe.async")
local view = require("lupe.view")

local views = {}
views.__index = views

local MOST_SINGLE = 4 -- a snapshot can be megabytes, so few are kept

function views.new(host) return setmetatable({ host = host, single = {}, count = 0 }, views) end

local function wrap(address, size, keepalive)
  return assert(view.from_snapshot(address, size, { keepalive = keepalive }))
end

--- @return the merged view; or nil and why there is none yet
function views:merged()
  if not self.all then
    local address, size, keepalive = self.host.snapshot()
    if not address then return nil, size end
    self.all = wrap(address, size, keepalive)
  end
  return self.all
end

--- The merged view as of now, profiles not yet in the merged one included. Inside a task.
function views:fresh()
  local failure, address, size, keepalive = async.await(self.host.take_snapshot, nil)
  if failure then return nil, failure end
  return wrap(address, size, keepalive)
end

--- The view of one process. Inside a task.
-- @return as `merged`
function views:of(pid)
  local single = self.single
  if single[pid] then return single[pid] end
  local failure, address, size, keepalive = async.await(self.host.take_snapshot, pid)
  if failure then return nil, failure end
  local fresh = wrap(address, size, keepalive)
  if single ~= self.single or single[pid] then return fresh end -- a newer round is in, or somebody was faster
  if self.count >= MOST_SINGLE then self.single, self.count = {}, 0 end
  self.single[pid], self.count = fresh, self.count + 1
  return fresh
end

--- A new round of profiles is in: what was built before is old.
function views:clear() self.all, self.single, self.count = nil, {}, 0 end

return views

--- What a view has beside its snapshot, as it was when the view was made: jemalloc's settings, the control
-- group, the host's cores, why a profile is switched off. Plain tables, ready for JSON: whoever keeps them
-- with a snapshot can judge it again later.
-- @module lupe.surroundings

local allocator_state = require("lupe.allocator_state")

local surroundings = {}
surroundings.__index = surroundings

--- @param host the host
-- @tparam function off_because that gives "cpu" and "wall" -> why there are no such samples
function surroundings.new(host, off_because)
  return setmetatable({ host = host, off_because = off_because }, surroundings)
end

--- @param[opt] pid of one process; without, of all. Where those have ended by now, what was known of them last is
--   given.
-- @treturn table extras of lupe.view: `allocator`, `cgroup`, `cores`, `off_because`
function surroundings:of(pid)
  local host = self.host
  local load, allocator, cgroup = host.load(), allocator_state(host, pid), host.cgroup(pid) or nil
  if not pid then
    self.allocator, self.cgroup = allocator or self.allocator, cgroup or self.cgroup
    allocator, cgroup = self.allocator, self.cgroup
  end
  return {
    allocator = allocator, cgroup = cgroup, cores = load and load.cores, off_because = self.off_because(),
  }
end

return surroundings

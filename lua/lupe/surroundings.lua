--- What a view has beside its snapshot, as it was when the view was made: jemalloc's settings, the control
-- group, the host's cores, why a profile is switched off. Plain tables, ready for JSON: whoever keeps them
-- with a snapshot can judge it again later.
-- @module lupe.surroundings

local allocator_state = require("lupe.allocator_state")
local programs = require("lupe.programs")

local surroundings = {}
surroundings.__index = surroundings

--- @param host the host
-- @tparam function off_because that gives "cpu" and "wall" -> why there are no such samples
function surroundings.new(host, off_because)
  return setmetatable({ host = host, off_because = off_because }, surroundings)
end

local function extras(self, allocator, cgroup)
  local load = self.host.load()
  return {
    allocator = allocator, cgroup = cgroup, cores = load and load.cores, off_because = self.off_because(),
  }
end

--- @param[opt] pid of one process; without, of all. Where those have ended by now, what was known of them last is
--   given. Programs of a daemon share no control group, so all of them together have none.
-- @treturn table extras of lupe.view: `allocator`, `cgroup`, `cores`, `off_because`
function surroundings:of(pid)
  local host = self.host
  local allocator, cgroup = allocator_state(host, pid), (pid or not host.serves) and host.cgroup(pid) or nil
  if not pid then
    self.allocator, self.cgroup = allocator or self.allocator, cgroup or self.cgroup
    allocator, cgroup = self.allocator, self.cgroup
  end
  return extras(self, allocator, cgroup)
end

--- The same of one program of several, of what lives of it: the process that it began with may be gone, as a server's
-- is that goes into the background.
-- @param root the process that it began with
function surroundings:of_program(root)
  local first = programs.first_live(self.host.targets(), root)
  return extras(self, allocator_state(self.host, nil, root), first and self.host.cgroup(first.pid) or nil)
end

return surroundings

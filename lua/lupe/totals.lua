--- Times and faults of all processes of the run since it began, the dead ones included: a counter
-- never falls, though the sum over live processes does when one ends.
-- @module lupe.totals

local totals = {}
totals.__index = totals

local FIELDS = { "user_ns", "system_ns", "minor_faults", "major_faults" }

local function zero()
  local sums = {}
  for _, field in ipairs(FIELDS) do sums[field] = 0 end
  return sums
end

local function add(sums, more)
  for _, field in ipairs(FIELDS) do sums[field] = sums[field] + more[field] end
end

function totals.new(host) return setmetatable({ host = host, ended = zero(), last = {} }, totals) end

--- Reads every live process once. Call it now and then, so that little of one that ends is missed.
-- @return { user_ns, system_ns, minor_faults, major_faults }
function totals:update()
  local seen = {}
  for _, target in ipairs(self.host.targets()) do
    local figures = target.live and self.host.memory(target.pid)
    if figures then
      local before = self.last[target.pid]
      if before and figures.user_ns < before.user_ns then add(self.ended, before) end -- the pid is another process now
      self.last[target.pid] = figures
      seen[target.pid] = true
    end
  end
  local sums = zero()
  for pid, figures in pairs(self.last) do
    if seen[pid] then
      add(sums, figures)
    else
      add(self.ended, figures)
      self.last[pid] = nil
    end
  end
  add(sums, self.ended)
  return sums
end

return totals

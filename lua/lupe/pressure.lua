--- How near memory is to its limits, in steps: a step up is worth a check before the next scheduled one.
-- @module lupe.pressure

local STEPS = { normal = 0, warning = 1, critical = 2 }
local NEAR, VERY_NEAR = 0.85, 0.95 -- of the control group's limit

--- @param status of the thresholds: "normal", "warning" or "critical"
-- @param cgroup { limit_bytes, used_bytes, reclaimable_bytes }, or nil
-- @return 0, 1 or 2
return function(status, cgroup)
  local share = cgroup and cgroup.limit_bytes
    and (cgroup.used_bytes - cgroup.reclaimable_bytes) / cgroup.limit_bytes or 0
  return math.max(STEPS[status], share >= VERY_NEAR and 2 or share >= NEAR and 1 or 0)
end

--- How near memory is to its limits, in steps: a step up is worth a check before the next scheduled one.
-- @module lupe.pressure

local STEPS = { normal = 0, warning = 1, critical = 2 }

--- A rule of the operator's may have others, or none: then only the thresholds count.
local function number(value) return type(value) == "number" and value or math.huge end

--- @param status of the thresholds: "normal", "warning" or "critical"
-- @param cgroup { limit_bytes, used_bytes, reclaimable_bytes }, or nil
-- @param shares { near, very_near } of the control group's limit: what the rule about it goes by, so that who moves
--   them moves the early check with them; nil where no rule looks at it
-- @return 0, 1 or 2
return function(status, cgroup, shares)
  local share = cgroup and cgroup.limit_bytes
    and (cgroup.used_bytes - cgroup.reclaimable_bytes) / cgroup.limit_bytes or 0
  local near, very_near = number(shares and shares.near), number(shares and shares.very_near)
  return math.max(STEPS[status], share >= very_near and 2 or share >= near and 1 or 0)
end

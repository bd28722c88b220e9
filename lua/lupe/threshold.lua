--- Normal, warning or critical by resident memory. To fall back takes 5 % less than to rise, so that
-- a figure that wavers around a limit does not make the status waver.
-- @module lupe.threshold

local threshold = {}
threshold.__index = threshold

local HYSTERESIS = 0.05
local MAX_SUBJECTS = 256

--- @param warning_mb, alert_mb limits in MiB
function threshold.new(warning_mb, alert_mb)
  return setmetatable({ warning_mb = warning_mb, alert_mb = alert_mb, status_of = {}, count = 0 }, threshold)
end

local function above(mb, limit_mb, already) return mb > (already and limit_mb * (1 - HYSTERESIS) or limit_mb) end

--- @param subject a pid, or "all"
-- @param rss_mb  its resident memory now
-- @return "normal", "warning" or "critical", and an array of sentences naming figure and limit
function threshold:update(subject, rss_mb)
  local before = self.status_of[subject]
  if before == nil then
    if self.count >= MAX_SUBJECTS then self.status_of, self.count = {}, 0 end
    self.count = self.count + 1
  end
  local status, warnings = "normal", {}
  if above(rss_mb, self.alert_mb, before == "critical") then
    status = "critical"
  elseif above(rss_mb, self.warning_mb, before == "warning" or before == "critical") then
    status = "warning"
  end
  if status ~= "normal" then
    local limit_mb = status == "critical" and self.alert_mb or self.warning_mb
    warnings[1] = rss_mb > limit_mb
      and ("rss_mb %.1f is above the %s limit of %.14g MiB"):format(rss_mb, status, limit_mb)
      or ("rss_mb %.1f was above the %s limit of %.14g MiB, and is not 5 %% below it yet")
        :format(rss_mb, status, limit_mb)
  end
  self.status_of[subject] = status
  return status, warnings
end

return threshold

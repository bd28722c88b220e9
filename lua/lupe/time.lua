--- Times as the API writes them: RFC 3339, UTC, milliseconds, `Z`.
-- @module lupe.time

local time = {}

--- @param unix_ms milliseconds since 1970, or nil or 0 for "never"
-- @return such as "2025-10-10T18:00:00.000Z", or nil
function time.rfc3339(unix_ms)
  if not unix_ms or unix_ms <= 0 then return nil end
  local ms = math.floor(unix_ms + 0.5)
  return ("%s.%03dZ"):format(os.date("!%Y-%m-%dT%H:%M:%S", math.floor(ms / 1000)), ms % 1000)
end

--- Days from 1970-01-01 to a date of the Gregorian calendar. The year begins in March here, so that the day that
-- some have more is its last.
local function days_since_1970(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  local of_year = math.floor((153 * (month - 3) + 2) / 5) + day - 1
  return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400) + of_year - 719468
end

local function days_in(year, month)
  local next_year, next_month = month == 12 and year + 1 or year, month % 12 + 1
  return days_since_1970(next_year, next_month, 1) - days_since_1970(year, month, 1)
end

--- @string text of RFC 3339, such as "2026-11-23T06:07:14.5Z" or "2026-11-23T08:07:14+02:00". A space does for the
-- plus: that is what becomes of one in a query.
-- @return Unix time in milliseconds, or nil where it is no such time
function time.parse(text)
  local date, clock, fraction, zone = text:match("^(%d%d%d%d%-%d%d%-%d%d)[Tt ](%d%d:%d%d:%d%d)(%.?%d*)(.*)$")
  if not date or fraction == "." or fraction:match("^%d") then return nil end
  local year, month, day = date:match("(%d+)-(%d+)-(%d+)")
  local hour, minute, second = clock:match("(%d+):(%d+):(%d+)")
  year, month, day, hour, minute, second = tonumber(year), tonumber(month), tonumber(day), tonumber(hour),
    tonumber(minute), tonumber(second)
  if month < 1 or month > 12 or day < 1 or day > days_in(year, month) then return nil end
  if hour > 23 or minute > 59 or second > 60 then return nil end
  local sign, zone_hour, zone_minute = zone:match("^([+ -])(%d%d):(%d%d)$")
  if not sign and zone:upper() ~= "Z" then return nil end
  local ahead_s = 0
  if sign then
    zone_hour, zone_minute = tonumber(zone_hour), tonumber(zone_minute)
    if zone_hour > 23 or zone_minute > 59 then return nil end
    ahead_s = (sign == "-" and -1 or 1) * (3600 * zone_hour + 60 * zone_minute)
  end
  local seconds = 86400 * days_since_1970(year, month, day) + 3600 * hour + 60 * minute + second - ahead_s
  return 1000 * (seconds + (tonumber("0" .. fraction) or 0))
end

return time

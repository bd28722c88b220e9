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

return time

--- How many requests of one class a peer may make in a minute. The table of peers is bounded.
-- @module lupe.rate_limit

local rate_limit = {}
rate_limit.__index = rate_limit

local WINDOW_MS = 60000
local MAX_PEERS = 1024

--- @param limits class -> requests per minute, 0 for no limit
function rate_limit.new(limits)
  return setmetatable({ limits = limits, windows = {}, count = 0 }, rate_limit)
end

--- Makes room: windows that are over go; where none is, the one that began first.
local function evict(self, now_ms)
  local oldest_key, oldest_ms
  for key, window in pairs(self.windows) do
    if now_ms - window.began_ms >= WINDOW_MS then
      self.windows[key], self.count = nil, self.count - 1
    elseif not oldest_ms or window.began_ms < oldest_ms then
      oldest_key, oldest_ms = key, window.began_ms
    end
  end
  if self.count >= MAX_PEERS then self.windows[oldest_key], self.count = nil, self.count - 1 end
end

--- Counts one request.
-- @return true; or false and the whole seconds to wait
function rate_limit:take(class, peer, now_ms)
  local limit = self.limits[class]
  if not limit or limit == 0 then return true end
  local key = class .. " " .. peer
  local window = self.windows[key]
  if not window or now_ms - window.began_ms >= WINDOW_MS then
    if not window then
      if self.count >= MAX_PEERS then evict(self, now_ms) end
      self.count = self.count + 1
    end
    window = { began_ms = now_ms, taken = 0 }
    self.windows[key] = window
  end
  if window.taken >= limit then return false, math.ceil((window.began_ms + WINDOW_MS - now_ms) / 1000) end
  window.taken = window.taken + 1
  return true
end

return rate_limit

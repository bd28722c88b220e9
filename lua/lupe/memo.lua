--- Figures that change slowly and cost system calls, remembered for a moment.
-- @module lupe.memo

local MOST_KEYS = 64

--- @param clock function() in milliseconds
-- @param keep_ms how long a value stays good
-- @param read   function(key), key may be nil
-- @return the same function, remembering its first result
return function(clock, keep_ms, read)
  local values, count = {}, 0
  return function(key)
    local at = key == nil and "all" or key
    local now_ms, known = clock(), values[at]
    if known and now_ms - known.read_ms < keep_ms then return known.value end
    if not known then
      if count >= MOST_KEYS then values, count = {}, 0 end
      count = count + 1
    end
    local value = read(key)
    values[at] = { value = value, read_ms = now_ms }
    return value
  end
end

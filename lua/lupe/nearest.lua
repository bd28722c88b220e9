--- The known name nearest to a mistyped one, for "did you mean".
-- @module lupe.nearest

--- Edits (insert, delete, replace, swap of neighbours) that turn one word into the other.
local function distance(a, b)
  local before, previous = {}, {}
  for j = 0, #b do previous[j] = j end
  for i = 1, #a do
    local current = { [0] = i }
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local best = math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, before[j - 2] + 1)
      end
      current[j] = best
    end
    before, previous = previous, current
  end
  return previous[#b]
end

local LONGEST = 64 -- longer input is nobody's typing error

--- @param word    what was given
-- @param known    array of the names that would have been right
-- @return the nearest of them (the earlier one at a tie), or nil when none is near
return function(word, known)
  if #word > LONGEST then return nil end
  local best, best_distance
  for _, name in ipairs(known) do
    local d = distance(word:lower(), name:lower())
    if name:sub(1, #word) == word and #word >= 2 then d = math.min(d, 1) end -- an abbreviation
    if not best_distance or d < best_distance then best, best_distance = name, d end
  end
  if best_distance and best_distance <= math.max(1, math.floor(#word / 3)) then return best end
  return nil
end

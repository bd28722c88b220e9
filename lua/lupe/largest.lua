--- Top-N without sorting everything.
-- @module lupe.largest

--- a goes before b in the result: larger key, then lower index, so that order never depends on chance.
local function before(keys, a, b)
  local ka, kb = keys[a], keys[b]
  return ka > kb or (ka == kb and a < b)
end

local function sift_down(heap, keys, at, size)
  while true do
    local child = 2 * at
    if child > size then return end
    if child < size and before(keys, heap[child], heap[child + 1]) then child = child + 1 end
    if not before(keys, heap[at], heap[child]) then return end
    heap[at], heap[child] = heap[child], heap[at]
    at = child
  end
end

--- The `limit` first of `count` candidates, in order. A heap with the last of them on top: most
-- candidates cost one comparison.
-- @tparam table candidates indexes, from 1
-- @tparam number count of them
-- @param keys figure by index
-- @tparam number limit at most so many
-- @treturn table the first of them, @treturn number how many
return function(candidates, count, keys, limit)
  local size = math.min(limit, count)
  local heap = {}
  for i = 1, size do heap[i] = candidates[i] end
  for at = math.floor(size / 2), 1, -1 do sift_down(heap, keys, at, size) end
  for i = size + 1, count do
    if size > 0 and before(keys, candidates[i], heap[1]) then
      heap[1] = candidates[i]
      sift_down(heap, keys, 1, size)
    end
  end
  for last = size, 2, -1 do
    heap[1], heap[last] = heap[last], heap[1]
    sift_down(heap, keys, 1, last - 1)
  end
  return heap, size
end

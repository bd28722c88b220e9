--- Durations counted in buckets, four to each doubling: what the columns `span_buckets` of a snapshot hold.
-- 0, 1, 2 and 3 ns have a bucket each; from 4 ns on bucket b begins at (4 + b % 4) * 2 ^ (b / 4 - 1), so that no bucket
-- is wider than a quarter of the figures in it. The last has no end.
-- @module lupe.span_buckets

local floor, frexp, max, min = math.floor, math.frexp, math.max, math.min

local span_buckets = {}

--- The bucket (from 0, below `count`) of a duration.
function span_buckets.of(ns, count)
  if ns < 4 then return max(0, floor(ns)) end
  local fraction, exponent = frexp(ns) -- ns = fraction * 2 ^ exponent, 0.5 <= fraction < 1
  return min(count - 1, 4 * (exponent - 2) + floor(fraction * 8) - 4)
end

--- The least duration in a bucket, ns.
function span_buckets.begins(bucket)
  if bucket < 4 then return bucket end
  return (4 + bucket % 4) * 2 ^ (floor(bucket / 4) - 1)
end

--- The duration that a share of all is not above, between a bucket's bounds by interpolation: within a quarter of the
-- true figure.
-- @param counts array from 0, @tparam number count of buckets
-- @tparam number q 0..1
-- @tparam number longest the longest duration, ns
-- @treturn number ns, or nil where there are none
function span_buckets.quantile(counts, count, q, longest)
  local all = 0
  for b = 0, count - 1 do all = all + counts[b] end
  if all <= 0 then return nil end
  local wanted, below = q * all, 0
  for b = 0, count - 1 do
    if counts[b] > 0 and below + counts[b] >= wanted then
      local from = span_buckets.begins(b)
      local to = b == count - 1 and longest or min(longest, span_buckets.begins(b + 1))
      return min(longest, from + max(0, to - from) * max(0, wanted - below) / counts[b])
    end
    below = below + counts[b]
  end
  return longest
end

return span_buckets

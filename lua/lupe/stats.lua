--- Small statistics for short series: straight lines, robust slopes, trend tests, quantiles.
-- Series are arrays addressed by an inclusive index range, so that parts of one can be looked at
-- without copying. Loops are plain and compile. No function here allocates per element.
-- @module lupe.stats

local floor, sqrt, abs, exp, min, max = math.floor, math.sqrt, math.abs, math.exp, math.min, math.max

local stats = {}

--- 90 % of a normal distribution lies within this many standard deviations of its mean, so a one-sided
-- bound at this distance is passed by chance in 5 % of all cases.
stats.Z90 = 1.6448536269514722

--- Least squares line y = intercept + slope * x.
-- @tparam table x times, @tparam table y values
-- @tparam number first, @tparam number last inclusive
-- @treturn number slope, @treturn number intercept, @treturn number r (Pearson's; 0 for a flat series)
-- @return standard error of the slope under independent noise; 0 below three points
--   Draper and Smith, Applied Regression Analysis, 3rd ed., section 1.4.
function stats.linear(x, y, first, last)
  local n = last - first + 1
  if n < 2 then return 0, y[first] or 0, 0, 0 end
  local mx, my = 0, 0
  for i = first, last do
    mx = mx + x[i]
    my = my + y[i]
  end
  mx, my = mx / n, my / n
  local sxx, sxy, syy = 0, 0, 0
  for i = first, last do
    local dx, dy = x[i] - mx, y[i] - my
    sxx = sxx + dx * dx
    sxy = sxy + dx * dy
    syy = syy + dy * dy
  end
  if sxx == 0 then return 0, my, 0, 0 end
  local slope = sxy / sxx
  local r = syy > 0 and sxy / sqrt(sxx * syy) or 0
  local rest = max(0, syy - slope * sxy)
  local stderr = n > 2 and sqrt(rest / (n - 2) / sxx) or 0
  return slope, my - slope * mx, r, stderr
end

--- The k-th smallest of a[first..last] (k = 1 is the smallest), in linear time on average; reorders a.
-- Hoare, Algorithm 65: Find. Communications of the ACM 4(7), 1961; median of three as the pivot.
function stats.select(a, first, last, k)
  local target = first + k - 1
  while last > first do
    local middle = floor((first + last) / 2)
    local p, q, s = a[first], a[middle], a[last]
    local pivot = max(min(p, q), min(max(p, q), s))
    local i, j = first, last
    while i <= j do
      while a[i] < pivot do i = i + 1 end
      while a[j] > pivot do j = j - 1 end
      if i <= j then
        a[i], a[j] = a[j], a[i]
        i, j = i + 1, j - 1
      end
    end
    if target <= j then
      last = j
    elseif target >= i then
      first = i
    else
      return a[target]
    end
  end
  return a[target]
end

-- Its branches follow the data, so tracing makes hundreds of traces of it, which cost more than they save.
jit.off(stats.select)

local scratch = {}
local pairs_of = {}

--- Median of y[first..last]; y keeps its order.
function stats.median(y, first, last)
  return stats.quantile(y, first, last, 0.5)
end

--- Quantile q (0..1) of y[first..last], between neighbours by interpolation; y keeps its order.
-- Hyndman and Fan, Sample Quantiles in Statistical Packages, The American Statistician 50(4), 1996: type 7.
function stats.quantile(y, first, last, q)
  local n = last - first + 1
  if n < 1 then return nil, "EINVAL: a quantile of nothing", "EINVAL" end
  for i = 1, n do scratch[i] = y[first + i - 1] end
  local place = (n - 1) * q + 1
  local below = floor(place)
  local low = stats.select(scratch, 1, n, below)
  if place == below then return low end
  -- What is right of `below` is not smaller now, so the next one is the least of it.
  local high = scratch[below + 1]
  for i = below + 2, n do
    if scratch[i] < high then high = scratch[i] end
  end
  return low + (place - below) * (high - low)
end

--- Robust slope: the median of the slopes of all pairs, with Sen's interval.
-- Up to 29 % of the points may be anything. Cost: n(n-1)/2 divisions and three selections.
-- Sen, Estimates of the Regression Coefficient Based on Kendall's Tau, JASA 63(324), 1968; the interval's
-- rank distance is z * sqrt(n(n-1)(2n+5)/18), which holds for independent noise.
-- @tparam[opt=1.645] number z
-- @treturn number slope, @treturn number low, @treturn number high; nil below two distinct times
function stats.theil_sen(x, y, first, last, z)
  local count = 0
  for i = first, last - 1 do
    local xi, yi = x[i], y[i]
    for j = i + 1, last do
      local dx = x[j] - xi
      if dx ~= 0 then
        count = count + 1
        pairs_of[count] = (y[j] - yi) / dx
      end
    end
  end
  if count == 0 then return nil end
  local n = last - first + 1
  local reach = (z or stats.Z90) * sqrt(n * (n - 1) * (2 * n + 5) / 18)
  local lower = max(1, floor((count - reach) / 2))
  local upper = min(count, floor((count + reach) / 2) + 1)
  -- Each selection leaves its left part not larger than the rest, so the next one has less to search.
  local middle = floor((count + 1) / 2)
  local slope = stats.select(pairs_of, 1, count, middle)
  if count % 2 == 0 then
    local above = pairs_of[middle + 1]
    for i = middle + 2, count do
      if pairs_of[i] < above then above = pairs_of[i] end
    end
    slope = (slope + above) / 2
  end
  local low = stats.select(pairs_of, 1, middle, min(lower, middle))
  local high = slope
  if upper > middle then high = stats.select(pairs_of, middle + 1, count, upper - middle) end
  return slope, low, high
end

--- By how much neighbours that err alike widen an interval around a slope: sqrt(n / n_effective), at least 1, where
-- n_effective = n (1 - r) / (1 + r) and r is the correlation of neighbours in what a straight line leaves over, taken
-- as 0.9 at most.
-- Santer et al., Statistical Significance of Trends and Trend Differences in Layer-Average Atmospheric Temperature
-- Time Series, Journal of Geophysical Research 105(D6), 2000, section 3.
function stats.correlation_widening(x, y, first, last)
  local slope, at_zero = stats.linear(x, y, first, last)
  local squares, products, before = 0, 0, nil
  for i = first, last do
    local rest = y[i] - at_zero - slope * x[i]
    squares = squares + rest * rest
    if before then products = products + rest * before end
    before = rest
  end
  if squares <= 0 then return 1 end
  local r = max(0, min(0.9, products / squares))
  return sqrt((1 + r) / (1 - r))
end

--- Chance that a standard normal variable is below z; error under 7.5e-8.
-- Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17.
function stats.normal_cdf(z)
  local t = 1 / (1 + 0.2316419 * abs(z))
  local tail = 0.3989422804014327 * exp(-z * z / 2)
    * t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
  return z >= 0 and 1 - tail or tail
end

--- Does a series rise or fall at all? Counts of pairs only: no shape, no distribution is assumed.
-- Mann, Nonparametric Tests Against Trend, Econometrica 13, 1945; ties as in Kendall, Rank Correlation
-- Methods, 4th ed., chapter 4.
-- @treturn number tau (-1..1), @treturn number p (two-sided; 1 where nothing can be said),
-- @treturn number s the pairs that rise minus those that fall
function stats.mann_kendall(y, first, last)
  local n = last - first + 1
  if n < 3 then return 0, 1, 0 end
  local s, tied_variance = 0, 0
  for i = first, last - 1 do
    local yi, equal = y[i], 0
    for j = i + 1, last do
      local yj = y[j]
      if yj > yi then
        s = s + 1
      elseif yj < yi then
        s = s - 1
      else
        equal = equal + 1
      end
    end
    -- A group of t equal values meets equal = t-1, t-2, ... 0 here, and these terms add up to
    -- t(t-1)(2t+5): the difference of that polynomial at t = equal + 1 and t = equal.
    local t = equal + 1
    tied_variance = tied_variance + t * (t - 1) * (2 * t + 5) - equal * (equal - 1) * (2 * equal + 5)
  end
  local variance = (n * (n - 1) * (2 * n + 5) - tied_variance) / 18
  local tau = s / (n * (n - 1) / 2)
  if variance <= 0 or s == 0 then return tau, 1, s end
  local z = (s > 0 and s - 1 or s + 1) / sqrt(variance)
  return tau, 2 * (1 - stats.normal_cdf(abs(z))), s
end

--- How well two flat levels with one step between explain y[first..last].
-- @treturn number the sum of squares left over, @treturn number index of the first point behind the step,
-- @treturn number height of the step
function stats.best_step(y, first, last)
  local n, sum, squares = last - first + 1, 0, 0
  for i = first, last do
    sum = sum + y[i]
    squares = squares + y[i] * y[i]
  end
  local mean = sum / n
  local best, at, height = squares - n * mean * mean, last + 1, 0
  local left = 0
  local whole = best
  for i = first, last - 1 do
    left = left + y[i]
    local k = i - first + 1
    local a, b = left / k, (sum - left) / (n - k)
    local rest = whole - (b - a) * (b - a) * k * (n - k) / n
    if rest < best then best, at, height = rest, i + 1, b - a end
  end
  return max(0, best), at, height
end

return stats

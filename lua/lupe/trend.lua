--- What a short history says about growth: figures only. What they mean is for a rule to say.
-- A trend's fields (`unit` is MiB for space and objects for counts):
--
-- * `slope`, `low`, `high` -- robust growth and the bounds that it leaves only one time in twenty to each
--   side, sampling error included; unit per hour
-- * `per_second` -- slope in bytes (objects) per second; `r` -- Pearson's correlation with time
-- * `tau`, `p` -- Mann-Kendall: share of pairs that rise less those that fall, and the chance of it
-- * `z`, `confidence` -- slope in standard errors; 0..1, how sure it is that there is growth at all
-- * `deceleration` -- 1 - pace of the second half / pace of the first: 0 steady, 1 stopped, below 0
--   accelerating; `deceleration_error` -- its standard error
-- * `late` -- pace of the last third / pace of the whole: 1 steady, 0 nothing grew lately; `late_error` -- its
--   standard error
-- * `steady_z` -- like `z`, with ups and downs that last counted as well: neighbours that err alike make it smaller
-- * `pace_z` -- is its pace constant? in standard errors, below 0: slower and slower
-- * `rises`, `intervals` -- in how many of the steps between profiles it grew
-- * `fall` -- largest fall from an earlier height; `new_high` -- how far the end stands, beyond the sampling
--   error, above the height that it fell from: both as shares of the range
-- * `troughs` -- the lowest heights of so many equal times (six, fewer where there are few profiles); `trough_tau` --
--   Kendall's tau of them, 1: each higher than all before; `trough_steadiness` -- 1: they never fall, 0: they fall as
--   much as they rise; `trough_late` -- their pace in the last two steps / in all
-- * `kept_early`, `kept_late` -- share of the bytes allocated in the first two thirds, in the last third, by which
--   the live ones rose: 1 nothing is freed, 0 a site that is full; `load_ratio` -- bytes allocated per second, last
--   third / first third; `level_ratio` -- mean height, likewise. nil where what was allocated is not known
-- * `line_fit`, `step_fit`, `exponential_fit` -- share (0..1) of the variation that a straight line, one
--   step between two levels, an exponential curve explain; `step_height` bytes (objects), `step_ms` when;
--   `doubling_seconds` of the exponential, nil where it shrinks
-- * `first`, `last`, `lowest`, `highest`, `rise` -- bytes (objects); `noise` -- standard error of `rise`
-- * `profiles`, `seconds`, `from_ms`, `to_ms` -- the part of the history that was looked at
-- @module lupe.trend
-- @usage
-- for site in view.heap:sites { by = "growth", limit = 1 } do
--   local trend = site:trend("inuse_space", { since_ms = view.time_ms - 20000 })
--   return trend.slope, trend.low <= trend.slope, trend.rises .. " of " .. trend.intervals, words.bytes(trend.rise)
-- end
-- --> 3600, true, 20 of 20, 20.0 MiB

local stats = require("lupe.stats")

local sqrt, min, max, log, floor = math.sqrt, math.min, math.max, math.log, math.floor

local trend = {}

--- Fewer profiles than this have no trend.
trend.FEWEST = 5

local HOUR = 3600
local MIB = 2 ^ 20
local MOST_ERRORS = 99
local LIMIT = 10 -- of ratios whose divisor may be next to nothing
local BLOCKS, FEWEST_IN_BLOCK = 6, 3
local MOST_POINTS = 32 -- of which all pairs are looked at
local x, y, a, logs = {}, {}, {}, {} -- scratch: one series at a time
local mean_x, mean_y = {}, {} -- likewise, of neighbours
local lowest_of = {} -- of each block

--- The part to look at, into the scratch: from the first profile where the site is live, and not before
-- `since`. A site that began late is judged by its own life.
local function gather(times, first_time, values, offset, count, since, allocated)
  local n, started = 0, false
  for i = 0, count - 1 do
    local value = values[offset + i]
    started = started or value > 0
    if started and times[i] >= since then
      n = n + 1
      x[n], y[n] = (times[i] - first_time) / 1000, value
      a[n] = allocated and allocated[offset + i] or 0
    end
  end
  return n
end

--- Standard error of the whole rise. The sampler's own bound is sqrt(period * bytes) at each end; but bytes
-- that simply stay carry the same error at both ends, so where the steps vary less, they tell more.
local function rise_noise(n, period)
  if period <= 0 then return 0 end
  local mean = (y[n] - y[1]) / (n - 1)
  local squares = 0
  for i = 2, n do
    local d = y[i] - y[i - 1] - mean
    squares = squares + d * d
  end
  local by_steps = sqrt(squares / (n - 2) * (n - 1))
  return min(by_steps, sqrt(period * (y[1] + y[n])))
end

local function heights(n, figures, period)
  local lowest, highest, peak, fall, fell_from = y[1], y[1], y[1], 0, y[1]
  local rises = 0
  for i = 2, n do
    local value = y[i]
    if value > y[i - 1] then rises = rises + 1 end
    lowest, highest = min(lowest, value), max(highest, value)
    peak = max(peak, value)
    if peak - value > fall then fall, fell_from = peak - value, peak end
  end
  local range = highest - lowest
  figures.first, figures.last, figures.rise = y[1], y[n], y[n] - y[1]
  figures.lowest, figures.highest = lowest, highest
  figures.rises, figures.intervals = rises, n - 1
  figures.fall = range > 0 and fall / range or 0
  figures.new_high = 0
  if fall == 0 then
    figures.new_high = range > 0 and 1 or 0
  elseif range > 0 then
    local doubt = stats.Z90 * sqrt(period * (y[n] + fell_from))
    figures.new_high = (y[n] - fell_from - doubt) / range
  end
end

local function pace(n, figures, whole)
  local half, third = math.floor(n / 2), max(3, math.ceil(n / 3))
  local early = stats.linear(x, y, 1, half + 1)
  local later = stats.linear(x, y, half + 1, n)
  local late = stats.linear(x, y, n - third + 1, n)
  figures.late = whole > 0 and late / whole or 0
  figures.late_error = whole > 0 and min(LIMIT, figures.noise * sqrt(n / third) / (x[n] - x[1]) / whole) or LIMIT
  if early > 0 then
    figures.deceleration = max(-LIMIT, min(LIMIT, 1 - later / early))
    -- Two halves, each half as long: the error of their difference is twice that of the whole slope.
    figures.deceleration_error = min(LIMIT, 2 * figures.noise / (x[n] - x[1]) / early)
  else
    figures.deceleration = later > 0 and -LIMIT or 0
    figures.deceleration_error = LIMIT
  end
end

--- Theil and Sen's slope and interval. All pairs of many points take long, and tell hardly more than those of the means
-- of neighbours, which are half as many points.
local function robust_slope(n)
  if n <= MOST_POINTS then return stats.theil_sen(x, y, 1, n) end
  local pairs_count = floor(n / 2)
  for k = 1, pairs_count do
    local i = 2 * k - 1 + n % 2
    mean_x[k], mean_y[k] = (x[i] + x[i + 1]) / 2, (y[i] + y[i + 1]) / 2
  end
  return stats.theil_sen(mean_x, mean_y, 1, pairs_count)
end

local function in_errors(value, stderr)
  if value == 0 then return 0 end
  return stderr > 0 and max(-MOST_ERRORS, min(MOST_ERRORS, value / stderr)) or value > 0 and MOST_ERRORS or -MOST_ERRORS
end

--- Is it growing slower and slower? Laplace's test of a series of events, each rise or fall an event of its own
-- weight: when growth keeps its pace, the middle of all growth lies in the middle of the time.
-- Cox and Lewis, The Statistical Analysis of Series of Events, 1966, section 3.3.
local function pace_in_errors(n)
  local middle, moment, squares = (x[1] + x[n]) / 2, 0, 0
  for i = 2, n do
    local rise = y[i] - y[i - 1]
    moment = moment + rise * ((x[i] + x[i - 1]) / 2 - middle)
    squares = squares + rise * rise
  end
  return in_errors(moment, (x[n] - x[1]) * sqrt(squares / 12))
end

--- The lowest heights of six equal times: what a sawtooth, a batch or a collector comes back to.
local function troughs(n, figures)
  local blocks = min(BLOCKS, floor(n / FEWEST_IN_BLOCK))
  for b = 1, blocks do
    local lowest = math.huge
    for i = floor((b - 1) * n / blocks) + 1, floor(b * n / blocks) do lowest = min(lowest, y[i]) end
    lowest_of[b] = lowest
  end
  local up, down = 0, 0
  for b = 2, blocks do
    local d = lowest_of[b] - lowest_of[b - 1]
    if d > 0 then up = up + d else down = down - d end
  end
  figures.troughs = blocks
  figures.trough_tau = stats.mann_kendall(lowest_of, 1, blocks)
  figures.trough_steadiness = up > down and (up - down) / (up + down) or 0
  figures.trough_late = up > 0 and (lowest_of[blocks] - lowest_of[max(1, blocks - 2)]) / up * (blocks - 1) / 2 or 0
end

local function share_kept(first, last)
  local allocated = a[last] - a[first]
  if allocated > 0 then return max(-1, min(1, (y[last] - y[first]) / allocated)) end
end

--- Live bytes beside what was allocated meanwhile.
local function against_load(n, figures)
  local size = max(3, math.ceil(n / 3)) -- of the first third and of the last, in profiles
  local last = n - size + 1
  figures.kept_early, figures.kept_late = share_kept(1, last), share_kept(last, n)
  local early, late = 0, 0
  for i = 1, size do early, late = early + y[i], late + y[n + 1 - i] end
  local before, after = (a[size] - a[1]) / (x[size] - x[1]), (a[n] - a[last]) / (x[n] - x[last])
  figures.level_ratio = early > 0 and late / early or nil
  figures.load_ratio = before > 0 and after / before or nil
end

local function shapes(n, figures, r)
  figures.line_fit = r * r
  local rest, at, height = stats.best_step(y, 1, n)
  local mean, spread = 0, 0
  for i = 1, n do mean = mean + y[i] / n end
  for i = 1, n do spread = spread + (y[i] - mean) ^ 2 end
  figures.step_fit = spread > 0 and max(0, 1 - rest / spread) or 0
  figures.step_height, figures.step_at = height, at <= n and x[at] or nil
  figures.exponential_fit = 0
  local positive = true
  for i = 1, n do
    positive = positive and y[i] > 0
    logs[i] = positive and log(y[i]) or 0
  end
  if positive and spread > 0 then
    local rate, at_zero = stats.linear(x, logs, 1, n)
    -- Judged on the values themselves: a fit of logarithms alone hardly feels the large ones.
    local left = 0
    for i = 1, n do left = left + (y[i] - math.exp(at_zero + rate * x[i])) ^ 2 end
    figures.exponential_fit = max(0, 1 - left / spread)
    if rate > 0 then figures.doubling_seconds = log(2) / rate end
  end
end

--- Measures one series.
-- @param times array from 0, Unix ms, rising
-- @param values array; the series is values[offset] .. values[offset + count - 1]
-- @tparam number period bytes per sample, 0 where values are exact
-- @tparam[opt=1048576] number unit what a slope is counted in
-- @tparam[opt] number since_ms leave out what is older
-- @param[opt] allocated array like `values`: bytes allocated until each time
-- @treturn table the trend, or nil and a reason in words
function trend.measure(times, values, offset, count, period, unit, since_ms, allocated)
  if count == 0 then return nil, "no heap profile yet" end
  local start = times[0]
  local n = gather(times, start, values, offset, count, since_ms or -math.huge, allocated)
  if n < trend.FEWEST then return nil, ("%d profiles, at least %d are needed"):format(n, trend.FEWEST) end
  local seconds = x[n] - x[1]
  if seconds <= 0 then return nil, "all profiles are of the same time" end

  local scale = HOUR / (unit or MIB)
  local figures = {
    profiles = n, seconds = seconds, from_ms = start + x[1] * 1000, to_ms = start + x[n] * 1000,
    noise = rise_noise(n, period),
  }
  heights(n, figures, period)
  local whole, _, r = stats.linear(x, y, 1, n)
  figures.r = r
  figures.tau, figures.p = stats.mann_kendall(y, 1, n)
  local slope, low, high = robust_slope(n)
  local sampling = figures.noise / seconds
  local scatter = (high - low) / (2 * stats.Z90)
  local stderr = max(sampling, scatter)
  low, high = min(low, slope - stats.Z90 * sampling), max(high, slope + stats.Z90 * sampling)
  figures.per_second = slope
  figures.slope, figures.low, figures.high = slope * scale, low * scale, high * scale
  figures.z = in_errors(slope, stderr)
  figures.steady_z = in_errors(slope, max(sampling, scatter * stats.correlation_widening(x, y, 1, n)))
  figures.confidence = figures.z > 0 and max(0, 2 * stats.normal_cdf(figures.z) - 1) or 0
  pace(n, figures, whole)
  figures.pace_z = pace_in_errors(n)
  troughs(n, figures)
  if allocated then against_load(n, figures) end
  shapes(n, figures, r)
  if figures.step_at then figures.step_ms, figures.step_at = start + figures.step_at * 1000, nil end
  return figures
end

--- A linear screen over many series of one length: least squares slopes in one compiled pass.
-- @param times array from 0, Unix ms
-- @param values array, one series of `count` after the other
-- @tparam number series how many
-- @tparam table out array from 0, filled with bytes (objects) per second
function trend.screen(times, values, count, series, out)
  local mean, squares = 0, 0
  for i = 0, count - 1 do mean = mean + (times[i] - times[0]) / 1000 / count end
  for i = 0, count - 1 do
    x[i + 1] = (times[i] - times[0]) / 1000 - mean
    squares = squares + x[i + 1] * x[i + 1]
  end
  for k = 0, series - 1 do
    local sum, at = 0, k * count - 1
    for i = 1, count do sum = sum + x[i] * values[at + i] end
    out[k] = squares > 0 and sum / squares or 0
  end
  return out
end

return trend

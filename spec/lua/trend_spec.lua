require("spec.support")
local given = require("spec.rules.support")
local trend = require("lupe.trend")

local MIB = 2 ^ 20

--- Measures bytes at one-second intervals, exact where no period is given.
local function measure(values, period, since_ms, allocated)
  local times, zero_based, zero_based_allocated = {}, {}, allocated and {}
  for i, value in ipairs(values) do
    times[i - 1], zero_based[i - 1] = 1000 * i, value
    if allocated then zero_based_allocated[i - 1] = allocated[i] end
  end
  return trend.measure(times, zero_based, 0, #values, period or 0, nil, since_ms, zero_based_allocated)
end

describe("a trend", function()
  it("of a line is steady to its end", function()
    local t = measure(given.history(20, function(s) return s * MIB end))
    assert.same({ 3600, MIB, 1, 0, 19, 0, 1 }, { t.slope, t.per_second, t.late, t.deceleration, t.rises, t.fall, t.r })
    assert.same({ MIB, 20 * MIB, 19, 20 }, { t.first, t.last, t.seconds, t.profiles })
  end)

  it("begins when the site does", function()
    local t = measure(given.history(20, function(s) return s > 10 and (s - 10) * MIB or 0 end))
    assert.same({ 10, 9, 11000 }, { t.profiles, t.seconds, t.from_ms })
  end)

  it("leaves out what it is told to", function()
    local t = measure(given.history(20, function(s) return s * MIB end), 0, 8000)
    assert.same({ 13, 8000, 20000 }, { t.profiles, t.from_ms, t.to_ms })
  end)

  it("loses its pace where growth stops", function()
    local t = measure(given.history(20, function(s) return math.min(s, 10) * MIB end))
    assert.equal(0, t.late)
    assert.is_true(t.deceleration > 0.9)
  end)

  it("tells growth that slows down from growth that comes in bursts", function()
    local slower = measure(given.history(30, function(s) return 20 * MIB * (1 - math.exp(-s / 10)) end))
    local bursts = measure(given.history(30, function(s) return math.floor(s / 5) * MIB end))
    assert.is_true(slower.pace_z < -2, slower.pace_z)
    assert.is_true(math.abs(bursts.pace_z) < 1, bursts.pace_z)
    assert.is_true(measure(given.history(30, function(s) return s * s end)).pace_z > 2)
  end)

  it("is surer of growth than of ups and downs of the same size", function()
    local wave = measure(given.history(40, function(s) return (10 + s / 4 + 3 * math.sin(s / 3)) * MIB end))
    local line = measure(given.history(40, function(s) return (10 + s / 4 + 3 * (s % 2)) * MIB end))
    assert.is_true(wave.steady_z < 0.6 * wave.z, wave.steady_z)
    assert.is_true(line.steady_z > 0.9 * line.z, line.steady_z)
  end)

  it("finds what rises below a sawtooth, and what does not", function()
    local bounded = measure(given.history(36, function(s) return (s % 6) * MIB end))
    local rising = measure(given.history(36, function(s) return ((s % 6) + s / 12) * MIB end))
    assert.same({ 6, 0, 0 }, { bounded.troughs, bounded.trough_tau, bounded.trough_steadiness })
    assert.same({ 6, 1, 1 }, { rising.troughs, rising.trough_tau, rising.trough_steadiness })
    assert.is_true(math.abs(rising.trough_late - 1) < 0.01)
  end)

  it("tells what it kept of what it allocated, and how its load has changed", function()
    local cache = measure(given.history(30, function(s) return math.min(s, 21) * MIB end), 0, nil,
      given.history(30, function(s) return s * MIB end))
    assert.same({ 1, 0, 1 }, { cache.kept_early, cache.kept_late, cache.load_ratio })
    local busier = measure(given.history(30, function(s) return (s <= 15 and 1 or 2) * MIB end), 0, nil,
      given.history(30, function(s) return (s + math.max(0, s - 15)) * MIB end))
    assert.same({ 2, 2 }, { busier.load_ratio, busier.level_ratio })
    local unknown = measure(given.history(30, function(s) return s * MIB end))
    assert.is_nil(unknown.kept_late or unknown.load_ratio or unknown.level_ratio)
  end)

  it("gains pace where growth is exponential, and tells the doubling time", function()
    local t = measure(given.history(20, function(s) return 1000 * 2 ^ (s / 4) end))
    assert.is_true(t.deceleration < -1)
    assert.is_true(t.exponential_fit > 0.999 and t.exponential_fit > t.line_fit)
    assert.is_true(math.abs(t.doubling_seconds - 4) < 1e-6)
  end)

  it("knows a step, its height and its time", function()
    local t = measure(given.history(20, function(s) return (s >= 8 and 5 or 1) * MIB end))
    assert.is_true(t.step_fit > 0.999)
    assert.same({ 4 * MIB, 8000 }, { t.step_height, t.step_ms })
  end)

  it("measures how far it fell, and whether it has come further since", function()
    local sawtooth = measure(given.history(20, function(s) return (s % 8) * MIB end))
    assert.equal(1, sawtooth.fall)
    assert.is_true(sawtooth.new_high < 0)
    local rising = measure(given.history(20, function(s) return (s + (s % 5)) * MIB end))
    assert.is_true(rising.fall < 0.3 and rising.new_high > 0.5)
  end)

  it("is as unsure as its samples are few", function()
    local few = measure(given.sampled(20, function(s) return s * MIB / 8 end), given.PERIOD)
    local many = measure(given.sampled(20, function(s) return s * MIB * 8 end), given.PERIOD)
    assert.is_true(few.confidence < many.confidence)
    assert.is_true(few.low < 0.7 * few.slope)
    assert.is_true(many.low > 0.8 * many.slope)
  end)

  it("of noise is not significant", function()
    local rising = 0
    for seed = 1, 100 do
      local t = measure(given.churning(20, function() return 10 * MIB end, seed), given.PERIOD)
      if t.low > 0 then rising = rising + 1 end
    end
    assert.is_true(rising <= 5, rising)
  end)

  it("is not misled by bytes that stay: they carry no new error", function()
    local t = measure(given.sampled(20, function(s) return (1000 + s) * MIB end), given.PERIOD)
    assert.is_true(t.confidence > 0.99)
  end)

  it("of nothing that changes has neither slope nor confidence", function()
    local t = measure(given.history(10, function() return MIB end), given.PERIOD)
    assert.same({ 0, 0, 0, 0, 0, 0 }, { t.slope, t.low, t.high, t.confidence, t.fall, t.new_high })
  end)

  it("holds no figure that is not a number, whatever it is made of", function()
    local shapes = {
      given.history(5, function() return MIB end), given.history(5, function(s) return s == 5 and MIB or 1 end),
      given.history(8, function(s) return s % 2 end), given.history(60, function(s) return 1e15 / s end),
      given.history(6, function(s) return s == 1 and 1e12 or 0 end),
    }
    for _, values in ipairs(shapes) do
      for _, period in ipairs({ 0, 524288 }) do
        for name, figure in pairs(assert(measure(values, period))) do
          assert.is_true(figure == figure and math.abs(figure) < math.huge, name)
        end
      end
    end
  end)

  it("is not there for fewer than five profiles", function()
    assert.same({ nil, "4 profiles, at least 5 are needed" }, { measure({ 1, 2, 3, 4 }) })
    assert.same({ nil, "no heap profile yet" }, { measure({}) })
    assert.same({ nil, "0 profiles, at least 5 are needed" }, { measure({ 0, 0, 0, 0, 0, 0 }) })
  end)
end)

describe("the linear screen", function()
  it("gives each series its least squares slope per second", function()
    local slopes = trend.screen({ [0] = 0, 1000, 2000, 3000 }, { [0] = 0, 1, 2, 3, 9, 9, 9, 9, 6, 4, 2, 0 }, 4, 3, {})
    assert.same({ [0] = 1, 0, -2 }, slopes)
  end)
end)

require("spec.support")
local stats = require("lupe.stats")

local function near(expected, got, error) assert.is_true(math.abs(expected - got) <= (error or 1e-9), tostring(got)) end

local function counted(n)
  local list = {}
  for i = 1, n do list[i] = i end
  return list
end

-- A fixed, unordered series with ties.
local function scrambled(n)
  local list, state = {}, 17
  for i = 1, n do
    state = state * 48271 % 2147483647
    list[i] = state % 23
  end
  return list
end

describe("a least squares line", function()
  it("is exact on a line", function()
    local slope, intercept, r, stderr = stats.linear({ 0, 1, 2, 3 }, { 5, 7, 9, 11 }, 1, 4)
    near(2, slope)
    near(5, intercept)
    near(1, r)
    near(0, stderr)
  end)

  it("gives the textbook's error of the slope", function()
    -- Anscombe's first quartet: slope 0.500 +- 0.118, r 0.816.
    local x = { 10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5 }
    local y = { 8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68 }
    local slope, intercept, r, stderr = stats.linear(x, y, 1, 11)
    near(0.5001, slope, 1e-4)
    near(3.0001, intercept, 1e-4)
    near(0.8164, r, 1e-4)
    near(0.1179, stderr, 1e-4)
  end)

  it("is flat where nothing varies or one point is all there is", function()
    assert.same({ 0, 4, 0, 0 }, { stats.linear({ 1, 2, 3 }, { 4, 4, 4 }, 1, 3) })
    assert.same({ 0, 4, 0, 0 }, { stats.linear({ 1 }, { 4 }, 1, 1) })
    assert.same({ 0, 3, 0, 0 }, { stats.linear({ 1, 1 }, { 2, 4 }, 1, 2) })
  end)
end)

describe("selection", function()
  it("finds what sorting would put there", function()
    for n = 1, 40 do
      local sorted = scrambled(n)
      table.sort(sorted)
      for k = 1, n do assert.equal(sorted[k], stats.select(scrambled(n), 1, n, k)) end
    end
  end)

  it("looks at its range only", function()
    local list = { 100, 3, 1, 2, -5 }
    assert.equal(2, stats.select(list, 2, 4, 2))
    assert.equal(100, list[1])
    assert.equal(-5, list[5])
  end)
end)

describe("quantiles", function()
  it("lie between neighbours", function()
    near(2.5, stats.median({ 4, 1, 3, 2 }, 1, 4))
    near(1.75, stats.quantile({ 4, 1, 3, 2 }, 1, 4, 0.25))
    near(1, stats.quantile({ 4, 1, 3, 2 }, 1, 4, 0))
    near(4, stats.quantile({ 4, 1, 3, 2 }, 1, 4, 1))
    near(7, stats.quantile({ 7 }, 1, 1, 0.9))
  end)

  it("leave the series as it was", function()
    local list = { 4, 1, 3, 2 }
    stats.median(list, 1, 4)
    assert.same({ 4, 1, 3, 2 }, list)
  end)

  it("of nothing are an error", function() assert.is_nil(stats.median({}, 1, 0)) end)
end)

describe("the Theil-Sen slope", function()
  it("is the median of all pairs' slopes", function()
    -- Slopes of the pairs: 1, 2, 5/3, 3, 2, 1.
    near(1.8333333333, (stats.theil_sen({ 0, 1, 2, 3 }, { 0, 1, 4, 5 }, 1, 4)), 1e-9)
  end)

  it("does not follow a quarter of wild points", function()
    local x, y = counted(20), counted(20)
    for i = 3, 20, 4 do y[i] = 1e6 end
    near(1, (stats.theil_sen(x, y, 1, 20)))
  end)

  it("has bounds around it, wider where the noise is larger", function()
    local x, calm, wild = counted(30), {}, {}
    for i = 1, 30 do calm[i], wild[i] = i + scrambled(30)[i] / 20, i + scrambled(30)[i] * 3 end
    local slope, low, high = stats.theil_sen(x, calm, 1, 30)
    assert.is_true(low < slope and slope < high)
    local _, wild_low, wild_high = stats.theil_sen(x, wild, 1, 30)
    assert.is_true(wild_high - wild_low > 10 * (high - low))
  end)

  it("needs two distinct times", function() assert.is_nil(stats.theil_sen({ 1, 1 }, { 2, 3 }, 1, 2)) end)
end)

describe("the Mann-Kendall test", function()
  it("is sure of a series that only rises or only falls", function()
    local tau, p, s = stats.mann_kendall(counted(10), 1, 10)
    assert.same({ 1, 45 }, { tau, s })
    assert.is_true(p < 0.001)
    local falling = {}
    for i = 1, 10 do falling[i] = -i end
    assert.equal(-1, (stats.mann_kendall(falling, 1, 10)))
  end)

  it("corrects its variance for ties", function()
    -- n = 6 with groups of 2 and 3: variance (6*5*17 - 2*1*9 - 3*2*11) / 18 = 23.6667, S = 11.
    local _, p, s = stats.mann_kendall({ 1, 2, 2, 3, 3, 3 }, 1, 6)
    assert.equal(11, s)
    near(2 * (1 - stats.normal_cdf(10 / math.sqrt(426 / 18))), p, 1e-12)
  end)

  it("says nothing where all is equal or too short", function()
    assert.same({ 0, 1, 0 }, { stats.mann_kendall({ 4, 4, 4, 4 }, 1, 4) })
    assert.same({ 0, 1, 0 }, { stats.mann_kendall({ 1, 2 }, 1, 2) })
  end)
end)

describe("the normal distribution", function()
  it("has its tabled values", function()
    near(0.5, stats.normal_cdf(0), 1e-7)
    near(0.975, stats.normal_cdf(1.959964), 1e-6)
    near(0.05, stats.normal_cdf(-stats.Z90), 1e-6)
  end)
end)

describe("the best step", function()
  it("is found where it is, with nothing left over", function()
    local rest, at, height = stats.best_step({ 2, 2, 2, 9, 9 }, 1, 5)
    near(0, rest)
    assert.same({ 4, 7 }, { at, height })
  end)

  it("explains three quarters of a line", function()
    local rest = stats.best_step(counted(100), 1, 100)
    near(0.25, rest / (100 * (100 ^ 2 - 1) / 12), 0.001)
  end)
end)

describe("correlation's widening", function()
  it("is none for what alternates, and threefold for what wanders", function()
    local x, alternating, wandering = counted(60), {}, {}
    for i = 1, 60 do
      alternating[i] = i + i % 2
      wandering[i] = i + 5 * math.sin(i / 5)
    end
    assert.equal(1, stats.correlation_widening(x, alternating, 1, 60))
    local widened = stats.correlation_widening(x, wandering, 1, 60)
    assert.is_true(widened > 3 and widened < 4.5, widened)
    assert.equal(1, stats.correlation_widening(x, x, 1, 60))
  end)
end)

local given = require("spec.rules.support")

local MIB = given.MIB

local function leak(t) return 0.5 * MIB * t end

local function judge(history, more)
  local site = { name = "site", history = history, stack = { "site", "caller", "main" } }
  for name, value in pairs(more or {}) do site[name] = value end
  local answer = given.run("steady_growth", given.program({ site }))
  return given.about(answer, "site"), answer
end

describe("the rule leak.steady-growth", function()
  it("names a function that leaks half a MiB per second, after 20 seconds", function()
    local found = judge(given.sampled(20, leak))
    assert.equal("leak", found.verdict)
    assert.is_true(found.confidence > 0.6, found.confidence)
    local slope = found.evidence.slope_mib_per_hour -- it is 1800
    assert.is_true(slope > 900 and slope < 3600, slope)
    assert.is_true(found.evidence.low_mib_per_hour < slope and found.evidence.high_mib_per_hour > slope)
    assert.same({ "site", "caller", "main" }, found.site.stack)
    assert.is_truthy(found.summary:find("site grows", 1, true))
  end)

  it("says of a tag who allocates most under it", function()
    local found = judge(given.sampled(20, leak), { module = "[tag]", stack = { "site", "app!load_page", "app!main" } })
    assert.same({ "Find who should free what load_page (most of the program's tag site) allocates" }, found.advice)
  end)

  it("accuses that leak in 19 of 20 runs, whatever was sampled", function()
    local counts = given.verdicts("steady_growth", function(seed) return given.sampled(20, leak, seed) end)
    assert.is_true(counts.accused >= 190, counts.accused)
    assert.is_true((counts.leak or 0) >= 170, counts.leak)
  end)

  it("finds a slow leak beside a hundred MiB that stay, once it has seen enough", function()
    local found = judge(given.sampled(60, function(t) return (100 + 0.1 * t) * MIB end, 3))
    assert.equal("leak", found.verdict)
  end)

  it("finds a leak behind a warm-up", function()
    local found = judge(given.sampled(60, function(t) return math.min(t, 5) * 4 * MIB + leak(t) end))
    assert.equal("leak", found.verdict)
  end)

  it("stays quiet while a program warms up and then stands", function()
    assert.is_nil(judge(given.sampled(20, function(t) return math.min(t, 4) * 8 * MIB end)))
  end)

  it("does not accuse a cache that fills in the first 10 of 20 seconds", function()
    local counts = given.verdicts("steady_growth", function(seed)
      return given.sampled(20, function(t) return math.min(t, 10) * MIB end, seed)
    end)
    assert.equal(0, counts.accused)
  end)

  it("does not call a leak what grew for 50 of 60 seconds and has stood still since", function()
    local counts = given.verdicts("steady_growth", function(seed)
      return given.sampled(60, function(t) return math.min(t, 50) * MIB end, seed)
    end)
    assert.is_true((counts.leak or 0) <= 4, counts.leak)
  end)

  it("does not accuse a small cache that throws out as much as it takes in", function()
    local accused = 0
    for seed = 1, 100 do
      local filling = given.sampled(10, function(t) return 0.8 * MIB * t end, seed)
      for _, level in ipairs(given.churning(10, function() return 8 * MIB end, seed)) do
        filling[#filling + 1] = level
      end
      local found = judge(filling, { alloc_space = 2.5 * 8 * MIB, inuse_space = 8 * MIB })
      if found and found.severity ~= "info" then accused = accused + 1 end
    end
    assert.is_true(accused <= 2, accused)
  end)

  it("tells a saturating cache apart by its deceleration", function()
    local history = given.sampled(20, function(t) return 40 * MIB * (1 - math.exp(-t / 7)) end)
    local found = judge(history)
    assert.is_true(found.verdict == "saturating" or found.verdict == "bounded", found.verdict)
    assert.equal("info", found.severity)
    local counts = given.verdicts("steady_growth", function(seed)
      return given.sampled(40, function(t) return 40 * MIB * (1 - math.exp(-t / 12)) end, seed)
    end)
    assert.is_true(counts.accused <= 6, counts.accused)
  end)

  it("does not accuse a pool that grows in one step, whenever that is", function()
    for _, at in ipairs({ 3, 8, 12, 15, 18, 20 }) do
      local found = judge(given.history(20, function(t) return (t >= at and 32 or 2) * MIB end))
      assert.is_true(not found or found.verdict == "bounded", ("step at %d s"):format(at))
    end
  end)

  it("does not accuse a sawtooth", function()
    local counts = given.verdicts("steady_growth", function(seed)
      return given.sampled(40, function(t) return (t % 7) * 3 * MIB end, seed)
    end)
    assert.equal(0, counts.accused)
  end)

  it("is not misled by the error of sampling alone", function()
    for _, ticks in ipairs({ 12, 20, 60 }) do
      local counts = given.verdicts("steady_growth", function(seed)
        return given.churning(ticks, function() return 10 * MIB end, seed)
      end)
      assert.equal(0, counts.accused)
    end
  end)

  it("says nothing of what shrinks", function()
    assert.is_nil(judge(given.sampled(20, function(t) return (60 - t) * MIB end)))
  end)

  it("says nothing of growth below the limit", function()
    local history = given.history(60, function(t) return (10 + t / 3600) * MIB end) -- 1 MiB/h
    assert.is_nil(judge(history))
  end)

  it("does not accuse in 20 seconds who frees most of what it allocates", function()
    local history = given.sampled(20, leak)
    local kept, freed = judge(history), judge(history, { alloc_space = 3 * history[20] })
    assert.equal("leak", kept.verdict)
    assert.same({ "info", "info" }, { freed.verdict, freed.severity })
    assert.is_true(freed.confidence < kept.confidence)
  end)

  it("accuses even who frees nearly all, when it has gone on for two minutes", function()
    local history = given.sampled(60, function(t) return leak(2 * t) end)
    local site = { name = "site", history = history, alloc_space = 100 * history[60] }
    local answer = given.run("steady_growth", given.program({ site }, { interval_ms = 2000 }))
    assert.equal("leak", given.about(answer, "site").verdict)
  end)

  it("does not call a leak what is one array, made longer and longer", function()
    local size = function(t) return (1 + 0.5 * t) * MIB end
    local found = judge(given.history(30, size), { objects = given.history(30, function() return 1 end) })
    assert.equal("growing", found.verdict)
    assert.is_truthy(found.reasons[1]:find("not their number", 1, true))
    local many = judge(given.history(30, size), { objects = given.history(30, function(t) return 1 + t / 2 end) })
    assert.equal("leak", many.verdict)
  end)

  it("says first what makes it unsure, also where only time is missing", function()
    local seen = 0
    for seed = 1, 20 do
      local found = judge(given.sampled(14, leak, seed))
      if found and found.verdict == "growing" then
        seen = seen + 1
        assert.is_truthy(found.reasons[1]:find("^that it goes on is only %d+ %% sure$"), found.reasons[1])
      end
    end
    assert.is_true(seen > 0)
  end)

  it("accuses one reply in twenty that is never freed, by what the others leave behind", function()
    local live = given.churning(60, function() return 6 * MIB end)
    local lost = given.sampled(60, function(t) return 0.4 * t * MIB end, 2)
    local history = given.history(60, function(t) return live[t] + lost[t] end)
    local found = judge(history, { alloc_history = given.history(60, function(t) return 8 * t * MIB end),
      alloc_space = 480 * MIB })
    assert.equal("leak", found.verdict)
  end)

  it("accuses a cache that stood still for the last third in one of twenty runs at most", function()
    local counts = given.verdicts("steady_growth", function(seed)
      return given.sampled(40, function(t) return math.min(t, 27) * MIB end, seed)
    end)
    assert.is_true(counts.accused <= 10, counts.accused)
  end)

  it("knows a limit by what is kept: all at first, hardly any now", function()
    local history = given.sampled(60, function(t) return math.min(t, 46) * MIB end)
    local found = judge(history, { alloc_history = given.history(60, function(t) return t * MIB end) })
    assert.is_true(found.verdict == "saturating" or found.verdict == "bounded", found.verdict)
  end)

  it("does not accuse who holds more because it is asked for more", function()
    local load = function(t) return t <= 20 and 4 or t <= 40 and 6 or 9 end
    local allocated, sum = {}, 0
    for t = 1, 60 do
      sum = sum + load(t) * MIB
      allocated[t] = sum
    end
    for seed = 1, 20 do
      local history = given.churning(60, function(t) return load(t) * 4 * MIB end, seed)
      local found = judge(history, { alloc_history = allocated, alloc_space = sum })
      assert.is_true(not found or found.severity == "info", found and found.summary)
    end
  end)

  it("accuses what rises under a sawtooth, and not the sawtooth", function()
    local saw = given.sampled(60, function(t) return (t % 6) * 2 * MIB end)
    local lost = given.sampled(60, function(t) return 0.3 * t * MIB end, 5)
    local found = judge(given.history(60, function(t) return saw[t] + lost[t] end),
      { alloc_space = 140 * MIB, alloc_history = given.history(60, function(t) return 2.3 * t * MIB end) })
    assert.equal("leak", found.verdict)
    assert.is_nil(judge(saw))
  end)

  it("finds a leak that begins in the middle of the run, at a busy site", function()
    local history = given.history(60, function(t) return (2 + 0.3 * (t % 3) + 0.4 * math.max(0, t - 22)) * MIB end)
    local found = judge(history, { alloc_history = given.history(60, function(t) return t * 0.5 * MIB end),
      alloc_space = 30 * MIB })
    assert.equal("leak", found.verdict)
  end)

  it("asks for more history where there is too little", function()
    local found, answer = judge(given.sampled(5, leak))
    assert.is_nil(found)
    assert.equal("insufficient_data", answer.status)
    assert.equal(10, answer.needed_seconds)
  end)

  it("asks for eight profiles, however far apart they are", function()
    local sites = { { name = "site", history = given.sampled(6, leak) } }
    local answer = given.run("steady_growth", given.program(sites, { interval_ms = 8000 }))
    assert.equal("insufficient_data", answer.status)
    assert.equal(56, answer.needed_seconds)
  end)

  it("is satisfied with enough history in which nothing leaks", function()
    local _, answer = judge(given.history(20, function() return 5 * MIB end))
    assert.equal("ok", answer.status)
    assert.same({}, answer.findings)
  end)

  it("rates by size or pace, by parameters of its own", function()
    local site = { name = "site", history = given.sampled(20, leak) }
    local function severity(params)
      return given.run("steady_growth", given.program({ site }), params).findings[1].severity
    end
    assert.equal("critical", severity())
    assert.equal("high", severity({ critical_growth = 1e6 }))
    assert.equal("low", severity({ critical_growth = 1e6, high_growth = 1e6, medium_growth = 1e6, medium_size = 20 }))
  end)

  it("names the leak among the other sites of a program, and nothing else", function()
    local answer = given.run("steady_growth", given.program({
      { name = "leak", history = given.sampled(20, leak, 5) },
      { name = "cache", history = given.sampled(20, function(t) return math.min(t, 10) * 0.8 * MIB end, 6) },
      { name = "pool", history = given.history(20, function(t) return (t >= 9 and 16 or 0) * MIB end) },
      { name = "requests", history = given.churning(20, function() return 4 * MIB end, 7) },
    }))
    local accused = {}
    for _, finding in ipairs(answer.findings) do
      if finding.severity ~= "info" then accused[#accused + 1] = finding.site.name end
    end
    assert.same({ "leak" }, accused)
  end)
end)

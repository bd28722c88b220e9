local given = require("spec.rules.support")

local MIB = given.MIB

local function only(answer)
  assert.equal(1, #answer.findings)
  return answer.findings[1]
end

describe("the rule pattern.exponential-growth", function()
  it("sees live bytes that double every five seconds", function()
    local history = given.history(30, function(t) return MIB * 2 ^ (t / 5) end)
    local found = only(given.run("exponential_growth", given.program({ { name = "retries", history = history } })))
    assert.is_truthy(found.summary:find("retries: Exponential allocation growth detected", 1, true))
    assert.is_true(math.abs(found.evidence.doubling_seconds - 5) < 0.1)
  end)

  it("stays quiet about growth along a line, in a step, and towards a limit", function()
    local answer = given.run("exponential_growth", given.program({
      { name = "line", history = given.history(30, function(t) return t * MIB end) },
      { name = "step", history = given.history(30, function(t) return (t > 25 and 64 or 1) * MIB end) },
      { name = "cache", history = given.history(30, function(t) return 64 * MIB * (1 - math.exp(-t / 8)) end) },
    }))
    assert.same({}, answer.findings)
  end)
end)

describe("the rule pattern.many-small-objects", function()
  local function program(size)
    return given.program({
      {
        name = "nodes", history = given.sampled(30, function(t) return t * MIB end),
        objects = given.history(30, function(t) return t * MIB / size end),
      },
    })
  end

  it("counts what was added, and how large it is", function()
    local found = only(given.run("small_objects", program(48)))
    assert.is_truthy(found.summary:find("nodes: many small allocations pile up", 1, true))
    assert.is_true(found.evidence.mean_bytes < 100)
    assert.is_true(found.evidence.added_objects > 500000)
  end)

  it("does not take a full cache for one, whatever was sampled", function()
    local sites = {}
    for seed = 1, 100 do
      local history = given.sampled(8, function(t) return 1.25 * MIB * t end, seed)
      local full = given.churning(32, function() return 10 * MIB end, seed)
      for _, bytes in ipairs(full) do history[#history + 1] = bytes end
      local objects = {}
      for i, bytes in ipairs(history) do objects[i] = bytes / 32 end
      sites[seed] = { name = "cache" .. seed, history = history, objects = objects }
    end
    local answer = given.run("small_objects", given.program(sites), { most_sites = 100 })
    assert.is_true(#answer.findings <= 1, #answer.findings)
  end)

  it("does not mind large ones", function()
    assert.same({}, given.run("small_objects", program(100000)).findings)
  end)
end)

describe("the rule pattern.large-allocations", function()
  local function program(objects)
    local history = given.history(20, function(t) return 4 * MIB * math.ceil(t / 2) end)
    return given.program({ { name = "buffers", history = history, inuse_objects = objects } })
  end

  it("sees few large blocks that become more", function()
    local found = only(given.run("large_allocations", program(10)))
    assert.is_truthy(found.summary:find("buffers: grows by large allocations (4.00 MiB each", 1, true))
  end)

  it("does not mind what grew and then stood still", function()
    local history = given.history(30, function(t) return 4 * MIB * math.min(t, 15) end)
    local site = { name = "buffers", history = history, inuse_objects = 15 }
    assert.same({}, given.run("large_allocations", given.program({ site })).findings)
  end)

  it("does not mind the same bytes in small ones", function()
    assert.same({}, given.run("large_allocations", program(100000)).findings)
  end)
end)

describe("the rule pattern.sudden-step", function()
  it("tells when, and how high", function()
    local history = given.history(30, function(t) return (t >= 12 and 48 or 4) * MIB end)
    local found = only(given.run("sudden_step", given.program({ { name = "pool", history = history } })))
    assert.equal("pool: sudden step of 44.0 MiB, 12 s after the start", found.summary)
    assert.equal("bounded", found.verdict)
  end)

  it("knows a site that came late and stood still from then on, but not one that was there from the start", function()
    local function run(at)
      local history = given.history(30, function(t) return t >= at and 48 * MIB or 0 end)
      return given.run("sudden_step", given.program({ { name = "load", history = history } }))
    end
    assert.equal("load: sudden step of 48.0 MiB, 12 s after the start", only(run(12)).summary)
    for _, at in ipairs({ 1, 2, 28 }) do assert.same({}, run(at).findings) end
  end)

  it("does not take a site that comes late and goes on growing for one", function()
    local history = given.history(30, function(t) return math.max(0, t - 11) * 4 * MIB end)
    assert.same({}, given.run("sudden_step", given.program({ { name = "leak", history = history } })).findings)
  end)

  it("does not take steady growth or a small step for one", function()
    local answer = given.run("sudden_step", given.program({
      { name = "leak", history = given.history(30, function(t) return 2 * t * MIB end) },
      { name = "small", history = given.history(30, function(t) return (t >= 12 and 20 or 18) * MIB end) },
    }))
    assert.same({}, answer.findings)
  end)
end)

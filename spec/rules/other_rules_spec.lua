local given = require("spec.rules.support")

local MIB = given.MIB

local function summaries(answer)
  local list = {}
  for i, finding in ipairs(answer.findings) do list[i] = finding.summary end
  return list
end

describe("the rule bottleneck.allocation-churn", function()
  local function run(alloc_space)
    local history = given.history(20, function() return MIB end)
    return given.run("allocation_churn", given.program({
      { name = "format_reply", history = history, alloc_space = alloc_space },
    }))
  end

  it("names who allocates much and keeps nothing", function()
    assert.same({ "format_reply allocates 100 MiB/s and keeps 0.1 % of it" }, summaries(run(2000 * MIB)))
  end)

  it("does not mind 10 MiB/s", function() assert.same({}, run(200 * MIB).findings) end)

  it("does not mind who keeps what it allocates", function()
    local site = { name = "load", history = given.history(20, function(t) return 100 * t * MIB end) }
    assert.same({}, given.run("allocation_churn", given.program({ site })).findings)
  end)
end)

describe("the rule alert.fragmentation", function()
  local function run(allocated, active, resident)
    return given.run("fragmentation", {
      memory = {
        {
          time_ms = 1000, rss_bytes = resident * MIB, allocated_bytes = allocated * MIB, active_bytes = active * MIB,
          resident_bytes = resident * MIB,
        },
      },
    })
  end

  it("tells how much of the pages in use is empty", function()
    assert.same({ "Fragmentation: 40 % of the pages in use is empty (40.0 MiB)" }, summaries(run(60, 100, 110)))
  end)

  it("tells of free pages that are kept", function()
    assert.same({ "Unused pages: 100 MiB of resident memory are free, and not given back yet" },
      summaries(run(95, 100, 200)))
  end)

  it("stays quiet about ratios of very little, and about a well packed heap", function()
    assert.same({}, run(1, 10, 12).findings)
    assert.same({}, run(90, 100, 110).findings)
  end)

  it("stays quiet where no allocator's figures are known", function()
    assert.same({}, given.run("fragmentation", { memory = { { time_ms = 0, rss_bytes = MIB } } }).findings)
  end)
end)

describe("the rule alert.memory-threshold", function()
  local function run(...)
    local rows = {}
    for i, rss in ipairs({ ... }) do rows[i] = { time_ms = i * 5000, rss_bytes = rss * MIB } end
    return given.run("memory_thresholds", { memory = rows })
  end

  it("names the figure and the limit", function()
    assert.same({ "Resident memory 660.0 MiB is above the warning limit of 650 MiB" }, summaries(run(600, 660)))
    local critical = run(600, 720).findings[1]
    assert.equal("critical", critical.severity)
    assert.equal("Resident memory 720.0 MiB is above the critical limit of 700 MiB", critical.summary)
  end)

  it("takes any limits and hysteresis that it declares", function()
    local rows = { { time_ms = 5000, rss_bytes = 660 * MIB }, { time_ms = 10000, rss_bytes = 600 * MIB } }
    local function told(params) return summaries(given.run("memory_thresholds", { memory = rows }, params))[1] end
    assert.equal("Resident memory 600.0 MiB was above, and is less than 12.5 % below, the warning limit of 650 MiB",
      told({ hysteresis = 0.125 }))
    assert.equal("Resident memory 600.0 MiB is above the critical limit of 0 MiB", told({ critical = 0 }))
  end)

  it("holds until memory is 5 % below the limit", function()
    assert.same({ "Resident memory 640.0 MiB was above, and is less than 5 % below, the warning limit of 650 MiB" },
      summaries(run(660, 640)))
    assert.same({}, run(660, 617).findings)
    assert.equal("critical", run(720, 680).findings[1].severity)
    assert.equal("medium", run(720, 660).findings[1].severity)
  end)

  it("does not warn of what never passed the limit", function() assert.same({}, run(640, 650).findings) end)

  it("says nothing before the first reading", function() assert.same({}, run().findings) end)
end)

describe("recommendations", function()
  local site = { name = "parse", module = "app", inuse_space = 52 * MIB, survival = 1, stack = { "parse", "serve" } }

  local function recommend(file, findings, more)
    local described = { findings = findings }
    for name, value in pairs(more or {}) do described[name] = value end
    return summaries(given.run(file, described))
  end

  it("name a leaking site, its figures and the change to make", function()
    local leak = { rule = "leak.steady-growth", kind = "leak", verdict = "leak", score = 12.5, site = site }
    assert.same({
      "Investigate parse for potential memory leak: 52.0 MiB live, 12.5 MiB/h more. Nothing of it is freed: free "
        .. "it, or give what keeps it a size limit and eviction. Begin at its caller, serve.",
    }, recommend("recommend_leaks", { leak }))
  end)

  it("call a tag a tag, and name who allocates most under it", function()
    local acme = { name = "acme", module = "[tag]", inuse_space = 52 * MIB, survival = 1, stack = { "acme", "parse" } }
    local leak = { rule = "leak.steady-growth", kind = "leak", verdict = "leak", score = 12.5, site = acme }
    local said = recommend("recommend_leaks", { leak })[1]
    assert.is_truthy(said:find("Investigate the tag acme for", 1, true), said)
    assert.is_truthy(said:find("Begin at parse, which allocates most under it.", 1, true), said)
  end)

  it("follow any rule of kind leak, users' own included, and leave the harmless alone", function()
    local mine = { rule = "leak.mine", kind = "leak", verdict = "growing", score = 1, site = site }
    local harmless = { rule = "leak.steady-growth", kind = "leak", verdict = "bounded", score = 90, site = site }
    assert.equal(1, #recommend("recommend_leaks", { harmless, mine }))
  end)

  it("begin with the steepest growth, and are few", function()
    local findings = {}
    for i = 1, 9 do
      findings[i] = {
        rule = "leak.steady-growth", kind = "leak", verdict = "leak", score = i,
        site = { name = "site" .. i, inuse_space = MIB },
      }
    end
    local list = recommend("recommend_leaks", findings)
    assert.equal(5, #list)
    assert.is_truthy(list[1]:find("site9", 1, true))
  end)

  it("propose pools for churn and crumbs, and smaller pieces for lumps", function()
    local list = recommend("recommend_allocations", {
      { rule = "bottleneck.allocation-churn", site = site, evidence = { mib_per_second = 250 } },
      { rule = "pattern.many-small-objects", site = site, evidence = { added_objects = 20000, mean_bytes = 48 } },
      { rule = "pattern.large-allocations", site = site, evidence = { mean_bytes = 4 * MIB } },
      { rule = "pattern.exponential-growth", site = site, evidence = { doubling_seconds = 5 } },
      { rule = "pattern.of-a-user", site = site },
    })
    assert.equal(4, #list)
    assert.is_truthy(list[1]:find("250 MiB/s", 1, true))
    assert.is_truthy(list[3]:find("Large allocations detected in parse: 4.00 MiB each", 1, true))
  end)

  it("say who holds most where memory is above its limit", function()
    local list = recommend("recommend_memory", {
      { rule = "alert.memory-threshold", evidence = { rss_mib = 720, limit_mib = 700 } },
    }, { sites = { { name = "small", history = { 1 } }, { name = "large", history = { 500 * MIB } } } })
    assert.same({
      "Bring resident memory (720.0 MiB) below 700 MiB, or raise the limit; most of the heap is held by large "
        .. "(500 MiB)",
    }, list)
  end)

  it("say nothing where nothing was found", function()
    for _, file in ipairs({ "recommend_leaks", "recommend_allocations", "recommend_memory" }) do
      assert.same({}, recommend(file, {}))
    end
  end)
end)

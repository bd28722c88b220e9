local given = require("spec.rules.support")
local support = require("spec.support")

local MIB = given.MIB
local SECOND = 1000

--- A reading every 5 s for `seconds`; `fields(t)` in MiB (rss, allocated, active, resident, cached), threads, faults.
local function memory(seconds, fields)
  local rows = {}
  for t = 0, seconds, 5 do
    local f = fields(t)
    rows[#rows + 1] = {
      time_ms = t * SECOND, rss_bytes = (f.rss or f.resident or 0) * MIB, threads = f.threads or 4,
      allocated_bytes = f.allocated and f.allocated * MIB, active_bytes = (f.active or 0) * MIB,
      resident_bytes = (f.resident or 0) * MIB, metadata_bytes = 0, cached_bytes = (f.cached or 0) * MIB,
      minor_faults = f.faults or 0,
    }
  end
  return rows
end

local function summaries(answer)
  local list = {}
  for i, finding in ipairs(answer.findings) do list[i] = finding.summary end
  return list
end

describe("the rule alert.cgroup-limit", function()
  local function run(used, growth, reclaimable)
    return given.run("cgroup_limit", {
      memory = memory(120, function(t) return { rss = 100 + growth * t } end),
      cgroup = { limit_bytes = 1000 * MIB, used_bytes = used * MIB, reclaimable_bytes = (reclaimable or 0) * MIB },
    }).findings[1]
  end

  it("is high from 85 % of the limit, and critical from 95 %", function()
    assert.is_nil(run(840, 0))
    assert.equal("high", run(851, 0).severity)
    local critical = run(960, 0)
    assert.same({ "critical", "The control group uses 960 MiB of its limit of 0.98 GiB (96 %)" },
      { critical.severity, critical.summary })
  end)

  it("tells how long it will last at the present growth, and warns of little time", function()
    local soon = run(600, 2)
    assert.equal("high", soon.severity)
    assert.equal("The control group uses 600 MiB of its limit of 0.98 GiB (60 %); at the present growth of 2.00 MiB/s "
      .. "it is full in 3 min 20 s", soon.summary)
    assert.near(200, soon.evidence.seconds_left, 0.1)
    assert.is_nil(run(600, 0.1))
    assert.is_nil(run(400, 2))
  end)

  it("leaves out what the kernel takes back by itself", function() assert.is_nil(run(990, 0, 500)) end)

  it("says nothing where there is no limit", function()
    assert.same({}, given.run("cgroup_limit", { memory = memory(10, function() return { rss = 1 } end) }).findings)
    assert.same({}, given.run("cgroup_limit", {
      memory = memory(10, function() return { rss = 1 } end), cgroup = { used_bytes = 5 },
    }).findings)
  end)
end)

describe("the rule recommendation.allocator", function()
  local SETTINGS = {
    dirty_decay_ms = 10000, background_thread = false, thread_cache = true, arena_count = 9, dirty_bytes = 0,
    muzzy_bytes = 0,
  }

  local function recommend(fields, settings, seconds, params)
    local allocator = {}
    for name, value in pairs(SETTINGS) do allocator[name] = value end
    for name, value in pairs(settings or {}) do allocator[name] = value end
    return given.run("recommend_allocator", {
      memory = memory(seconds or 300, type(fields) == "function" and fields or function() return fields end),
      allocator = allocator, cores = 2, targets = { { pid = 1 } },
    }, params)
  end

  local HELD = { allocated = 95, active = 100, resident = 200 }

  it("speaks for a background thread where pages stay free for minutes", function()
    assert.same({
      "Let jemalloc give unused pages back: 100 MiB (50 % of what it holds) were free for 120 s; threads that allocate "
        .. "no more give nothing back, and no background thread does it for them: "
        .. "MALLOC_CONF=background_thread:true,dirty_decay_ms:10000",
    }, summaries(recommend(HELD)))
  end)

  it("speaks for a decay time where that is off or long", function()
    assert.truthy(summaries(recommend(HELD, { dirty_decay_ms = -1 }))[1]
      :find("MALLOC_CONF=dirty_decay_ms:10000", 1, true))
    assert.truthy(summaries(recommend(HELD, { background_thread = true }))[1]
      :find("kept for 10000 ms after the last use: MALLOC_CONF=dirty_decay_ms:1000", 1, true))
    assert.same({}, recommend(HELD, { background_thread = true, dirty_decay_ms = 1000 }).findings)
  end)

  it("does not mind pages that were freed a moment ago, nor a run that is too young to tell", function()
    local function once_full(t) return { allocated = 95, active = t == 250 and 190 or 100, resident = 200 } end
    assert.same({}, recommend(once_full).findings)
    assert.same({}, recommend(HELD, nil, 60).findings)
    assert.same({}, recommend({ allocated = 9, active = 10, resident = 20 }).findings)
  end)

  it("speaks for fewer arenas where many of them have part-empty pages", function()
    local scattered = { allocated = 100, active = 160, resident = 165, threads = 30 }
    assert.same({
      "Have fewer arenas: threads are spread over some 9 on 2 cores, and 60.0 MiB in their pages are empty (38 %): "
        .. "MALLOC_CONF=narenas:2",
    }, summaries(recommend(scattered)))
    scattered.threads = 3
    assert.same({}, recommend(scattered).findings)
  end)

  it("speaks for smaller thread caches where they hold much of the heap", function()
    local cached = { allocated = 200, active = 205, resident = 210, cached = 40, threads = 64 }
    assert.same({
      "Have threads keep less: 64 threads keep 40.0 MiB of freed objects (20 % of the heap): "
        .. "MALLOC_CONF=tcache_max:4096",
    }, summaries(recommend(cached)))
    assert.same({}, recommend(cached, { thread_cache = false }).findings)
  end)

  it("speaks for huge pages in a large heap with many faults, or for keeping pages that are wanted again", function()
    local function faulting(active)
      return function(t) return { allocated = active, active = active, resident = active, faults = 8000 * t } end
    end
    local advice = summaries(recommend(faulting(2048)))[1]
    assert.truthy(advice:find("^Use huge pages: 8000 page faults a second in a heap of 2.00 GiB; "), advice)
    assert.truthy(advice:find("MALLOC_CONF=thp:always,metadata_thp:auto", 1, true), advice)
    assert.same({}, recommend(faulting(100)).findings)
    assert.truthy(summaries(recommend(faulting(100), { dirty_decay_ms = 0 }))[1]
      :find("MALLOC_CONF=dirty_decay_ms:10000", 1, true))
  end)

  it("advises what its params say", function()
    local kept = summaries(recommend(HELD, { background_thread = true }, 300, { short_decay_ms = 500 }))[1]
    assert.truthy(kept:find("MALLOC_CONF=dirty_decay_ms:500", 1, true))
    assert.same({}, recommend(HELD, { background_thread = true }, 300, { short_decay_ms = 10000 }).findings)
    local for_good = summaries(recommend(HELD, { dirty_decay_ms = -1 }, 300, { long_decay_ms = 5000 }))[1]
    assert.truthy(for_good:find("MALLOC_CONF=dirty_decay_ms:5000", 1, true))
    local scattered = { allocated = 100, active = 160, resident = 165, threads = 30 }
    assert.same({}, recommend(scattered, nil, 300, { arenas_per_core = 5 }).findings)
    local cached = { allocated = 200, active = 205, resident = 210, cached = 40, threads = 64 }
    assert.truthy(summaries(recommend(cached, nil, 300, { tcache_max = 1024 }))[1]
      :find("MALLOC_CONF=tcache_max:1024", 1, true))
  end)

  it("says nothing where no allocator is known", function()
    assert.same({}, given.run("recommend_allocator", { memory = { { time_ms = 0, rss_bytes = MIB } } }).findings)
  end)

  it("gives texts that jemalloc takes", function()
    finally(support.cleanup)
    local source, seen = support.read_file(support.root .. "/rules/recommend_allocator.lua"), 0
    local function accepted(conf)
      return support.run({ "/bin/true" }, {
        env = { LD_PRELOAD = "libjemalloc.so.2", MALLOC_CONF = "abort_conf:true," .. conf },
      })
    end
    assert.not_equal(0, accepted("no_such_option:1").code)
    for conf in source:gmatch("[%w_]+:[%w_:,%%]+") do
      if conf:match("decay") or conf:match("arenas") or conf:match("tcache") or conf:match("thp") then
        local done = accepted((conf:gsub("%%d", "2"):gsub(":$", ":10000")))
        assert.equal(0, done.code, conf .. ": " .. done.err)
        seen = seen + 1
      end
    end
    assert.is_true(seen >= 5, seen .. " texts")
  end)
end)

describe("the rule action.memory", function()
  local function act(findings, settings, params)
    local answer = given.run("act_on_memory", {
      findings = findings, allocator = settings,
      memory = memory(5, function() return { allocated = 90, active = 95, resident = 150 } end),
    }, params)
    local names = {}
    for i, finding in ipairs(answer.findings) do names[i] = finding.action.name end
    return names, answer.findings
  end
  local WARNING = { rule = "alert.memory-threshold", severity = "medium", summary = "Resident memory 660 MiB is above" }
  local CRITICAL = { rule = "alert.cgroup-limit", severity = "critical", summary = "The control group uses 96 %" }
  local FULL = { dirty_bytes = 30 * MIB, muzzy_bytes = 0, dirty_decay_ms = 10000 }

  it("keeps a snapshot at the first limit, once an hour", function()
    local names, findings = act({ WARNING }, FULL)
    assert.same({ "snapshot" }, names)
    assert.same({ name = "snapshot", reason = WARNING.summary, cooldown_secs = 3600 }, findings[1].action)
  end)

  it("gives memory back where it is critical, and has jemalloc keep less from then on", function()
    local names, findings = act({ WARNING, CRITICAL }, FULL)
    assert.same({ "snapshot", "purge", "decay" }, names)
    assert.equal("give 30.0 MiB of unused pages back: The control group uses 96 %", findings[2].summary)
    assert.same({ name = "decay", dirty_ms = 1000 }, findings[3].action)
  end)

  it("does nothing that would not help", function()
    assert.same({ "snapshot" }, act({ CRITICAL }, { dirty_bytes = MIB, muzzy_bytes = 0, dirty_decay_ms = 500 }))
    assert.same({ "snapshot" }, act({ CRITICAL }, nil))
    assert.same({}, act({ WARNING }, FULL, { snapshot = false }))
    assert.same({}, act({ { rule = "alert.of-a-user", severity = "critical", summary = "x" } }, FULL))
  end)
end)

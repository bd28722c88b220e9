require("spec.support")
local fake = require("spec.fake_host")

local PROMISED = {
  "timestamp", "rss_mb", "heap_mb", "virtual_mb", "resident_mb", "shared_mb", "growth_rate_mb_per_sec",
  "threshold_status", "warnings",
}
local MIB = 2 ^ 20

local function get(given, target)
  return fake.request(fake.server(given), "GET", target or "/api/profiling/memory")
end

local function rows(slope_mib_per_s, count, step_s)
  local list = {}
  for i = 1, count do
    local age_s = (count - i) * step_s
    list[i] = fake.figures({
      time_ms = 1728583200000 - age_s * 1000, rss_bytes = (245.25 - slope_mib_per_s * age_s) * MIB,
    })
  end
  return list
end

describe("GET /api/profiling/memory", function()
  it("has the promised fields first and in its order, then its own, target and profiler last", function()
    local names = fake.order(get().body)
    for i, name in ipairs(PROMISED) do assert.equal(name, names[i]) end
    assert.equal("target", names[#names - 1])
    assert.equal("profiler", names[#names])
  end)

  it("tells resident memory from /proc and the heap from jemalloc, in MiB", function()
    local body = get({ rows = rows(0.25, 13, 5) }).json
    assert.equal("2024-10-10T18:00:00.000Z", body.timestamp)
    assert.equal(245.25, body.rss_mb)
    assert.equal(180, body.heap_mb)
    assert.equal(512.125, body.virtual_mb)
    assert.equal(225, body.resident_mb)
    assert.equal(12.5, body.shared_mb)
    assert.equal(0.25, body.growth_rate_mb_per_sec)
    assert.equal("normal", body.threshold_status)
    assert.same({}, body.warnings)
    assert.equal(1024, body.cgroup.limit_mb)
    assert.equal(1, body.target.live_processes)
    assert.equal(18, body.profiler.rss_mb)
    assert.equal(0.25, body.profiler.heap_mb)
  end)

  it("looks at the last minute only, and says a fall as a negative growth", function()
    local list = rows(-1, 13, 5)
    table.insert(list, 1, fake.figures({ time_ms = 1728583200000 - 600000, rss_bytes = 0 }))
    assert.equal(-1, get({ rows = list }).json.growth_rate_mb_per_sec)
  end)

  it("does not guess a growth from fewer than 3 readings, and says why it is null", function()
    local answer = get({ rows = rows(1, 2, 5) })
    assert.is_nil(answer.json.growth_rate_mb_per_sec)
    assert.truthy(answer.body:find('"growth_rate_mb_per_sec":null', 1, true))
    assert.truthy(answer.json.growth_rate_reason:find("3 readings", 1, true))
  end)

  it("explains resident memory in parts that sum to it", function()
    for _, fields in ipairs({ {}, { has_allocator = false }, { resident_bytes = 400 * MIB } }) do
      local sum = 0
      for _, part in ipairs(get({ figures_now = fake.figures(fields) }).json.explain) do sum = sum + part.mb end
      assert.near(245.25, sum, 0.01)
    end
  end)

  it("warns above the limits, naming figure and limit", function()
    local body = get({ figures_now = fake.figures({ rss_bytes = 701 * MIB }) }).json
    assert.equal("critical", body.threshold_status)
    assert.same({ "rss_mb 701.0 is above the critical limit of 700 MiB" }, body.warnings)
  end)

  it("has null heap fields and the reason without jemalloc", function()
    local answer = get({
      figures_now = fake.figures({ has_allocator = false }),
      target_list = { fake.target({ allocator = "system", heap_state = "no_jemalloc" }) },
    })
    for _, field in ipairs({ "heap_mb", "resident_mb", "active_mb", "metadata_mb", "retained_mb" }) do
      assert.truthy(answer.body:find(('"%s":null'):format(field), 1, true), field)
    end
    assert.equal(245.25, answer.json.rss_mb)
    assert.equal("system", answer.json.allocator)
    assert.equal("the process does not use jemalloc", answer.json.reason)
  end)

  it("picks one process by ?target, and tells unknown from gone", function()
    local given = {
      target_list = { fake.target({ pid = 7 }), fake.target({ pid = 8, live = false }) },
    }
    local body = get(given, "/api/profiling/memory?target=7").json
    assert.equal(7, body.target.pid)
    assert.equal("redis-server", body.target.name)
    assert.equal(404, get(given, "/api/profiling/memory?target=9").status)
    assert.equal(503, get(given, "/api/profiling/memory?target=8").status)
    assert.equal(400, get(given, "/api/profiling/memory?target=me").status)
  end)

  it("answers 503 before a process connected, and where profiling is off", function()
    assert.equal(503, get({ target_list = {} }).status)
    local server = fake.server()
    server.app.config.enable_profiling = false
    local answer = fake.request(server, "GET", "/api/profiling/memory")
    assert.equal(503, answer.status)
    assert.equal("urn:lupe:problem:profiling-off", answer.json.type)
  end)
end)

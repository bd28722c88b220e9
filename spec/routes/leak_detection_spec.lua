require("spec.support")
local fake = require("spec.fake_host")

local MIB = 2 ^ 20
local PROMISED = {
  "timestamp", "analysis_duration_ms", "potential_leaks", "growth_rate_mb_per_hour", "highest_risk_component",
  "suspicious_patterns", "recommendations",
}
local LEAK = {
  "component", "allocation_count", "total_size_bytes", "average_size_bytes", "growth_rate_mb_per_hour", "severity",
  "first_seen", "last_seen",
}

local function ramp(count, from, to)
  local list = {}
  for i = 1, count do list[i] = from + (to - from) * (i - 1) / (count - 1) end
  return list
end

local function heap(count)
  return {
    started_ms = 1728583180000, interval_ms = 1000, sample_period_bytes = 16384,
    sites = {
      {
        name = "session_open", module = "/usr/bin/server", history = ramp(count, MIB, 25 * MIB), inuse_objects = 25600,
        alloc_space = 25 * MIB, stack = { "xmalloc", "session_open", "on_request", "main" },
      },
      { name = "pool_grow", module = "/usr/bin/server", history = ramp(count, 4 * MIB, 4 * MIB), inuse_objects = 1 },
    },
  }
end

local function detect(given, target)
  return fake.request(fake.server(given), "POST", "/api/profiling/leak-detection" .. (target or ""))
end

describe("POST /api/profiling/leak-detection", function()
  it("has the promised fields first and in its order, in the leaks too", function()
    local answer = detect({ heap = heap(20) })
    assert.equal(200, answer.status, answer.body)
    assert.same(PROMISED, { unpack(fake.order(answer.body), 1, #PROMISED) })
    local leak = answer.body:match('"potential_leaks":%[(%b{})')
    assert.same(LEAK, { unpack(fake.order(leak), 1, #LEAK) })
  end)

  it("names the site that leaks, and not the pool that stays", function()
    local body = detect({ heap = heap(20) }).json
    assert.equal(1, #body.potential_leaks)
    local leak = body.potential_leaks[1]
    assert.equal("session_open", leak.component)
    assert.equal("server", leak.module)
    assert.equal("leak", leak.verdict)
    assert.equal("critical", leak.severity)
    assert.equal(25600, leak.allocation_count)
    assert.equal(25 * MIB, leak.total_size_bytes)
    assert.equal(1024, leak.average_size_bytes)
    assert.near(24 / 19 * 3600, leak.growth_rate_mb_per_hour, 50)
    assert.equal("2024-10-10T17:59:41.000Z", leak.first_seen)
    assert.equal("2024-10-10T18:00:00.000Z", leak.last_seen)
    assert.same({ "session_open", "on_request", "main" }, leak.stack)
    assert.is_nil(leak.file_location)
    assert.truthy(leak.location_reason:find("file and line need debug information of server (-g", 1, true))
    assert.equal("session_open", body.highest_risk_component)
    assert.near(24 / 19 * 3600, body.growth_rate_mb_per_hour, 50)
    assert.equal("ok", body.status)
    assert.truthy(body.recommendations[1]:find("session_open", 1, true))
    assert.same({}, body.rule_errors)
  end)

  it("takes other values for params, for one answer", function()
    local server = fake.server({ heap = heap(20) })
    local path = "/api/profiling/leak-detection"
    local strict = fake.request(server, "POST", path .. "?param.leak.steady-growth.min_growth=100000").json
    assert.same({}, strict.potential_leaks)
    assert.equal(1, #fake.request(server, "POST", path).json.potential_leaks)
    local wrong = fake.request(server, "POST", path .. "?param.min_grwth=1")
    assert.equal(400, wrong.status)
    assert.equal("parameter \"param.min_grwth\": no rule that runs has a param 'min_grwth', did you mean 'min_growth'?",
      wrong.json.detail)
    wrong = fake.request(server, "POST", path .. "?param.min_growth=1&param.min_growth=2")
    assert.same({ 400, 'parameter "param.min_growth" is given more than once' }, { wrong.status, wrong.json.detail })
  end)

  it("says how long it needs where the history is too short", function()
    local answer = detect({ heap = heap(3) })
    assert.equal("insufficient_data", answer.json.status)
    assert.is_true(answer.json.needed_seconds >= 10)
    assert.truthy(answer.body:find('"potential_leaks":[]', 1, true))
    assert.truthy(answer.body:find('"highest_risk_component":null', 1, true))
    assert.truthy(answer.body:find('"growth_rate_mb_per_hour":null', 1, true))
    assert.equal("string", type(answer.json.growth_rate_reason))
  end)

  it("judges one process where asked", function()
    local body = detect({ heap = heap(20) }, "?target=100").json
    assert.equal(100, body.target.pid)
    assert.equal("session_open", body.highest_risk_component)
  end)

  it("says why the heap is not profiled", function()
    local body = detect({
      heap = { sites = {} }, target_list = { fake.target({ heap_state = "no_jemalloc", allocator = "system" }) },
    }).json
    assert.equal("unprofiled", body.status)
    assert.equal("the process does not use jemalloc", body.reason)
  end)

  it("answers 503 before the first profile, 429 after 10 in a minute", function()
    assert.equal(503, detect({}).status)
    local server = fake.server({ heap = heap(3) })
    for _ = 1, 10 do
      assert.equal(200, fake.request(server, "POST", "/api/profiling/leak-detection").status)
    end
    assert.equal(429, fake.request(server, "POST", "/api/profiling/leak-detection").status)
  end)

  it("lets other requests be answered while the worker works", function()
    local server = fake.server({ heap = heap(20), immediate = false })
    local answered
    server.handle({
      method = "POST", path = "/api/profiling/leak-detection", query = "", headers = { host = "127.0.0.1:7077" },
      peer = "127.0.0.1",
    }, function(status) answered = status end)
    assert.is_nil(answered)
    assert.equal(200, fake.request(server, "GET", "/healthz").status)
    while server.host.run_pending() > 0 do end
    assert.equal(200, answered)
  end)
end)

describe("GET /api/rules and POST /api/rules/reload", function()
  it("list the shipped rules with how they fared", function()
    local server = fake.server({ heap = heap(20) })
    fake.request(server, "POST", "/api/profiling/leak-detection")
    local body = fake.request(server, "GET", "/api/rules").json
    local leak
    for _, one in ipairs(body.rules) do
      assert.is_nil(one.error, one.error)
      leak = one.id == "leak.steady-growth" and one or leak
    end
    assert.equal("active", leak.state)
    assert.equal(1, leak.runs)
    assert.equal(1, leak.findings)
    assert.equal("leak", leak.kind)
    local answer = fake.request(server, "POST", "/api/rules/reload")
    assert.equal(200, answer.status)
    assert.is_false(answer.json.changed)
  end)
end)

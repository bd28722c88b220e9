require("spec.support")
local config = require("lupe.config")
local fake = require("spec.fake_host")

local NOW = 1728583200000

local function get(given, server)
  return fake.request(server or fake.server(given), "GET", "/api/profiling/cpu")
end

describe("GET /api/profiling/cpu", function()
  it("has the promised fields first and in its order", function()
    local answer = get()
    local names = fake.order(answer.body)
    assert.same({
      "timestamp", "cpu_usage_percent", "user_time_percent", "system_time_percent", "load_average",
    }, { unpack(names, 1, 5) })
    assert.truthy(answer.body:find('"load_average":{"one_min":0.45,"five_min":0.38,"fifteen_min":0.32}', 1, true))
  end)

  it("is user plus system exactly, 100 for one busy core", function()
    local body = get({
      figures_now = fake.figures({ user_ns = 20e9, system_ns = 5e9 }),
      rows = { fake.figures({ time_ms = NOW - 5000, user_ns = 19.091e9, system_ns = 4.735e9 }) },
    }).json
    assert.equal(18.18, body.user_time_percent)
    assert.equal(5.3, body.system_time_percent)
    assert.equal(body.user_time_percent + body.system_time_percent, body.cpu_usage_percent)
    assert.equal(5, body.window_seconds)
  end)

  it("sums the processes of the run", function()
    local body = get({
      target_list = { fake.target({ pid = 1 }), fake.target({ pid = 2 }), fake.target({ pid = 3, live = false }) },
      rows = { fake.figures({ time_ms = NOW - 10000, user_ns = 10e9, system_ns = 5e9 }) },
    }).json
    assert.equal(200, body.user_time_percent)
  end)

  it("reaches as far back as the readings are apart", function()
    local settings = config.defaults()
    settings.memory_interval_secs = 60
    local body = get({
      config = settings, figures_now = fake.figures({ user_ns = 20e9 }),
      rows = { fake.figures({ time_ms = NOW - 50000, user_ns = 10e9 }) },
    }).json
    assert.equal(20, body.user_time_percent)
    assert.equal(50, body.window_seconds)
  end)

  it("does not measure from a reading that is too near", function()
    local answer = get({ rows = { fake.figures({ time_ms = NOW - 100 }) } })
    assert.truthy(answer.body:find('"cpu_usage_percent":null', 1, true))
    assert.equal("needs two readings, and there is one", answer.json.reason)
  end)

  it("names the busiest threads, by what they did since the last request", function()
    local server = fake.server()
    local host = server.host
    for tid = 1, 12 do
      host.thread_list[tid] = { pid = 100, tid = tid, name = "t" .. tid, user_ns = tid * 1e9, system_ns = 0 }
    end
    local first = get(nil, server).json.top_threads
    assert.equal(10, #first)
    assert.equal(12, first[1].tid)
    assert.is_nil(first[1].cpu_usage_percent)
    host.clock_ms = host.clock_ms + 2000
    host.thread_list[3].user_ns = 4e9
    local second = get(nil, server).json.top_threads
    assert.equal(3, second[1].tid)
    assert.equal(50, second[1].cpu_usage_percent)
  end)

  it("tells the threads of one process, and forgets nobody else's meanwhile", function()
    local server = fake.server({ target_list = { fake.target({ pid = 100 }), fake.target({ pid = 200 }) } })
    local host = server.host
    for i, pid in ipairs({ 100, 200 }) do
      host.thread_list[i] = { pid = pid, tid = pid, name = "t", user_ns = 1e9, system_ns = 0 }
    end
    get(nil, server)
    host.clock_ms = host.clock_ms + 2000
    local one = fake.request(server, "GET", "/api/profiling/cpu?target=200").json.top_threads
    assert.equal(1, #one)
    assert.equal(200, one[1].tid)
    host.clock_ms = host.clock_ms + 2000
    host.thread_list[1].user_ns = 2e9
    local all = get(nil, server).json.top_threads
    assert.equal(100, all[1].tid)
    assert.equal(50, all[1].cpu_usage_percent)
  end)

  it("says that CPU stacks are not sampled, and why", function()
    assert.same({ state = "off", reason = "CPU sampling is off" }, get().json.stack_profile)
  end)
end)

describe("GET /api/profiling/bottlenecks", function()
  it("answers 503: CPU sampling is off", function()
    local answer = fake.request(fake.server(), "GET", "/api/profiling/bottlenecks")
    assert.equal(503, answer.status)
    assert.equal("CPU sampling is off", answer.json.title)
  end)
end)

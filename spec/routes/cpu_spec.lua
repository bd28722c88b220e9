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

  local function sampled(profile, targets)
    local given = {
      from_ms = NOW - 60000, to_ms = NOW, cpu_hz = 100, wall_hz = 20,
      threads = { { tid = 100, name = "main", pid = 100, switches = 300 } },
      samples = {
        { stack = { "work", "main" }, state = "user", count = 1000 },
        { state = "running", count = 240 },
        { stack = { "libc.so.6!read", "fetch" }, state = "waiting", syscall = 0, count = 480 },
        { stack = { "libc.so.6!pthread_mutex_lock", "take" }, state = "waiting", syscall = 202, count = 120 },
        { stack = { "libc.so.6!epoll_wait", "loop" }, state = "waiting", syscall = 232, count = 360 },
      },
    }
    for name, value in pairs(profile or {}) do given[name] = value end
    return {
      heap = { time_ms = NOW, targets = targets or { { pid = 100 } }, profile = given },
      thread_list = {
        { pid = 100, tid = 100, name = "main", user_ns = 10e9, system_ns = 0 },
        { pid = 100, tid = 101, name = "new", user_ns = 0, system_ns = 0 },
      },
    }
  end

  it("tells what its stacks were sampled with", function()
    assert.same({
      state = "on", hz = 100, wall = { state = "on", hz = 20 }, total_samples = 2200, window_seconds = 60,
      threads_untimed = 0, threads_unread = 0,
    }, get(sampled()).json.stack_profile)
  end)

  it("says why stacks are not sampled", function()
    local stacks = get(sampled({ samples = {} }, { { pid = 100, cpu_state = "foreign", wall_state = "off" } })).json
      .stack_profile
    assert.equal("foreign", stacks.state)
    assert.truthy(stacks.reason:find("SIGPROF", 1, true))
    assert.equal("off", stacks.wall.state)
    assert.truthy(stacks.wall.reason)
  end)

  it("says that it is not known yet where there is no snapshot", function()
    local stacks = get().json.stack_profile
    assert.equal("unknown", stacks.state)
    assert.equal("no heap profile was taken yet", stacks.reason)
  end)

  it("tells what the busiest threads did when they were looked at, and why that is not known of one", function()
    local threads = get(sampled()).json.top_threads
    assert.same({ 20, 40, 10, 30 }, {
      threads[1].running_percent, threads[1].io_percent, threads[1].lock_percent, threads[1].idle_percent,
    })
    assert.equal(5, threads[1].switches_per_second)
    assert.is_nil(threads[1].states_reason)
    assert.is_nil(threads[2].running_percent)
    assert.equal("nobody has looked at it yet", threads[2].states_reason)
    local off = get(sampled(nil, { { pid = 100, wall_state = "unreadable" } })).json.top_threads
    assert.is_nil(off[1].io_percent)
    assert.truthy(off[1].states_reason:find("cannot be read", 1, true))
  end)
end)

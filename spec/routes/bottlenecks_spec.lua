local support = require("spec.support")
local config = require("lupe.config")
local fake = require("spec.fake_host")

local PATH = "/api/profiling/bottlenecks"
local PROMISED = {
  "timestamp", "analysis_duration_ms", "hotspots", "cpu_bound_percent", "io_bound_percent", "memory_bound_percent",
  "recommendations",
}
local HOTSPOT = {
  "function_name", "file_location", "line_number", "cpu_time_percent", "wall_time_percent", "call_count",
  "average_duration_us", "impact_score",
}
local READ, FUTEX, EPOLL_WAIT = 0, 202, 232

--- A minute of a server: 60 s of CPU, 24 s of I/O, 6 s of locks, the rest idle.
local function busy(profile, extra)
  local given = {
    time_ms = 1728583200000, targets = { { pid = 100, name = "server" } },
    profile = {
      from_ms = 1728583140000, to_ms = 1728583200000, cpu_hz = 100, wall_hz = 20,
      threads = { { tid = 100, name = "server", pid = 100, switches = 600 }, { tid = 101, name = "io", pid = 100 } },
      samples = {
        {
          stack = {
            { name = "parse_row", module = "/usr/bin/server", file = "/src/parse.c", line = 45 }, "read_table", "main",
          },
          thread = 1, state = "user", count = 3000,
        },
        { stack = { "libc.so.6!memcpy", "copy_out", "read_table", "main" }, thread = 1, state = "user", count = 900 },
        { stack = { "hash", "read_table", "main" }, thread = 1, state = "user", count = 2100 },
        { thread = 1, state = "running", count = 1200 },
        { stack = { "libc.so.6!read", "fetch", "worker" }, thread = 2, state = "waiting", syscall = READ, count = 480 },
        {
          stack = { "libc.so.6!pthread_mutex_lock", "take", "worker" }, thread = 2, state = "waiting",
          syscall = FUTEX, futex = 128, count = 120,
        },
        {
          stack = { "libc.so.6!epoll_wait", "loop" }, thread = 2, state = "waiting", syscall = EPOLL_WAIT, count = 600,
        },
      },
    },
  }
  for name, value in pairs(profile or {}) do given.profile[name] = value end
  for name, value in pairs(extra or {}) do given[name] = value end
  return given
end

local function get(heap, query, given)
  given = given or {}
  given.heap = heap
  return fake.request(fake.server(given), "GET", PATH .. (query or ""))
end

describe("GET " .. PATH, function()
  it("has the promised fields first and in its order, in the hotspots too", function()
    local answer = get(busy())
    assert.equal(200, answer.status, answer.body)
    assert.same(PROMISED, { unpack(fake.order(answer.body), 1, #PROMISED) })
    local hotspot = answer.body:match('"hotspots":%[(%b{})')
    assert.same(HOTSPOT, { unpack(fake.order(hotspot), 1, #HOTSPOT) })
  end)

  it("names the hottest function with its line, its shares and its impact", function()
    local hotspot = get(busy()).json.hotspots[1]
    assert.equal("parse_row", hotspot.function_name)
    assert.equal("server", hotspot.module)
    assert.equal("/src/parse.c", hotspot.file_location)
    assert.equal(45, hotspot.line_number)
    assert.equal(50, hotspot.cpu_time_percent)
    assert.near(100 * 30 / 90, hotspot.wall_time_percent, 0.01)
    assert.equal(50, hotspot.cum_cpu_percent)
    assert.same({ "parse_row", "read_table", "main" }, hotspot.stack)
    assert.same({ 3000, 1 }, { hotspot.samples, hotspot.threads })
    assert.is_true(hotspot.impact_score > 0.8 and hotspot.impact_score <= 1)
  end)

  it("invents no number of calls", function()
    local answer = get(busy())
    assert.truthy(answer.body:find('"call_count":null,"average_duration_us":null', 1, true))
    local hotspot = answer.json.hotspots[1]
    assert.equal("unknown", hotspot.call_count_source)
    assert.truthy(hotspot.call_count_reason:find("not how often it was called", 1, true))
  end)

  it("counts the calls of a function that begins spans of one name", function()
    local function hotspot(spans)
      return get(busy(nil, { spans = spans })).json.hotspots[1]
    end
    local one = hotspot({
      { name = "row", durations_ms = { 1, 2, 6 }, begun_in = "/usr/bin/server!parse_row" },
      { name = "other", durations_ms = { 9 }, begun_in = "hash" },
    })
    assert.same({ "parse_row", 3, 3000, "span", "row" },
      { one.function_name, one.call_count, one.average_duration_us, one.call_count_source, one.span })
    assert.is_nil(one.call_count_reason)
    local two = hotspot({
      { name = "row", durations_ms = { 1 }, begun_in = "/usr/bin/server!parse_row" },
      { name = "cell", durations_ms = { 1 }, begun_in = "/usr/bin/server!parse_row" },
    })
    assert.same({ "unknown" }, { two.call_count_source, two.call_count, two.span })
    assert.equal("unknown", hotspot({ { name = "row", durations_ms = { 1 } } }).call_count_source)
  end)

  it("says why the line of a function is not known", function()
    for _, hotspot in ipairs(get(busy()).json.hotspots) do
      if hotspot.function_name == "hash" then
        assert.is_nil(hotspot.file_location)
        assert.truthy(hotspot.location_reason:find("file and line need debug information of app (-g", 1, true))
        return
      end
    end
    error("hash is no hotspot")
  end)

  it("ranks by impact, and leaves out what only begins a thread", function()
    local before = math.huge
    for _, hotspot in ipairs(get(busy()).json.hotspots) do
      assert.is_true(hotspot.impact_score <= before)
      before = hotspot.impact_score
      assert.not_equal("main", hotspot.function_name)
    end
  end)

  it("shares non-idle time out, to 100 %", function()
    local body = get(busy()).json
    assert.near(100 * 51 / 90, body.cpu_bound_percent, 0.01)
    assert.near(100 * 9 / 90, body.memory_bound_percent, 0.01)
    assert.near(100 * 24 / 90, body.io_bound_percent, 0.01)
    assert.near(100 * 6 / 90, body.lock_bound_percent, 0.01)
    local sum = body.cpu_bound_percent + body.memory_bound_percent + body.io_bound_percent + body.lock_bound_percent
    assert.near(100, sum, 1e-9)
    assert.equal(25, body.idle_percent)
    assert.equal(3000 + 900 + 2100 + 1200 + 480 + 120 + 600, body.total_samples)
    assert.equal(60, body.cpu_seconds)
    assert.truthy(body.memory_bound_basis:find("cache misses in other code are not seen", 1, true))
  end)

  it("recommends in the seed's words", function()
    local recommendations = get(busy()).json.recommendations
    assert.truthy(recommendations[1]:find("^Critical: Optimize parse_row %(50.0%% CPU time, impact score: 0.%d+%)"),
      recommendations[1])
  end)

  it("recommends nothing to a program that is idle nearly always", function()
    local samples = {
      { stack = { "parse_row", "main" }, state = "user", count = 200 },
      { stack = { "libc.so.6!epoll_wait", "loop" }, state = "waiting", syscall = EPOLL_WAIT, count = 1160 },
    }
    local body = get(busy({ samples = samples })).json
    assert.equal("parse_row", body.hotspots[1].function_name)
    assert.same({}, body.recommendations)
  end)

  it("tells page faults of the window beside it", function()
    local rows = {
      { time_ms = 1728583100000, minor_faults = 0, major_faults = 0 },
      { time_ms = 1728583140000, minor_faults = 1000, major_faults = 1 },
      { time_ms = 1728583200000, minor_faults = 4000, major_faults = 7 },
    }
    local body = get(busy(nil, { memory = rows })).json
    assert.same({ minor = 3000, major = 6, minor_per_second = 50, major_per_second = 0.1 }, body.page_faults)
    rows[3].minor_faults = 10
    assert.truthy(get(busy(nil, { memory = rows })).json.page_faults.reason:find("a process ended", 1, true))
    assert.truthy(get(busy()).json.page_faults.reason:find("needs two readings", 1, true))
  end)

  it("looks as far back as asked, and shows as many as asked", function()
    local asked = {}
    local server = fake.server({ heap = busy() })
    local take = server.host.take_snapshot
    server.host.take_snapshot = function(pid, window_ms, callback)
      asked[#asked + 1] = { pid or "all", window_ms }
      take(pid, window_ms, callback)
    end
    assert.equal(60, fake.request(server, "GET", PATH).json.window_seconds)
    local body = fake.request(server, "GET", PATH .. "?window=5&limit=1&target=100").json
    assert.equal(5, body.window_seconds)
    assert.equal(1, #body.hotspots)
    assert.same({ { "all", 60000 }, { 100, 5000 } }, asked)
  end)

  for _, query in ipairs({ "?window=0", "?window=601", "?window=x", "?limit=0", "?limit=101", "?windows=5" }) do
    it("refuses " .. query, function()
      local answer = get(busy(), query)
      assert.equal(400, answer.status)
      assert.truthy(answer.json.detail:find(query:match("%w+"), 1, true), answer.body)
    end)
  end

  it("says that nothing is sampled where both profiles are off, and looks empty to nobody", function()
    local answer = get(busy({ cpu_hz = 0, wall_hz = 0, samples = {} }))
    assert.equal(200, answer.status)
    local body = answer.json
    assert.same({}, body.hotspots)
    assert.is_nil(body.cpu_bound_percent)
    assert.truthy(body.reason:find("CPU profiling is off", 1, true), body.reason)
    assert.truthy(body.reason:find("wall profiling is off", 1, true), body.reason)
    assert.same({ "off", "off" }, { body.cpu_profile.state, body.wall_profile.state })
  end)

  it("says that a few samples name no function", function()
    local body = get(busy({ samples = { { stack = { "parse_row", "main" }, state = "user", count = 50 } } })).json
    assert.same({}, body.hotspots)
    assert.equal("there are too few samples yet to tell functions apart; at this pace that takes 2 min 0 s",
      body.hotspots_reason)
    assert.is_nil(get(busy()).json.hotspots_reason)
  end)

  it("changes with its rule, and says where there is none", function()
    local folder = support.temp_dir()
    support.write_file(folder .. "/mine.lua", [[return {
      api = 1, id = "bottleneck.hotspot", kind = "bottleneck", title = "mine", needs = { "cpu" },
      check = function(view)
        local findings = {}
        for f in view.profile:functions { by = "cpu_ns", limit = 1 } do
          if f.name == "hash" then findings[1] = { hotspot = f, score = 0.5, summary = "only hash" } end
        end
        return findings
      end,
    }]])
    local settings = config.defaults()
    settings.rules = folder
    local function ask(samples) return get(busy({ samples = samples }), "", { config = settings }).json end
    local body = ask({ { stack = { "hash", "main" }, state = "user", count = 3 } })
    assert.equal("hash", body.hotspots[1].function_name)
    assert.equal(0.5, body.hotspots[1].impact_score)
    body = ask({ { stack = { "other", "main" }, state = "user", count = 3 } })
    assert.same({}, body.hotspots)
    assert.equal("the rules found no function that stands out", body.hotspots_reason)
    support.cleanup()
  end)

  it("says that there are no samples yet", function()
    local body = get(busy({ samples = {} })).json
    assert.truthy(body.reason:find("no samples in the last 60 s", 1, true))
    assert.is_nil(body.idle_percent)
    assert.is_nil(body.profile_from)
    assert.equal(0, body.total_samples)
  end)

  it("does not call a program CPU-bound whose waits nobody sees", function()
    local targets = { { pid = 100, name = "server", wall_state = "unreadable" } }
    local samples = { { stack = { "parse_row", "main" }, state = "user", count = 3000 } }
    local body = get(busy({ samples = samples }, { targets = targets })).json
    assert.is_nil(body.reason)
    assert.is_nil(body.cpu_bound_percent)
    assert.is_nil(body.idle_percent)
    assert.truthy(body.bound_reason:find("what threads wait for is not known", 1, true))
    assert.equal(100, body.hotspots[1].cpu_time_percent)
    assert.is_nil(body.hotspots[1].wall_time_percent)
  end)

  it("tells who owns SIGPROF", function()
    local targets = { { pid = 100, name = "server", cpu_state = "foreign" } }
    local samples = { { stack = { "/lib/libc.so.6!read", "fetch" }, state = "waiting", syscall = READ, count = 400 } }
    local body = get(busy({ samples = samples }, { targets = targets })).json
    assert.equal("foreign", body.cpu_profile.state)
    assert.truthy(body.cpu_profile.reason:find("SIGPROF", 1, true))
    assert.truthy(body.bound_reason:find("SIGPROF", 1, true))
    assert.is_nil(body.cpu_seconds)
  end)

  it("answers 503 where there is no snapshot, and why", function()
    local answer = get(nil)
    assert.equal(503, answer.status)
    assert.equal("no heap profile was taken yet", answer.json.detail)
  end)

  it("is not the run's analysis", function()
    local server = fake.server({ heap = busy() })
    fake.request(server, "GET", PATH)
    assert.same({}, fake.request(server, "GET", "/api/findings").json.findings)
  end)
end)

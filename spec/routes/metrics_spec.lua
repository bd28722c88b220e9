require("spec.support")
local fake = require("spec.fake_host")

local OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

local function get(server, accept)
  return fake.request(server, "GET", "/metrics", { headers = { host = "127.0.0.1:7077", accept = accept } })
end

local function busy_server(given)
  given = given or {}
  given.heap = { sites = { { name = "f", history = { 100 } } } }
  local server = fake.server(given)
  fake.request(server, "POST", "/api/profiling/leak-detection")
  fake.request(server, "GET", "/api/profiling/memory")
  fake.request(server, "GET", "/nothing")
  return server
end

local function value_of(text, sample)
  for line in text:gmatch("[^\n]+") do
    local name, value = line:match("^(.-) (%S+)$")
    if name == sample then return tonumber(value) end
  end
end

describe("GET /metrics", function()
  it("speaks Prometheus' format, which promtool finds nothing to say about", function()
    local answer = get(busy_server())
    assert.equal(200, answer.status)
    assert.equal("text/plain; version=0.0.4; charset=utf-8", answer.headers["Content-Type"])
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(answer.body)
    file:close()
    local pipe = assert(io.popen("promtool check metrics < " .. path .. " 2>&1; echo exit $?"))
    local said = pipe:read("*a")
    pipe:close()
    os.remove(path)
    assert.equal("exit 0\n", said)
  end)

  it("speaks OpenMetrics to who asks for it", function()
    local prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    local answer = get(busy_server(), prometheus)
    assert.equal(OPENMETRICS, answer.headers["Content-Type"])
    assert.truthy(answer.body:match("# EOF\n$"))
    assert.truthy(answer.body:find("# TYPE lupe_cpu_seconds counter\n", 1, true))
    assert.truthy(answer.body:find('\nlupe_cpu_seconds_total{mode="user"} 20\n', 1, true))
    assert.truthy(answer.body:find("# TYPE lupe_build info\n", 1, true))
    assert.truthy(answer.body:find('lupe_build_info{version="0.2.0"} 1', 1, true))
    local type_line
    for line in answer.body:gmatch("[^\n]+") do
      if line:match("^# TYPE") then type_line = line end
      if not line:match("^#") then
        local family, kind = type_line:match("^# TYPE (%S+) (%S+)$")
        assert.equal(family, line:sub(1, #family), line .. " stands under " .. type_line)
        if kind == "counter" then assert.truthy(line:match("^[%w_]+_total[ {]"), line) end
      end
    end
  end)

  it("goes by the client's preference", function()
    local server = busy_server()
    assert.equal(OPENMETRICS, get(server, "application/openmetrics-text").headers["Content-Type"])
    for _, accept in ipairs({ "text/plain", "*/*", "application/openmetrics-text;q=0.1,text/plain", "image/png" }) do
      assert.truthy(get(server, accept).headers["Content-Type"]:find("text/plain", 1, true), accept)
    end
  end)

  it("tells memory, allocator, own cost, losses, rules and HTTP in base units", function()
    local text = get(busy_server()).body
    assert.equal(245.25 * 2 ^ 20, value_of(text, "lupe_memory_rss_bytes"))
    assert.equal(180 * 2 ^ 20, value_of(text, "lupe_allocator_allocated_bytes"))
    assert.equal(0.6, value_of(text, 'lupe_profiler_cpu_seconds_total{part="runtime"}'))
    assert.equal(0.003, value_of(text, 'lupe_profiler_cpu_seconds_total{part="handler"}'))
    assert.equal(990, value_of(text, "lupe_cpu_samples_total"))
    assert.equal(800, value_of(text, "lupe_wall_looks_total"))
    assert.equal(7, value_of(text, "lupe_wall_moved_total"))
    assert.equal(0, value_of(text, "lupe_dropped_records_total"))
    assert.equal(1, value_of(text, "lupe_truncated_stacks_total"))
    assert.equal(1, value_of(text, 'lupe_rule_runs_total{rule="leak.steady-growth"}'))
    assert.equal(1, value_of(text, 'lupe_targets{state="live"}'))
    assert.equal(1, value_of(text, 'lupe_http_requests_total{method="GET",route="none",status="404"}'))
    assert.equal(1, value_of(text, 'lupe_http_request_seconds_count{route="/api/profiling/memory"}'))
  end)

  it("has a summary of each span, with names that cannot break it", function()
    local text = get(fake.server({ heap = { spans = {
      { name = 'GET "/"', durations_ms = { 10, 20, 30 } }, { name = "job", durations_ms = { 500 } },
    }, names_lost = 2, spans_lost = 3 } })).body
    assert.truthy(text:find("# TYPE lupe_span_duration_seconds summary", 1, true))
    assert.equal(3, value_of(text, [[lupe_span_duration_seconds_count{span="GET \"/\""}]]))
    assert.near(0.06, value_of(text, [[lupe_span_duration_seconds_sum{span="GET \"/\""}]]), 1e-9)
    assert.near(0.5, value_of(text, 'lupe_span_duration_seconds{span="job",quantile="0.99"}'), 0.001)
    assert.equal(2, value_of(text, "lupe_mark_names_lost_total"))
    assert.equal(3, value_of(text, "lupe_spans_lost_total"))
  end)

  it("has a bounded number of spans: those that came first, and one for all others", function()
    local spans = {}
    for i = 1, 150 do spans[i] = { name = "span " .. i, durations_ms = { 1, 1 } } end
    local text = get(fake.server({ heap = { spans = spans } })).body
    local _, series = text:gsub("lupe_span_duration_seconds_count", "")
    assert.equal(101, series)
    assert.equal(2, value_of(text, 'lupe_span_duration_seconds_count{span="span 100"}'))
    assert.equal(100, value_of(text, 'lupe_span_duration_seconds_count{span="(others)"}'))
  end)

  it("sums what jemalloc tells of each live process", function()
    local text = get(fake.server({
      target_list = { fake.target({ pid = 1 }), fake.target({ pid = 2 }), fake.target({ pid = 3, live = false }) },
      allocator = function(pid) return { arena_count = 4, dirty_bytes = pid * 1000, muzzy_bytes = 0 } end,
    })).body
    assert.equal(3000, value_of(text, "lupe_allocator_dirty_bytes"))
    assert.equal(8, value_of(text, "lupe_allocator_arenas"))
  end)

  it("sums the threads that cannot be profiled over the live processes", function()
    local text = get(fake.server({
      target_list = {
        fake.target({ pid = 1, threads_untimed = 2, sample_drops = 5 }), fake.target({ pid = 2, threads_unread = 3 }),
        fake.target({ pid = 3, live = false, threads_untimed = 10, sample_drops = 1 }),
      },
    })).body
    assert.equal(2, value_of(text, "lupe_threads_untimed"))
    assert.equal(3, value_of(text, "lupe_threads_unread"))
    assert.equal(6, value_of(text, "lupe_unqueued_samples"))
  end)

  it("tells what bounds the program, where both profiles know", function()
    local profile = {
      from_ms = 0, to_ms = 60000, cpu_hz = 100, wall_hz = 20,
      samples = {
        { stack = { "work", "main" }, state = "user", count = 3000 },
        { stack = { "libc.so.6!read", "fetch" }, state = "waiting", syscall = 0, count = 200 },
      },
    }
    local function text_of(target)
      return get(fake.server({ heap = { targets = { target }, profile = profile } })).body
    end
    local text = text_of({ pid = 1 })
    assert.equal(0.75, value_of(text, 'lupe_bound_ratio{part="cpu"}'))
    assert.equal(0.25, value_of(text, 'lupe_bound_ratio{part="io"}'))
    assert.equal(0, value_of(text, 'lupe_bound_ratio{part="lock"}'))
    assert.is_nil(text_of({ pid = 1, wall_state = "unreadable" }):find("lupe_bound_ratio", 1, true))
    assert.is_nil(get(fake.server()).body:find("lupe_bound_ratio", 1, true))
  end)

  it("leaves out what is not known, instead of inventing a 0", function()
    local text = get(busy_server({
      figures_now = fake.figures({ has_allocator = false }), allocator = function() return nil, "not known" end,
      cgroup = function() return nil, "none" end,
    })).body
    assert.is_nil(text:find("lupe_allocator_", 1, true))
    assert.is_nil(text:find("lupe_memory_cgroup_", 1, true))
    assert.is_nil(text:find("nan", 1, true))
    assert.truthy(text:find("lupe_memory_rss_bytes", 1, true))
  end)

  it("works without a live process", function()
    local answer = get(fake.server({ target_list = {} }))
    assert.equal(200, answer.status)
    assert.equal(0, value_of(answer.body, 'lupe_targets{state="live"}'))
  end)
end)

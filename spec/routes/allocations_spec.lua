require("spec.support")
local fake = require("spec.fake_host")
local literal = require("lupe.view_literal")

local MIB = 2 ^ 20
local PROMISED = {
  "timestamp", "top_allocators", "size_distribution", "efficiency_score", "fragmentation_percent", "recommendations",
}

local function heap(fields)
  local made = {
    sample_period_bytes = 524288,
    sites = {
      {
        name = "cache_put", history = { 3 * MIB }, inuse_objects = 3000, alloc_space = 300 * MIB,
        stack = { "cache_put", "main" },
      },
      { name = "parse", history = { 6 * MIB }, inuse_objects = 60, alloc_space = 7 * MIB, stack = { "parse", "main" } },
      { name = "gone", history = { 0 }, inuse_objects = 0, alloc_space = 5 * MIB },
    },
    classes = {
      { size_bytes = 1024, live_count = 4000 }, { size_bytes = 1280, live_count = 60 },
      { size_bytes = 102400, live_count = 1 }, { size_bytes = 1048576, live_count = 2 },
      { size_bytes = 1310720, live_count = 3 },
    },
    memory = {
      { time_ms = 1, rss_bytes = 1, allocated_bytes = 9 * MIB, active_bytes = 10 * MIB, resident_bytes = 12 * MIB },
    },
  }
  for name, value in pairs(fields or {}) do made[name] = value end
  return made
end

local function get(target, given)
  given = given or { heap = heap() }
  return fake.request(fake.server(given), "GET", "/api/profiling/allocations" .. (target or ""))
end

describe("GET /api/profiling/allocations", function()
  it("has the promised fields first and in its order", function()
    local answer = get()
    assert.equal(200, answer.status, answer.body)
    assert.same(PROMISED, { unpack(fake.order(answer.body), 1, #PROMISED) })
  end)

  it("ranks functions by live bytes, as pairs of name and bytes, without those that hold nothing", function()
    local answer = get()
    assert.truthy(answer.body:find('"top_allocators":[["parse",6291456],["cache_put",3145728]]', 1, true), answer.body)
    local first = answer.json.allocators[1]
    assert.equal(60, first.inuse_objects)
    assert.equal(66.67, first.share_percent)
    assert.equal(math.floor(math.sqrt(524288 * 6 * MIB) + 0.5), first.sampling_error_bytes)
    assert.same({ "parse", "main" }, first.stack)
  end)

  it("ranks by all that was allocated where asked, and so many as asked", function()
    local answer = get("?by=alloc_space&limit=2")
    assert.same({ { "cache_put", 300 * MIB }, { "parse", 7 * MIB } }, answer.json.top_allocators)
    assert.equal(400, get("?by=magic").status)
    assert.equal(400, get("?limit=0").status)
  end)

  it("counts live allocations exactly, from the size classes", function()
    local answer = get()
    assert.truthy(answer.body:find('"size_distribution":{"small_0_1kb":4000,"medium_1_100kb":61,"large_100kb_1mb":2,'
      .. '"huge_1mb_plus":3}', 1, true), answer.body)
  end)

  it("computes fragmentation and efficiency from jemalloc's figures", function()
    local body = get().json
    assert.equal(10, body.fragmentation_percent)
    assert.equal(0.8, body.efficiency_score)
  end)

  it("is null or empty with the reason, without jemalloc or before the first profile", function()
    for _, given in ipairs({
      { heap = heap({ memory = {}, classes = {}, sites = {}, sample_period_bytes = 0 }),
        figures_now = fake.figures({ has_allocator = false }),
        target_list = { fake.target({ heap_state = "no_jemalloc", allocator = "system" }) } },
      { figures_now = fake.figures({ has_allocator = false }) },
    }) do
      local answer = get("", given)
      assert.equal(200, answer.status)
      for _, text in ipairs({
        '"top_allocators":[]', '"small_0_1kb":null', '"efficiency_score":null', '"fragmentation_percent":null',
        '"allocators":[]', '"sample_period_bytes":null',
      }) do
        assert.truthy(answer.body:find(text, 1, true), text)
      end
      assert.equal("string", type(answer.json.reason))
    end
  end)

  it("brings the recommendations of the last analysis, and starts one where it is old", function()
    local server = fake.server({ heap = heap() })
    assert.is_nil(server.app.analysis:latest())
    fake.request(server, "GET", "/api/profiling/allocations")
    assert.is_not_nil(server.app.analysis:latest())
    local calls = #server.host.worker_calls
    fake.request(server, "GET", "/api/profiling/allocations")
    assert.equal(calls, #server.host.worker_calls)
  end)

  it("looks at one process where asked, and recommends nothing on account of another", function()
    local address, size, owner = literal(heap({ sites = { { name = "idle", history = { MIB } } } }))
    local server = fake.server({
      heap = heap({ sites = { { name = "busy", history = { MIB }, alloc_space = 900 * MIB } } }),
      take_snapshot = function(_, _, callback) callback(nil, address, size, owner) end,
    })
    local function ask(query)
      fake.request(server, "GET", "/api/profiling/allocations" .. query)
      return fake.request(server, "GET", "/api/profiling/allocations" .. query).json
    end
    assert.truthy(ask("").recommendations[1]:find("busy", 1, true))
    local one = ask("?target=100")
    assert.equal(100, one.target.pid)
    assert.same({ { "idle", MIB } }, one.top_allocators)
    assert.same({}, one.recommendations)
  end)

  it("answers 503 where the process ends while its profile is looked at", function()
    local server = fake.server({ heap = heap() })
    server.host.memory = function() return nil, "no live process" end
    for _, name in ipairs({ "allocations", "memory", "cpu" }) do
      assert.equal(503, fake.request(server, "GET", "/api/profiling/" .. name .. "?target=100").status, name)
    end
  end)
end)

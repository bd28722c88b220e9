require("spec.support")
local fake = require("spec.fake_host")

local HEAP = { sample_period_bytes = 524288, sites = { { name = "f", history = { 100 } } } }
local PROFILED = {
  sample_period_bytes = 524288, sites = { { name = "f", history = { 100 } } },
  profile = { threads = { { tid = 1, name = "t" } }, samples = { { stack = { "f", "main" }, count = 3 } } },
}

local function get(server, target) return fake.request(server, "GET", target) end

describe("/debug/pprof/", function()
  it("hands heap profiles out as files", function()
    local server = fake.server({ heap = HEAP })
    local answer = get(server, "/debug/pprof/heap")
    assert.equal(200, answer.status, answer.body)
    assert.equal("a profile: heap", answer.body)
    assert.equal("application/octet-stream", answer.headers["Content-Type"])
    assert.equal('attachment; filename="redis-server-100-heap.pb.gz"', answer.headers["Content-Disposition"])
    assert.equal("a profile: allocs", get(server, "/debug/pprof/allocs?target=100").body)
    assert.equal("a profile: gperftools-heap", get(server, "/pprof/heap").body)
  end)

  it("makes no file name of a process's name that a header could not bear", function()
    local server = fake.server({ heap = HEAP, target_list = { fake.target({ name = 'a"b/..\n' }) } })
    assert.equal('attachment; filename="a_b_.._-100-heap.pb.gz"',
      get(server, "/debug/pprof/heap").headers["Content-Disposition"])
  end)

  it("waits for as long as asked, from the next whole second on, and asks for just that window", function()
    local asked, waited
    local server = fake.server({ heap = PROFILED, clock_ms = 1728583200250 })
    local host = server.host
    local take, after = host.take_snapshot, host.after
    host.take_snapshot = function(pid, window_ms, callback)
      asked = window_ms
      take(pid, window_ms, callback)
    end
    host.after = function(ms, callback)
      waited = ms
      after(ms, callback)
    end
    local answer = get(server, "/debug/pprof/profile?seconds=5")
    assert.equal("a profile: cpu", answer.body)
    assert.equal(5750, waited)
    assert.is_true(asked >= 5000 and asked < 6000, asked)
    assert.equal("a profile: wall", get(server, "/debug/pprof/wall").body)
    assert.equal(30000, waited)
    assert.equal("a profile: gperftools-cpu", get(server, "/pprof/profile?seconds=1").body)
  end)

  it("does not wait for a profile that is off", function()
    local server = fake.server({ heap = HEAP, after = function() error("it waits") end })
    for path, kind in pairs({ profile = "CPU", wall = "wall" }) do
      local answer = get(server, "/debug/pprof/" .. path)
      assert.equal(503, answer.status)
      assert.matches(kind .. " profiling is off", answer.json.detail)
    end
  end)

  it("has a CPU profile where waiting cannot be seen, and what waited where the CPU cannot", function()
    local off = { cpu = { cpu_hz = 0 }, wall = { wall_hz = 0 } }
    local statuses = {}
    for name, change in pairs(off) do
      local profile = { threads = PROFILED.profile.threads, samples = {} }
      for key, value in pairs(change) do profile[key] = value end
      local server = fake.server({ heap = { sites = HEAP.sites, profile = profile } })
      statuses[name] = {
        get(server, "/debug/pprof/profile?seconds=1").status, get(server, "/debug/pprof/wall?seconds=1").status,
      }
    end
    assert.same({ cpu = { 503, 200 }, wall = { 200, 200 } }, statuses)
  end)

  it("says why there is no heap profile", function()
    local answer = get(fake.server({ heap = HEAP, target_list = { fake.target({ heap_state = "no_jemalloc" }) } }),
      "/debug/pprof/heap")
    assert.equal(503, answer.status)
    assert.matches("does not use jemalloc", answer.json.detail)
    answer = get(fake.server(), "/debug/pprof/heap")
    assert.equal(503, answer.status)
    assert.matches("no heap profile was taken yet", answer.json.detail)
  end)

  it("has no profile of allocations where what was freed is not known", function()
    local server = fake.server({ heap = HEAP, target_list = { fake.target({ heap_state = "no_hook" }) } })
    assert.equal(200, get(server, "/debug/pprof/heap").status)
    local answer = get(server, "/debug/pprof/allocs")
    assert.equal(503, answer.status)
    assert.matches("what was freed is not known", answer.json.detail)
  end)

  it("refuses what it does not understand", function()
    local server = fake.server({ heap = PROFILED })
    for target, status in pairs({
      ["/debug/pprof/profile?seconds=0"] = 400, ["/debug/pprof/profile?seconds=601"] = 400,
      ["/debug/pprof/heap?seconds=3"] = 400, ["/debug/pprof/heap?target=4711"] = 404, ["/debug/pprof/nothing"] = 404,
    }) do
      assert.equal(status, get(server, target).status, target)
    end
  end)

  it("ends with the process that it waits for", function()
    local server = fake.server({ heap = PROFILED })
    local after = server.host.after
    server.host.after = function(ms, callback)
      server.host.target_list[1].live = false
      after(ms, callback)
    end
    assert.equal(503, get(server, "/debug/pprof/profile?seconds=1").status)
  end)

  it("tells a failure", function()
    local server = fake.server({ heap = HEAP, pprof = function(_, _, callback) callback("out of memory") end })
    local answer = get(server, "/debug/pprof/heap")
    assert.equal(503, answer.status)
    assert.matches("out of memory", answer.json.detail)
  end)

  it("is off with profiling", function()
    local server = fake.server({ heap = HEAP })
    server.host.config.enable_profiling = false
    assert.equal(503, get(server, "/debug/pprof/heap").status)
    assert.equal(503, get(server, "/debug/pprof/cmdline").status)
  end)

  it("has a page that lists it", function()
    local server = fake.server()
    local answer = get(server, "/debug/pprof/")
    assert.equal("text/html; charset=utf-8", answer.headers["Content-Type"])
    for name in answer.body:gmatch('href="([^"]+)"') do
      assert.not_equal(404, get(server, "/debug/pprof/" .. name).status, name)
    end
    assert.truthy(answer.body:find('href="profile"', 1, true))
    local of_one = get(server, "/debug/pprof/?target=100").body
    assert.truthy(of_one:find('href="profile?target=100"', 1, true))
    assert.truthy(of_one:find('href="symbol"', 1, true)) -- takes addresses only
    assert.equal("/debug/pprof/", get(server, "/debug/pprof").headers.Location)
  end)

  it("tells the command line, and names addresses as google-pprof asks for them", function()
    local server = fake.server({ heap = HEAP })
    for _, folder in ipairs({ "/debug/pprof", "/pprof" }) do
      assert.equal("program\0" .. "100\0", get(server, folder .. "/cmdline").body)
      assert.equal("num_symbols: 1\n", get(server, folder .. "/symbol").body)
      assert.equal("0x1a\tmain\n0x2b\tmain\n", get(server, folder .. "/symbol?0x1a+0x2b").body)
      assert.equal("0x1a\tmain\n0x2b\tmain\n", get(server, folder .. "/symbol?0x1a%2B0x2b").body)
      local answer = fake.request(server, "POST", folder .. "/symbol", {
        body = "0x1a+0x2b",
        headers = { host = "127.0.0.1:7077", ["content-type"] = "application/x-www-form-urlencoded" },
      })
      assert.equal("0x1a\tmain\n0x2b\tmain\n", answer.body)
    end
  end)
end)

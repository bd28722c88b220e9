local config = require("lupe.config")
local fake = require("spec.fake_host")
local support = require("spec.support")

local function heap(fields)
  local described = {
    sites = { { name = "open", history = { 4096 }, stack = { "malloc", "open", "main" } } },
    profile = {
      from_ms = 0, to_ms = 60000, cpu_hz = 99, wall_hz = 20, threads = { { tid = 1, name = "main" } },
      samples = {
        { stack = { "parse", "main" }, thread = 1, state = "user", ns = 3e9 },
        { stack = { "libc.so.6!read", "load", "main" }, thread = 1, state = "waiting", syscall = 0, ns = 2e9 },
      },
    },
  }
  for name, value in pairs(fields or {}) do described[name] = value end
  return described
end

local function get(query, given, server)
  return fake.request(server or fake.server(given or { heap = heap() }), "GET",
    "/api/profiling/flamegraph" .. (query and "?" .. query or ""))
end

describe("GET /api/profiling/flamegraph", function()
  after_each(support.cleanup)

  it("is a picture of the CPU time unless something else is asked for", function()
    local answer = get()
    assert.equal(200, answer.status)
    assert.equal("image/svg+xml", answer.headers["Content-Type"])
    assert.truthy(answer.body:find("^<svg "))
    assert.truthy(answer.body:find("CPU time: redis-server (100)", 1, true))
    assert.truthy(answer.body:find("last 60 s, 3 s", 1, true))
    assert.truthy(answer.body:find("parse: 3 s, 100.00 %", 1, true))
  end)

  it("comes as lines, as a page and as a tree", function()
    assert.equal("main;load;read 2000000\nmain;parse 3000000\n", get("type=wall&format=folded").body)
    assert.equal("main;open;malloc 4096\n", get("type=heap&format=folded").body)
    local page = get("format=html")
    assert.equal("text/html; charset=utf-8", page.headers["Content-Type"])
    assert.truthy(page.headers["Content-Security-Policy"]:find("default-src 'none'", 1, true))
    assert.equal("all", get("format=json").json.name)
  end)

  it("says why there is none", function()
    local off = heap()
    off.profile.cpu_hz = 0
    local answer = get(nil, { heap = off })
    assert.equal(503, answer.status)
    assert.equal("urn:lupe:problem:no-profile", answer.json.type)
    assert.equal(503, get("type=heap", { heap = heap(), target_list = { fake.target({ heap_state = "no_jemalloc" }) } })
      .status)
    assert.equal(404, get("target=4711").status)
  end)

  it("refuses what it does not know, by name", function()
    for query, word in pairs({
      ["type=memory"] = "cpu", ["format=png"] = "svg", ["window=0"] = "window", ["windwo=3"] = "window",
    }) do
      local answer = get(query)
      assert.equal(400, answer.status, query)
      assert.truthy(answer.json.detail:find(word, 1, true), answer.json.detail)
    end
  end)

  it("compares with a snapshot, and says what is wrong with one that is not there or not ours", function()
    local settings = config.defaults()
    settings.state_dir = support.temp_dir()
    local server = fake.server({ heap = heap(), config = settings })
    local path = settings.state_dir .. "/snapshots/snapshot_1728583000.json"
    assert.equal(404, get("base=snapshot_1", nil, server).status)
    assert.equal(404, get("base=../../etc/passwd", nil, server).status)

    support.run({ "mkdir", settings.state_dir .. "/snapshots" })
    support.write_file(path, '{"format":"other"}')
    server.host.files[path] = { size = 18, mtime_ms = 1 }
    local refused = get("base=snapshot_1728583000", nil, server)
    assert.equal(400, refused.status)
    assert.equal("base: not a snapshot that lupe wrote", refused.json.detail)

    support.write_file(path, '{"format":')
    assert.same({ 400, "base: not JSON" },
      { get("base=snapshot_1728583000", nil, server).status, get("base=snapshot_1728583000", nil, server).json.detail })

    support.write_file(path, [[{"format":"lupe-heap-snapshot","modules":[{"path":"/bin/app"}],
      "functions":[{"name":"parse","module":0},{"name":"main","module":0}],
      "frames":[{"function":0,"module":0},{"function":1,"module":0}],
      "stacks":[{"site":null,"frames":[0,1],"inuse_space":0,"alloc_space":0,"cpu_ns":1000000000}]}]])
    local answer = get("base=snapshot_1728583000", nil, server)
    assert.equal(200, answer.status)
    assert.truthy(answer.body:find("parse: 3 s, 100.00 %\nmain", 1, true) or answer.body:find("before: 1 s", 1, true))

    server.host.files[path].size = 100 * 2 ^ 20
    assert.truthy(get("base=snapshot_1728583000", nil, server).json.detail:find("at most 24", 1, true))
  end)
end)

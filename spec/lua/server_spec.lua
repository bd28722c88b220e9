require("spec.support")
local fake = require("spec.fake_host")
local json = require("lupe.json")
local literal = require("lupe.view_literal")

local HEAP = { sites = { { name = "f", history = { 100, 200 } } }, interval_ms = 1000 }

local function ending(heap, fields)
  local address, size, owner = literal(heap)
  local info = {
    pid = 100, exit_code = 0, connected = true, columns = 80, color = false,
    snapshot = { address = address, size = size, keepalive = owner },
  }
  for name, value in pairs(fields or {}) do info[name] = value end
  return info
end

describe("the server", function()
  it("gives the allocator wrappers to the store", function()
    local server = fake.server()
    assert.is_true(#server.host.wrappers > 0)
  end)

  it("answers from the new snapshot once there is one", function()
    local server = fake.server({ heap = HEAP })
    local function top() return fake.request(server, "GET", "/api/profiling/allocations").json.top_allocators[1] end
    assert.same({ "f", 200 }, top())
    server.host.heap = { sites = { { name = "g", history = { 300 } } } }
    assert.same({ "f", 200 }, top())
    server.on_snapshot()
    assert.same({ "g", 300 }, top())
  end)

  it("checks by itself once there is a heap profile", function()
    local server = fake.server()
    server.tick()
    assert.is_nil(server.app.analysis:latest())
    server.host.heap = HEAP
    server.on_snapshot()
    server.tick()
    assert.is_not_nil(server.app.analysis:latest())
  end)

  it("remembers a threshold that was passed between two requests", function()
    local server = fake.server({ figures_now = fake.figures({ rss_bytes = 701 * 2 ^ 20 }) })
    server.tick()
    server.host.figures_now = fake.figures({ rss_bytes = 670 * 2 ^ 20 })
    assert.equal("critical", fake.request(server, "GET", "/api/profiling/memory").json.threshold_status)
  end)

  it("reports at the end, in words or as JSON, from a snapshot of all that ever ran", function()
    local server, text = fake.server(), nil
    server.exit_report(ending(HEAP), function(made) text = made end)
    assert.truthy(text:find("lupe: redis-server, 200.0 s, exit code 0", 1, true) or text:find("3 min 20 s", 1, true))
    assert.truthy(text:find("Too short to tell", 1, true))
    server.app.config.report = "json"
    server.exit_report(ending(HEAP), function(made) text = made end)
    local data = json.decode(text)
    assert.equal("insufficient_data", data.status)
    assert.equal(200, data.allocators[1].inuse_space)
  end)

  it("reports also where nothing was profiled, and where there is no snapshot", function()
    local server, text = fake.server({ target_list = {} }), nil
    server.exit_report(ending(HEAP, { connected = false }), function(made) text = made end)
    assert.truthy(text:find("The heap was not profiled: the program never connected", 1, true), text)
    local info = { pid = 1, exit_code = 3, connected = false, argv = { "/bin/true" } }
    server.exit_report(info, function(made) text = made end)
    assert.truthy(text:find("lupe: true ran for", 1, true), text)
    assert.truthy(text:find("exit code 3", 1, true))
  end)

  it("ends with a report even where making it fails, and logs why", function()
    local server, text = fake.server(), nil
    server.host.profiler = function() error("no profiler today") end
    server.exit_report(ending(HEAP), function(made) text = made end)
    assert.equal("string", type(text))
    assert.truthy(server.host.logged[1]:find("no profiler today", 1, true))
  end)
end)

require("spec.support")
local fake = require("spec.fake_host")
local support = require("spec.support")

local HEAP = { sites = { { name = "f", history = { 100, 200 } } }, interval_ms = 1000 }
local ACTION = [[return { api = 1, id = "action.mine", kind = "action", title = "t", check = function(view)
  return { { summary = "it is time", action = { name = "purge" } } } end }]]
local ALERT = [[return { api = 1, id = "alert.mine", kind = "alert", title = "t", check = function(view)
  return { { summary = "it is late", severity = "high" } } end }]]

describe("a rule's action", function()
  local server, host

  before_each(function()
    local folder = support.temp_dir()
    support.write_file(folder .. "/act.lua", ACTION)
    support.write_file(folder .. "/alert.lua", ALERT)
    host = fake.new({ heap = HEAP })
    host.config.rules, host.config.actions = folder, { "purge" }
    server = require("lupe.server").new(host)
    server.host = host
  end)
  after_each(support.cleanup)

  local function listed() return fake.request(server, "GET", "/api/actions").json.actions end
  local function time_for_a_check()
    host.clock_ms = host.clock_ms + 301000
    server.tick()
  end

  it("is run by the scheduled check, and listed", function()
    time_for_a_check()
    local answer = fake.request(server, "GET", "/api/actions")
    assert.same({
      {
        time = "2024-10-10T18:05:01.000Z", action = "purge", arguments = {}, target = "all", rule = "action.mine",
        why = "it is time", state = "done", result = "gave 0 B of unused pages back, in 1 process, 2 ms",
      },
    }, answer.json.actions)
    assert.same({ { "purge" }, 300 }, { answer.json.allowed, answer.json.cooldown_seconds })
    assert.truthy(answer.body:find('"arguments":{}', 1, true))
  end)

  it("is run by a leak check of the whole run", function()
    fake.request(server, "POST", "/api/profiling/leak-detection")
    assert.equal(1, #listed())
  end)

  it("is not run by a leak check of one process or with params of its own, nor by who only reads", function()
    fake.request(server, "POST", "/api/profiling/leak-detection?target=100")
    local strict = fake.request(server, "POST", "/api/profiling/leak-detection?param.alert.memory-threshold.warning=1")
    assert.equal(200, strict.status)
    for _, path in ipairs({ "/api/profiling/allocations", "/api/profiling/bottlenecks", "/api/findings" }) do
      fake.request(server, "GET", path)
    end
    fake.request(server, "POST", "/api/profiling/snapshot")
    assert.same({}, listed())
    assert.same({}, host.commands)
  end)

  it("is not run again by the next checks", function()
    time_for_a_check()
    fake.request(server, "POST", "/api/profiling/leak-detection")
    server.on_snapshot()
    fake.request(server, "POST", "/api/profiling/leak-detection")
    assert.same({ 1, 1 }, { #listed(), #host.commands })
  end)

  it("is a finding like any other", function()
    time_for_a_check()
    local found
    for _, finding in ipairs(fake.request(server, "GET", "/api/findings").json.findings) do
      if finding.rule == "action.mine" then found = finding end
    end
    assert.same({ "action", "it is time", true }, { found.kind, found.summary, found.current })
  end)

  it("has metrics", function()
    time_for_a_check()
    local text = fake.request(server, "GET", "/metrics").body
    assert.truthy(text:find('lupe_actions_total{action="purge",result="done"} 1', 1, true))
    assert.truthy(text:find('lupe_alert_active{rule="alert.mine"} 1', 1, true))
  end)

  it("sees the alerts: a finding has the state of its own", function()
    time_for_a_check()
    local found
    for _, finding in ipairs(fake.request(server, "GET", "/api/findings").json.findings) do
      if finding.rule == "alert.mine" then found = finding end
      if finding.rule == "action.mine" then assert.is_nil(finding.alert) end
    end
    assert.same({ state = "raised", since = "2024-10-10T18:05:01.000Z", notified = "2024-10-10T18:05:01.000Z" },
      found.alert)
  end)

  it("does not wait for the schedule where memory passes a limit", function()
    local function checked(rss_mib)
      local before = server.app.analysis:latest()
      host.figures_now = fake.figures({ rss_bytes = rss_mib * 2 ^ 20 })
      host.clock_ms = host.clock_ms + 5000
      server.on_snapshot()
      server.tick()
      return server.app.analysis:latest() ~= before
    end
    assert.is_true(checked(600)) -- the first one
    assert.same({ false, true, false, true, false, false, true },
      { checked(600), checked(651), checked(660), checked(701), checked(702), checked(600), checked(651) })
  end)
end)

require("spec.support")
local fake = require("spec.fake_host")

local MIB = 2 ^ 20
local NOW_MS = 1728583200000
local OLD = {
  "rule", "kind", "component", "module", "verdict", "severity", "confidence", "summary", "evidence", "advice",
  "first_found", "last_found", "times", "current",
}

local function site(name, to)
  local history = {}
  for i = 1, 20 do history[i] = MIB + (to - MIB) * (i - 1) / 19 end
  return {
    name = name, module = "/usr/bin/server", history = history, inuse_objects = 25600, alloc_space = to,
    stack = { "xmalloc", name, "main" },
  }
end

local function heap(...) return { interval_ms = 1000, sample_period_bytes = 16384, sites = { ... } } end

--- A server that found two leaks, and 100 s later only one of them.
local function server_with_findings()
  local server = fake.server({ heap = heap(site("session_open", 25 * MIB), site("row_copy", 9 * MIB)) })
  server.tick()
  server.host.clock_ms = NOW_MS + 100000
  server.host.heap = heap(site("session_open", 30 * MIB), site("row_copy", MIB))
  server.on_snapshot()
  fake.request(server, "POST", "/api/profiling/leak-detection")
  return server
end

describe("GET /api/findings", function()
  local server
  before_each(function() server = server_with_findings() end)

  local function get(query)
    local answer = fake.request(server, "GET", "/api/findings" .. (query or ""))
    assert.equal(200, answer.status, answer.body)
    return answer.json, answer.body
  end

  --- The functions that leaks were found in.
  local function leaking(query)
    local names = {}
    for _, finding in ipairs(get("?kind=leak&" .. query).findings) do names[#names + 1] = finding.component end
    table.sort(names)
    return names
  end

  it("is empty before the first check", function()
    server = fake.server()
    local _, body = get()
    assert.truthy(body:find('"checked_at":null,"findings":[],"total":0', 1, true), body)
  end)

  it("tells of each what was found, where, why, and when first and last", function()
    local body, text = get("?rule=leak.steady-growth&current=true")
    assert.equal(1, #body.findings)
    local finding = body.findings[1]
    local names = fake.order(text:match('"findings":%[(%b{})'))
    assert.same(OLD, { unpack(names, 1, #OLD) })
    assert.equal("session_open", finding.component)
    assert.equal("2024-10-10T18:00:00.000Z", finding.first_found)
    assert.equal("2024-10-10T18:01:40.000Z", finding.last_found)
    assert.equal(2, finding.times)
    assert.is_true(finding.current)
    assert.equal("memory", finding.about)
    assert.is_true(#finding.reasons > 0 and finding.score > 0)
    assert.same({ "session_open", "main" }, finding.stack)
    assert.is_nil(finding.file_location)
    assert.truthy(finding.location_reason:find("need debug information of server", 1, true))
  end)

  it("names one by the same id whenever it is found", function()
    local id = get("?rule=leak.steady-growth&current=true").findings[1].id
    server = server_with_findings()
    assert.equal(id, get("?rule=leak.steady-growth&current=true").findings[1].id)
    assert.not_equal(id, get("?rule=leak.steady-growth&current=false").findings[1].id)
  end)

  it("says of a finding without a function why there is no place", function()
    server = fake.server({ heap = { sites = {}, memory = { { time_ms = NOW_MS, rss_bytes = 900 * MIB } } } })
    server.tick()
    local finding = get("?kind=alert").findings[1]
    assert.is_nil(finding.component)
    assert.equal("it is about no single function", finding.location_reason)
    assert.same({}, finding.stack)
  end)

  it("gives those of one kind, rule or verdict", function()
    assert.same({ "row_copy", "session_open" }, leaking(""))
    assert.same({}, leaking("rule=leak.nothing"))
    assert.same({ "row_copy", "session_open" }, leaking("verdict=leak"))
    assert.same({}, leaking("verdict=bounded"))
    for _, finding in ipairs(get("?kind=recommendation").findings) do assert.equal("recommendation", finding.kind) end
  end)

  it("gives those of the last check, or those that it did not find", function()
    assert.same({ "session_open" }, leaking("current=true"))
    assert.same({ "row_copy" }, leaking("current=false"))
  end)

  it("gives those that were there since a time, or in the last seconds", function()
    assert.same({ "session_open" }, leaking("since=2024-10-10T18:00:01Z"))
    assert.same({ "row_copy", "session_open" }, leaking("since=2024-10-10T20:00:00%2B02:00"))
    assert.same({ "session_open" }, leaking("since=99"))
    assert.same({ "row_copy", "session_open" }, leaking("since=2m"))
  end)

  it("cuts a long list, and tells how many there are", function()
    local body = get("?kind=leak&limit=1")
    assert.same({ 1, 2 }, { #body.findings, body.total })
    assert.equal("session_open", body.findings[1].component) -- the newest
  end)

  it("refuses what it does not know", function()
    for query, expected in pairs({
      ["kind=leaks"] = "expected one of leak, bottleneck", ["since=yesterday"] = "expected a time such as 2026",
      ["limit=501"] = "from 1 to 500", ["current=maybe"] = "true or false", ["verdikt=leak"] = 'did you mean "verdict"',
    }) do
      local answer = fake.request(server, "GET", "/api/findings?" .. query)
      assert.equal(400, answer.status)
      assert.truthy(answer.json.detail:find(expected, 1, true), answer.json.detail)
    end
  end)
end)

require("spec.support")
local fake = require("spec.fake_host")

local function get(path, given) return fake.request(fake.server(given), "GET", path) end

describe("/healthz and /readyz", function()
  it("tell that lupe answers, and that a process is profiled", function()
    assert.equal('{"status":"ok"}\n', get("/healthz").body)
    assert.equal('{"status":"ready"}\n', get("/readyz").body)
  end)

  it("is not ready without a connected process, but healthy", function()
    for _, list in ipairs({ {}, { fake.target({ live = false }) }, { fake.target({ connected = false }) } }) do
      assert.equal(503, get("/readyz", { target_list = list }).status)
      assert.equal(200, get("/healthz", { target_list = list }).status)
    end
  end)

  it("are not limited in rate", function()
    local server = fake.server()
    for _ = 1, 500 do assert.equal(200, fake.request(server, "GET", "/healthz").status) end
  end)
end)

describe("GET /api/targets", function()
  it("lists the processes, the dead too, with why one is not profiled", function()
    local answer = get("/api/targets", {
      target_list = {
        fake.target(),
        fake.target({
          pid = 101, live = false, connected = false, heap_state = "prof_disabled", sample_period_bytes = 0,
          last_ms = 0,
        }),
      },
    })
    assert.equal(200, answer.status)
    local list = answer.json.targets
    assert.equal(524288, list[1].sample_period_bytes)
    assert.is_nil(list[1].reason)
    assert.is_false(list[2].live)
    assert.is_nil(list[2].sample_period_bytes)
    assert.is_nil(list[2].last_seen)
    assert.truthy(list[2].reason:find("MALLOC_CONF", 1, true))
  end)

  it("is an empty list before anything connected", function()
    assert.truthy(get("/api/targets", { target_list = {} }).body:find('"targets":[]', 1, true))
  end)
end)

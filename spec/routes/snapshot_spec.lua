require("spec.support")
local config = require("lupe.config")
local fake = require("spec.fake_host")

local PATH = "/api/profiling/snapshot"
local HEAP = { sites = { { name = "f", history = { 100 } } } }
local SECONDS = 1728583200

local function serve(given)
  given = given or {}
  given.heap = given.heap or HEAP
  return fake.server(given)
end

local function file_count(host)
  local count = 0
  for _ in pairs(host.files) do count = count + 1 end
  return count
end

local function add_file(host, id, size)
  host.files[("/state/snapshots/%s.json"):format(id)] = { size = size or 10, mtime_ms = host.clock_ms }
end

local function names(server)
  local list = {}
  for i, entry in ipairs(fake.request(server, "GET", PATH).json.snapshots) do list[i] = entry.snapshot_id end
  return list
end

describe("POST /api/profiling/snapshot", function()
  it("has the promised fields in its order, and 201", function()
    local answer = fake.request(serve(), "POST", PATH)
    assert.equal(201, answer.status, answer.body)
    assert.same({ "timestamp", "snapshot_id", "file_path", "size_bytes", "status", "download_url" },
      { unpack(fake.order(answer.body), 1, 6) })
    local body = answer.json
    assert.equal("snapshot_1728583200", body.snapshot_id)
    assert.equal("/state/snapshots/snapshot_1728583200.json", body.file_path)
    assert.equal(1000, body.size_bytes)
    assert.equal("completed", body.status)
    assert.equal(PATH .. "/snapshot_1728583200/download", body.download_url)
  end)

  it("writes into a private directory, under another name until it is whole", function()
    local made, committed
    local server = serve({ mkdir = function(path, mode)
      made = { path, mode }
      return true
    end })
    local commit = server.host.commit_file
    server.host.commit_file = function(temporary, final, callback)
      committed = { temporary, final }
      commit(temporary, final, callback)
    end
    fake.request(server, "POST", PATH)
    assert.same({ "/state/snapshots", 448 }, made)
    assert.same({
      "/state/snapshots/.snapshot_1728583200.part", "/state/snapshots/snapshot_1728583200.json",
    }, committed)
  end)

  it("holds what the rules find in it, also where nobody has asked them yet", function()
    local history = {}
    for i = 1, 30 do history[i] = i * 2 ^ 20 end
    local server = serve({ heap = { sites = { { name = "parse", history = history } } } })
    fake.request(server, "POST", PATH)
    local written = server.host.files["/state/snapshots/snapshot_1728583200.json"].findings
    assert.equal("leak.steady-growth", written[1].rule)
    assert.equal("parse", written[1].site.name)
  end)

  it("adds _2, _3 ... within one second", function()
    local server = serve()
    for _ = 1, 3 do fake.request(server, "POST", PATH) end
    assert.same({ "snapshot_1728583200_3", "snapshot_1728583200_2", "snapshot_1728583200" }, names(server))
  end)

  it("does not give a name again that retention took away, and keeps the one just made", function()
    local settings = config.defaults()
    settings.state_dir, settings.snapshot_keep = "/state", 2
    local server = serve({ config = settings })
    for _ = 1, 4 do assert.equal(201, fake.request(server, "POST", PATH).status) end
    assert.same({ "snapshot_1728583200_4", "snapshot_1728583200_3" }, names(server))
    server.host.clock_ms = server.host.clock_ms - 3600000 -- the clock was set back
    assert.equal(201, fake.request(server, "POST", PATH).status)
    assert.same({ "snapshot_1728583200_4", "snapshot_1728579600" }, names(server))
  end)

  it("takes the next name where another process took it meanwhile", function()
    local server = serve()
    local list = server.host.list
    server.host.list = function(directory)
      server.host.list = list
      local seen = list(directory)
      add_file(server.host, "snapshot_" .. SECONDS)
      return seen
    end
    assert.equal("snapshot_1728583200_2", fake.request(server, "POST", PATH).json.snapshot_id)
    assert.equal(2, file_count(server.host))
  end)

  it("answers 202 without waiting, and lists it as pending until it is written", function()
    local server = serve({ immediate = false })
    local answer = fake.request(server, "POST", PATH .. "?wait=false")
    assert.equal(202, answer.status)
    assert.equal("pending", answer.json.status)
    assert.truthy(answer.body:find('"size_bytes":null', 1, true))
    local entry = fake.request(server, "GET", PATH).json.snapshots[1]
    assert.equal("pending", entry.status)
    assert.equal(answer.json.snapshot_id, entry.snapshot_id)
    while server.host.run_pending() > 0 do end
    entry = fake.request(server, "GET", PATH).json.snapshots[1]
    assert.equal("completed", entry.status)
    assert.equal(answer.json.snapshot_id, entry.snapshot_id)
  end)

  it("answers 507 where the disk is full, and leaves nothing behind", function()
    local server = serve()
    server.host.export_fails = { ok = false, kind = "system", error = "No space left on device", code = "ENOSPC" }
    server.host.files["/state/snapshots/.snapshot_1728583200.part"] = { size = 5, mtime_ms = 1 }
    local answer = fake.request(server, "POST", PATH)
    assert.equal(507, answer.status)
    assert.equal(0, file_count(server.host))
    local entry = fake.request(server, "GET", PATH).json.snapshots[1]
    assert.equal("failed", entry.status)
    assert.truthy(entry.reason:find("No space left", 1, true))
  end)

  it("answers 507 where it is full only when the file is to be published", function()
    local server = serve({ commit_file = function(_, _, callback) callback("no space", "ENOSPC") end })
    assert.equal(507, fake.request(server, "POST", PATH).status)
    assert.equal(0, file_count(server.host))
    server = serve({ mkdir = function() return nil, "no space", "ENOSPC" end })
    assert.equal(507, fake.request(server, "POST", PATH).status)
  end)

  it("answers 500 with the reason for other failures, and 503 where there is no profile", function()
    local answer = fake.request(serve({ mkdir = function() return nil, "it is a file", "ENOTDIR" end }), "POST", PATH)
    assert.equal(500, answer.status)
    assert.truthy(answer.json.detail:find("it is a file", 1, true))
    local server = serve({ take_snapshot = function(_, _, callback) callback("nothing there") end })
    assert.equal(503, fake.request(server, "POST", PATH).status)
    assert.same({}, server.app.snapshots.pending)
  end)

  it("keeps so many, and so many bytes, but always the newest", function()
    local server = serve()
    server.app.snapshots.keep = 3
    for i = 1, 5 do add_file(server.host, "snapshot_" .. i) end
    fake.request(server, "POST", PATH)
    assert.same({ "snapshot_1728583200", "snapshot_5", "snapshot_4" }, names(server))
    server.app.snapshots.max_bytes = 1010
    server.host.clock_ms = server.host.clock_ms + 1000
    server.host.files["/state/snapshots/snapshot_5.json"].size = 5
    fake.request(server, "POST", PATH)
    assert.same({ "snapshot_1728583201" }, names(server))
    server.app.snapshots.max_bytes = 1
    server.host.clock_ms = server.host.clock_ms + 1000
    fake.request(server, "POST", PATH)
    assert.same({ "snapshot_1728583202" }, names(server))
  end)

  it("leaves files alone that are not snapshots", function()
    local server = serve()
    server.app.snapshots.keep = 1
    for _, name in ipairs({ "notes.txt", "snapshot_x.json", "snapshot_1_0.json" }) do
      server.host.files["/state/snapshots/" .. name] = { size = 1, mtime_ms = 1 }
    end
    fake.request(server, "POST", PATH)
    assert.equal(4, file_count(server.host))
  end)

  it("takes 5 in a minute", function()
    local server = serve()
    for _ = 1, 5 do assert.equal(201, fake.request(server, "POST", PATH).status) end
    assert.equal(429, fake.request(server, "POST", PATH).status)
  end)
end)

describe("GET /api/profiling/snapshot/ID/download", function()
  it("hands the file out as an attachment", function()
    local server = serve()
    fake.request(server, "POST", PATH)
    local answer = fake.request(server, "GET", PATH .. "/snapshot_1728583200/download")
    assert.equal(200, answer.status)
    assert.same({ file = "/state/snapshots/snapshot_1728583200.json" }, answer.body)
    assert.equal('attachment; filename="snapshot_1728583200.json"', answer.headers["Content-Disposition"])
  end)

  it("is 404 for any id that is not exactly of the form, or is not there", function()
    local server = serve()
    add_file(server.host, "secret")
    for _, id in ipairs({
      "snapshot_1", "secret", "..%2f..%2fetc%2fpasswd", "snapshot_1%00", "snapshot_1_", "snapshot_1_0", "%zz", ".",
      "snapshot_1.json",
    }) do
      assert.equal(404, fake.request(server, "GET", PATH .. "/" .. id .. "/download").status, id)
    end
  end)
end)

describe("GET /api/profiling/snapshot", function()
  it("is an empty list before there is one, also without a live process", function()
    local answer = fake.request(serve({ target_list = {} }), "GET", PATH)
    assert.equal(200, answer.status)
    assert.truthy(answer.body:find('"snapshots":[]', 1, true))
  end)
end)

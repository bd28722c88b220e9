--- POST /api/profiling/leak-detection?proof=true, and what other routes tell of leak proofs.
local fake = require("spec.fake_host")
local support = require("spec.support")

local MIB = 2 ^ 20
local PATH = "/api/profiling/leak-detection"

local function ramp(count, from, to)
  local list = {}
  for i = 1, count do list[i] = from + (to - from) * (i - 1) / (count - 1) end
  return list
end

local function heap(proofs)
  return {
    started_ms = 1728583180000, interval_ms = 1000, sample_period_bytes = 16384,
    targets = { { pid = 100, name = "redis-server" }, { pid = 101, name = "helper" } }, proofs = proofs,
    sites = {
      {
        name = "session_open", module = "/usr/bin/server", history = ramp(20, MIB, 25 * MIB), inuse_objects = 25600,
        alloc_space = 25 * MIB, stack = { "xmalloc", "session_open", "on_request", "main" },
      },
      { name = "pool_grow", module = "/usr/bin/server", history = ramp(20, 4 * MIB, 4 * MIB), inuse_objects = 10 },
      { name = "forget", module = "/usr/bin/server", history = ramp(20, 2 * MIB, 2 * MIB), inuse_objects = 100 },
    },
  }
end

local PROOFS = {
  {
    pid = 100, threads = 4, registers = 1, pause_ms = 6.5, elapsed_ms = 2090, read_bytes = 58 * MIB, scan_ms = 12,
    anonymous_bytes = 60 * MIB, heap_bytes = 31 * MIB, heap_objects = 25710, unreachable_bytes = 26 * MIB,
    unreachable_objects = 25600, time_ms = 1728583199000, sites = {
      {
        name = "session_open", unreachable = 412, reachable = 8, groups = 401, largest_behind = 2,
        holder = "pool_grow",
      },
      { name = "pool_grow", reachable = 40, interior = 3, stack_only = 2, unsettled = 1 },
      { name = "forget", unreachable = 9 },
    },
  },
}

local function server_of(given)
  given = given or {}
  given.heap = given.heap or heap()
  if given.proved_heap == nil then given.proved_heap = heap(PROOFS) end
  return fake.server(given)
end

local function detect(server, query) return fake.request(server, "POST", PATH .. (query or "?proof=true")) end

describe("POST /api/profiling/leak-detection?proof=true", function()
  it("has the processes proved within the configured limits, and tells what was found", function()
    local server = server_of()
    local answer = detect(server)
    assert.equal(200, answer.status, answer.body)
    assert.same({
      {
        pid = 100, limits = {
          interval_ms = 2000, max_ms = 30000, max_heap_bytes = 65536 * MIB, max_table_bytes = 256 * MIB,
          min_free_bytes = 64 * MIB, min_free_share = 0.1,
        },
      },
    }, server.host.proofs)
    local proof = answer.json.proof
    assert.same({ "complete", 26 * MIB, 25600, "2024-10-10T17:59:59.000Z", 1 },
      { proof.status, proof.unreachable_bytes, proof.unreachable_objects, proof.time, proof.age_seconds })
    assert.is_nil(proof.reason)
    local target = proof.targets[1]
    assert.same({ 100, "redis-server", "complete", 6.5, 2090, 4, 1 },
      { target.pid, target.name, target.outcome, target.pause_ms, target.elapsed_ms, target.threads, target.registers })
    assert.equal(math.floor(58 * MIB / 0.012 + 0.5), target.scan_bytes_per_sec)
    assert.is_nil(answer.json.proof_reason)
  end)

  it("tells each leak's proof, those without growth included", function()
    local body = detect(server_of()).json
    local grows, quiet = body.potential_leaks[1], body.potential_leaks[2]
    assert.same({ "session_open", "leak" }, { grows.component, grows.verdict })
    assert.same({
      state = "proven", reasons = {}, proven_objects = 25112, proven_bytes = 25715078, proven_bytes_error = 2483106,
      share = 0.981, sampled_objects = 420, groups = 401, largest_behind = 2, holder = "pool_grow",
      time = "2024-10-10T17:59:59.000Z", lost_objects = 25112, lost_bytes = 25715078, lost_bytes_error = 2483106,
    }, grows.proof)
    assert.is_nil(grows.proof_reason)
    assert.same({ "forget", "leak", "proven" }, { quiet.component, quiet.verdict, quiet.proof.state })
    assert.is_nil(quiet.growth_rate_mb_per_hour)
    assert.truthy(body.recommendations[1]:find("Nothing points to 24.5 MiB of it any more", 1, true))
  end)

  it("lists the sites of the proof, most lost first, with all counts", function()
    local sites, names = detect(server_of()).json.proof.sites, {}
    for i, site in ipairs(sites) do names[i] = site.component .. " " .. site.state end
    assert.same({ "session_open proven", "forget proven", "pool_grow reachable" }, names)
    local last = sites[3]
    assert.same({ 46, 0, 40, 3, 2, 1, 0 },
      { last.sampled_objects, last.unreachable, last.reachable, last.interior, last.stack_only, last.unsettled,
        last.groups })
    assert.same({ "server", { "pool_grow" }, 4 * MIB }, { last.module, last.stack, last.total_bytes })
    assert.truthy(last.reasons[1]:find("can still be reached", 1, true))
    assert.same({ "session_open", "on_request", "main" }, sites[1].stack)
  end)

  it("tells what is lost by its samples, and nothing as proven, where pointers may hide", function()
    local hidden = {}
    for name, value in pairs(PROOFS[1]) do hidden[name] = value end
    hidden.hidden = { "luajit" }
    local body = detect(server_of({ proved_heap = heap({ hidden }) })).json
    for _, told in ipairs({ body.proof.sites[1], body.potential_leaks[1].proof }) do
      assert.same({ "unreferenced", 0, 0, 0, 25112, 25715078, 2483106, 0.981 },
        { told.state, told.proven_objects, told.proven_bytes, told.proven_bytes_error, told.lost_objects,
          told.lost_bytes, told.lost_bytes_error, told.share })
    end
  end)

  it("has the fields that docs/api.md shows, in their order", function()
    local page = assert(support.read_file(support.root .. "/docs/api.md"))
    local shown = assert(page:match("\n### Leak proofs\n.-\n```json\n(.-)\n```"))
    local real = detect(server_of()).body:match('"proof":(%b{}),"proof_reason"[^{]*"target"')
    assert.same(fake.order(shown), fake.order(real))
    for _, list in ipairs({ "targets", "sites" }) do
      local pattern = '"' .. list .. '":%s*%[%s*(%b{})'
      assert.same(fake.order(shown:match(pattern)), fake.order(real:match(pattern)), list)
    end
  end)

  it("proves all live processes at the same time, or the one that was picked", function()
    local both = { fake.target(), fake.target({ pid = 101 }), fake.target({ pid = 102, live = false }) }
    local server = server_of({ target_list = both, immediate = false })
    local answered
    server.handle({
      method = "POST", path = PATH, query = "proof=true", headers = { host = "127.0.0.1:7077" }, peer = "127.0.0.1",
    }, function(status) answered = status end)
    assert.equal(2, #server.host.proofs)
    assert.is_nil(answered)
    while server.host.run_pending() > 0 do end
    assert.equal(200, answered)
    server = server_of({ target_list = both })
    assert.equal(101, detect(server, "?proof=true&target=101").json.target.pid)
    assert.same({ 101, 1 }, { server.host.proofs[1].pid, #server.host.proofs })
  end)

  it("stops a process once for all who ask meanwhile", function()
    local server, answers = server_of({ immediate = false }), {}
    for i = 1, 3 do
      server.handle({
        method = "POST", path = PATH, query = "proof=true", headers = { host = "127.0.0.1:7077" }, peer = "127.0.0.1",
      }, function(status, _, body) answers[i] = { status, body:match('"status":"complete"') } end)
    end
    while server.host.run_pending() > 0 do end
    assert.equal(1, #server.host.proofs)
    for i = 1, 3 do assert.same({ 200, '"status":"complete"' }, answers[i]) end
    server.host.immediate = true
    detect(server)
    assert.equal(2, #server.host.proofs)
  end)

  it("answers 200 with the reason where it is refused, and judges by growth", function()
    local refused = { outcome = 4, error = 0, elapsed_ms = 0, pause_ms = 0, anonymous_bytes = 0, read_bytes = 0 }
    local body = detect(server_of({
      proved_heap = heap({ { pid = 100, outcome = "sigsys_taken" } }), proof_replies = { [100] = refused },
    })).json
    assert.equal("refused", body.proof.status)
    assert.truthy(body.proof.reason:find("handles or blocks SIGSYS itself", 1, true))
    assert.same({ "sigsys_taken", body.proof.reason }, { body.proof.targets[1].outcome, body.proof.targets[1].why })
    assert.same({}, body.proof.sites)
    assert.is_nil(body.proof.unreachable_bytes)
    local leak = body.potential_leaks[1]
    assert.same({ "session_open", body.proof.reason }, { leak.component, leak.proof_reason })
    assert.is_nil(leak.proof)
  end)

  it("says which process gave no answer", function()
    local body = detect(server_of({ proved_heap = false, proof_replies = { [100] = "its agent is gone" } })).json
    assert.same({ "refused", "process 100 (redis-server): its agent is gone" },
      { body.proof.status, body.proof.reason })
    assert.same({ "unanswered", "its agent is gone" }, { body.proof.targets[1].outcome, body.proof.targets[1].why })
  end)

  it("is a 403 with --proof=never, a 503 before the first profile, and counts as a leak detection", function()
    local server = server_of()
    server.host.config.proof = "never"
    local answer = detect(server)
    assert.same({ 403, "urn:lupe:problem:proof-off" }, { answer.status, answer.json.type })
    assert.equal(200, detect(server, "").status)
    assert.equal(0, #server.host.proofs)
    local early = fake.server()
    assert.equal(503, detect(early).status)
    assert.equal(0, #early.host.proofs)
    server = server_of()
    for _ = 1, 10 do assert.equal(200, detect(server).status) end
    assert.equal(429, detect(server).status)
    assert.equal(10, #server.host.proofs)
    assert.equal(400, detect(server_of(), "?proof=maybe").status)
  end)

  it("is not run unless it is asked for; the newest one is told all the same", function()
    local server = server_of()
    local body = detect(server, "").json
    assert.same({ nil, "no leak proof was run", "no leak proof was run" },
      { body.proof, body.proof_reason, body.potential_leaks[1].proof_reason })
    detect(server)
    body = detect(server, "?proof=false").json
    assert.same({ "complete", "proven", 1 },
      { body.proof.status, body.potential_leaks[1].proof.state, #server.host.proofs })
  end)

  it("says of a leak that the proof has nothing of it", function()
    local proofs = { { pid = 100, sites = { { name = "pool_grow", reachable = 4 } } } }
    local leak = detect(server_of({ proved_heap = heap(proofs) })).json.potential_leaks[1]
    assert.same({ nil, "none of its objects was sampled when the proof was run" }, { leak.proof, leak.proof_reason })
  end)
end)

describe("leak proofs are told by", function()
  it("/api/findings, with the finding", function()
    local server = server_of()
    detect(server)
    local found = fake.request(server, "GET", "/api/findings?rule=leak.steady-growth").json.findings
    local by = {}
    for _, one in ipairs(found) do by[one.component] = one end
    assert.same({ "proven", 401 }, { by.session_open.proof.state, by.session_open.proof.groups })
    assert.equal("proven", by.forget.evidence.proof_state)
  end)

  it("a snapshot's findings", function()
    local server = server_of()
    detect(server)
    local made = fake.request(server, "POST", "/api/profiling/snapshot").json
    local findings = server.host.files[made.file_path].findings
    assert.equal("proven", findings[1].site.proof.state)
  end)

  it("/metrics: how many, what they cost, what they found", function()
    local server = server_of()
    local function metrics() return fake.request(server, "GET", "/metrics").body end
    assert.truthy(metrics():find('\nlupe_proofs_total{outcome="complete"} 0\n', 1, true))
    assert.is_nil(metrics():find("lupe_proof_unreachable_bytes", 1, true))
    detect(server)
    server.host.proof_replies[100] = { outcome = 5, elapsed_ms = 0, pause_ms = 0, read_bytes = 0 }
    detect(server)
    server.host.proof_replies[100] = "gone"
    detect(server)
    for _, line in ipairs({
      'lupe_proofs_total{outcome="complete"} 1', 'lupe_proofs_total{outcome="no_memory"} 1',
      'lupe_proofs_total{outcome="unanswered"} 1', "lupe_proof_pause_seconds_total 0.0065",
      ("lupe_proof_unreachable_bytes %d"):format(26 * MIB),
    }) do
      assert.truthy(metrics():find("\n" .. line .. "\n", 1, true), line)
    end
  end)
end)

--- The HTTP API of a live run: the fields that the design document promises, and errors that say what was wrong.
local lupe_run = require("spec.lupe_run")
local support = require("spec.support")
local support_openapi = require("spec.support_openapi")

-- The answers as the design document shows them: names, types and order of the fields are the promise.
local PROMISED = {
  { "GET", "/api/profiling/memory", [=[{
    "timestamp": "2025-10-10T18:00:00Z", "rss_mb": 245.3, "heap_mb": 189.7, "virtual_mb": 512.1,
    "resident_mb": 245.3, "shared_mb": 12.4, "growth_rate_mb_per_sec": 0.15, "threshold_status": "normal",
    "warnings": [] }]=] },
  { "GET", "/api/profiling/cpu", [=[{
    "timestamp": "2025-10-10T18:00:00Z", "cpu_usage_percent": 23.5, "user_time_percent": 18.2,
    "system_time_percent": 5.3, "load_average": { "one_min": 0.45, "five_min": 0.38, "fifteen_min": 0.32 } }]=] },
  { "GET", "/api/profiling/allocations", [=[{
    "timestamp": "2025-10-10T18:00:00Z", "top_allocators": [["riptide_html::parse_document", 45678912]],
    "size_distribution": { "small_0_1kb": 4521, "medium_1_100kb": 892, "large_100kb_1mb": 45, "huge_1mb_plus": 12 },
    "efficiency_score": 0.87, "fragmentation_percent": 8.3, "recommendations": [] }]=] },
  { "POST", "/api/profiling/leak-detection", [=[{
    "timestamp": "2025-10-10T18:00:00Z", "analysis_duration_ms": 450, "potential_leaks": [{
      "component": "riptide_html::cache", "allocation_count": 2341, "total_size_bytes": 52428800,
      "average_size_bytes": 22400.0, "growth_rate_mb_per_hour": 12.5, "severity": "high",
      "first_seen": "2025-10-10T17:00:00Z", "last_seen": "2025-10-10T18:00:00Z" }],
    "growth_rate_mb_per_hour": 12.5, "highest_risk_component": "riptide_html::cache",
    "suspicious_patterns": [], "recommendations": ["Investigate riptide_html::cache for potential memory leak"] }]=] },
  { "POST", "/api/profiling/snapshot", [=[{
    "timestamp": "2025-10-10T18:00:00Z", "snapshot_id": "snapshot_1728583200",
    "file_path": "/tmp/riptide_heap_snapshot_1728583200.json", "size_bytes": 15728640, "status": "completed",
    "download_url": "/api/profiling/snapshot/snapshot_1728583200/download" }]=] },
}
local ELSE = { "/api/targets", "/api/rules", "/api/findings", "/api/profiling/snapshot", "/healthz", "/readyz" }
local READS = { "memory", "cpu", "allocations", "bottlenecks", "leak-detection", "snapshot" }

-- Every field of a JSON text as a line "path type", in order, each once; list elements are all called [].
local FIELDS = [[paths as $p | [($p | map(if type == "number" then "[]" else . end) | join(".")), (getpath($p) | type)]
  | join(" ")]]

local function fields_of(text)
  local path = support.write_file(support.temp_dir() .. "/answer.json", text)
  local done = support.run({ "jq", "-er", FIELDS, path })
  assert.equal(0, done.code, "jq is not content: " .. done.err .. text)
  local list, seen = {}, {}
  for line in done.out:gmatch("[^\n]+") do
    if not seen[line] then list[#list + 1] = line end
    seen[line] = true
  end
  return list
end

-- The fields of `text` that the other text has too, so that what was added does not matter where it comes later.
local function common(list, others)
  local known, kept = {}, {}
  for _, line in ipairs(others) do known[line] = true end
  for _, line in ipairs(list) do
    if known[line] then kept[#kept + 1] = line end
  end
  return kept
end

local function top_level(list)
  local names = {}
  for _, line in ipairs(list) do
    local name = line:match("^([%w_]+) ")
    if name then names[#names + 1] = name end
  end
  return names
end

describe("the HTTP API of lupe run", function()
  local run

  local function ask(method, path, options)
    options = options or {}
    options.method = method
    return assert(support.http(run.port, path, options))
  end

  local function refused(status, answer)
    assert.equal(status, answer.status, answer.body)
    assert.equal("application/problem+json", answer.headers["content-type"])
    assert.same({ "type", "title", "status", "detail", "instance" }, top_level(fields_of(answer.body)))
    local problem = answer.json()
    assert.equal(status, problem.status)
    return problem.detail, problem
  end

  setup(function()
    run = lupe_run.start({ support.built("examples/leaky_server"), "--self-drive", 300 },
      { flags = { "--heap-interval", "0.2", "--sample-bytes", "64K", "--cpu-hz", "1000" } })
    run:await("/api/profiling/allocations", function(a) return #a.top_allocators > 0 end)
  end)
  teardown(support.cleanup)

  it("names an unknown query parameter and lists the known ones", function()
    assert.matches('unknown parameter "limits", did you mean "limit"?; known here: target, by, limit',
      refused(400, ask("GET", "/api/profiling/allocations?limits=3")), 1, true)
    assert.matches("takes none", (refused(400, ask("GET", "/api/rules?verbose=1"))))
  end)

  it("says of a bad value what was expected", function()
    local cases = {
      ["/api/profiling/allocations?limit=many"] = 'parameter "limit": cannot understand "many", expected a whole',
      ["/api/profiling/allocations?limit=0"] = "from 1 to 1000",
      ["/api/profiling/allocations?by=size"] = "one of inuse_space, alloc_space",
      ["/api/profiling/memory?target=init"] = "a process id",
      ["/api/profiling/memory?target=%zz"] = "two hexadecimal digits",
      ["/api/profiling/memory?target=1&target=2"] = "more than once",
    }
    for path, expected in pairs(cases) do assert.matches(expected, refused(400, ask("GET", path)), 1, true) end
  end)

  it("has nothing at other paths, and says what a path allows", function()
    for _, path in ipairs({ "/", "/api", "/api/profiling/memory/", "/api/profiling/memory%2f", "/../etc/passwd" }) do
      local detail, problem = refused(404, ask("GET", path))
      assert.matches("nothing at", detail)
      assert.equal(path, problem.instance)
    end
    local answer = ask("DELETE", "/api/profiling/snapshot")
    refused(405, answer)
    assert.equal("GET, HEAD, POST", answer.headers.allow)
    answer = ask("GET", "/api/profiling/leak-detection")
    refused(405, answer)
    assert.equal("POST", answer.headers.allow)
  end)

  it("refuses a body that is too large or no JSON, and takes parameters from one that is", function()
    local path = "/api/profiling/leak-detection"
    assert.matches("65536", (refused(413, ask("POST", path, { body = ("x"):rep(65537) }))))
    assert.matches("65536", (refused(413, ask("POST", path, { body = (" "):rep(3 * 2 ^ 20) }))))
    local text = { ["Content-Type"] = "text/plain" }
    assert.matches("application/json, not text/plain",
      (refused(415, ask("POST", path, { body = "{}", headers = text }))))
    assert.matches("JSON object", (refused(400, ask("POST", path, { body = "[1]" }))))
    assert.matches("JSON object", (refused(400, ask("POST", path, { body = "{" }))))
    assert.matches('unknown parameter "proofs"', (refused(400, ask("POST", path, { body = '{"proofs":true}' }))))
    assert.matches("no process 4194304", (refused(404, ask("POST", path, { body = '{"target":4194304}' }))))
  end)

  it("speaks only to who names its own address", function()
    local names = { "evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:" .. run.port }
    for _, host in ipairs(names) do
      assert.matches("Host must name", (refused(403, ask("GET", "/healthz", { headers = { Host = host } }))))
    end
    for _, origin in ipairs({ "http://evil.example", "null", "https://127.0.0.1:" .. run.port }) do
      assert.matches("another origin", (refused(403, ask("GET", "/healthz", { headers = { Origin = origin } }))))
    end
    local own = { Host = "localhost:" .. run.port, Origin = "http://127.0.0.1:" .. run.port }
    assert.equal(200, ask("GET", "/healthz", { headers = own }).status)
  end)

  it("answers HEAD wherever it answers GET, without a body", function()
    for _, path in ipairs({ "/api/profiling/memory", "/metrics", "/healthz", "/api/rules" }) do
      local answer = ask("HEAD", path)
      assert.equal(200, answer.status)
      assert.equal("", answer.body)
      assert.is_true(tonumber(answer.headers["content-length"]) > 0)
    end
    assert.equal(404, ask("HEAD", "/nothing").status)
  end)

  it("does not know a process that was never there", function()
    for _, name in ipairs({ "memory", "cpu", "allocations" }) do
      assert.matches("no process 4194304 in this run", refused(404, ask("GET", ("/api/profiling/%s?target=4194304")
        :format(name))), 1, true)
    end
  end)

  it("answers bottlenecks with the promised fields in the promised order", function()
    run:await("/api/profiling/bottlenecks", function(b) return #b.hotspots > 0 end, 60)
    local body = ask("GET", "/api/profiling/bottlenecks").body
    -- A hotspot's place may be null, and how often it was called is: names only.
    local path = support.write_file(support.temp_dir() .. "/answer.json", body)
    local done = support.run({ "jq", "-r", ".hotspots[0] | keys_unsorted | .[:8] | join(\" \")", path })
    assert.equal("function_name file_location line_number cpu_time_percent wall_time_percent call_count "
      .. "average_duration_us impact_score\n", done.out)
    assert.same({ "timestamp", "analysis_duration_ms", "hotspots", "cpu_bound_percent", "io_bound_percent",
      "memory_bound_percent", "recommendations" }, { unpack(top_level(fields_of(body)), 1, 7) })
  end)

  it("forbids caches and guesses about the content", function()
    for _, path in ipairs({ "/api/profiling/memory", "/nothing", "/metrics" }) do
      local answer = ask("GET", path)
      assert.equal("no-store", answer.headers["cache-control"])
      assert.equal("nosniff", answer.headers["x-content-type-options"])
    end
  end)

  it("serves metrics that promtool has nothing to say about, as text and as OpenMetrics", function()
    local plain = ask("GET", "/metrics")
    assert.equal("text/plain; version=0.0.4; charset=utf-8", plain.headers["content-type"])
    local path = support.write_file(support.temp_dir() .. "/metrics", plain.body)
    local checked = support.run({ "promtool", "check", "metrics" }, { stdin = path })
    assert.same({ 0, "", "" }, { checked.code, checked.out, checked.err })
    local open = ask("GET", "/metrics", { headers = { Accept = "application/openmetrics-text;version=1.0.0" } })
    assert.equal("application/openmetrics-text; version=1.0.0; charset=utf-8", open.headers["content-type"])
    assert.matches("\n# EOF\n$", open.body)
    for _, text in ipairs({ plain.body, open.body }) do
      local names = { "memory_rss_bytes", "allocator_allocated_bytes", "cpu_seconds_total", "dropped_records_total" }
      for _, name in ipairs(names) do
        assert.is_truthy(text:find("\nlupe_" .. name, 1, true), name)
      end
      assert.is_nil(text:lower():match("%snan%s") or text:lower():match("%s[+-]?inf%s"))
    end
  end)

  it("answers with the promised fields in the promised order, and JSON that jq takes", function()
    -- Late: by now a leak is found, and no rate is unknown any more.
    support.eventually(function()
      return #run:post("/api/profiling/leak-detection").potential_leaks > 0
    end, 30, "the leak to be found")
    for _, promised in ipairs(PROMISED) do
      local answer = ask(promised[1], promised[2])
      local expected, got = fields_of(promised[3]), fields_of(answer.body)
      assert.same(expected, common(got, expected), promised[2])
      local names = top_level(expected)
      assert.same(names, { unpack(top_level(got), 1, #names) }, promised[2])
      assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$", answer.json().timestamp)
      local own = answer.json().profiler
      assert.is_true(own.rss_mb > 0 and own.cpu_percent >= 0 and own.dropped_records >= 0)
    end
    for _, path in ipairs(ELSE) do fields_of(ask("GET", path).body) end
  end)

  it("answers every route as /openapi.json says", function()
    local text, answers = ask("GET", "/openapi.json").body, {}
    local snapshot = run:post("/api/profiling/snapshot", 201)
    for path, item in pairs(support.json.decode(text).paths) do
      for method in pairs(item) do
        local asked = path:gsub("{id}", snapshot.snapshot_id)
        if path:find("pprof/profile$") or path:find("pprof/wall$") then asked = asked .. "?seconds=1" end
        local answer = ask(method:upper(), asked)
        -- Only a daemon keeps reports of programs that have ended.
        local found = path ~= "/api/reports/{id}"
        assert.equal(found, answer.status < 400, asked .. answer.body)
        answers[#answers + 1] = support_openapi.answer(method:upper(), path, answer)
      end
    end
    local drawn = ask("GET", "/api/profiling/flamegraph?type=heap&format=json&base=" .. snapshot.snapshot_id)
    answers[#answers + 1] = support_openapi.answer("GET", "/api/profiling/flamegraph", drawn)
    assert.same({}, support_openapi.faults(text, answers))
  end)

  it("sums what it says of the processor, and orders what it says of memory", function()
    local cpu, memory = run:get("/api/profiling/cpu"), run:get("/api/profiling/memory")
    assert.is_near(cpu.cpu_usage_percent, cpu.user_time_percent + cpu.system_time_percent, 1e-9)
    assert.is_true(memory.heap_mb <= memory.active_mb and memory.active_mb <= memory.resident_mb)
    assert.is_true(memory.rss_mb < memory.virtual_mb)
  end)
end)

describe("a run that is not profiled", function()
  teardown(support.cleanup)

  it("answers 503 where profiling is switched off, and runs the program as it is", function()
    local run = lupe_run.start({ "sh", "-c", "echo preload=$LD_PRELOAD; exec sleep 60" },
      { env = { ENABLE_PROFILING = "false" } })
    run:await("/healthz")
    for _, name in ipairs(READS) do
      local answer = support.http(run.port, "/api/profiling/" .. name,
        { method = name == "leak-detection" and "POST" or "GET" })
      assert.equal(503, answer.status, name)
      assert.matches("ENABLE_PROFILING=false", answer.json().detail)
    end
    assert.matches("ENABLE_PROFILING=false", run:get("/readyz", nil, 503).detail)
    assert.equal("preload=\n", run.process:stdout())
    run:finish(15)
  end)
end)

describe("the default limits of requests", function()
  teardown(support.cleanup)

  it("are 100 reads, 10 leak detections and 5 snapshots a minute, then 429 with the time to wait", function()
    local port = support.free_port()
    support.spawn({ support.built("lupe"), "run", "--listen", "127.0.0.1:" .. port, "--report", "none", "--state-dir",
      support.temp_dir(), "--", "sleep", "60" })
    support.eventually(function()
      local answer = support.http(port, "/readyz")
      return answer and answer.status == 200
    end, 20, "the program to be profiled")
    local kinds = { { 100, "GET", "/api/targets" }, { 10, "POST", "/api/profiling/leak-detection" },
      { 5, "POST", "/api/profiling/snapshot?wait=false" } }
    for _, kind in ipairs(kinds) do
      local limit, answer = kind[1], nil
      for i = 1, limit + 1 do
        answer = support.http(port, kind[3], { method = kind[2] })
        assert.is_true((answer.status == 429) == (i > limit), ("%s: request %d: %d"):format(kind[3], i, answer.status))
      end
      assert.matches("more than " .. limit .. " requests of this kind in a minute", answer.json().detail)
      local wait = tonumber(answer.headers["retry-after"])
      assert.is_true(wait >= 1 and wait <= 60)
    end
    assert.equal(200, support.http(port, "/healthz").status)
  end)
end)
